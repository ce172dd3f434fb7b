"""Writes all generated pages."""

from __future__ import annotations

import asyncio

from docs.generate import GENERATED, REFERENCE
from docs.generate.commands import commands_page
from docs.generate.keys import keys_page
from docs.generate.python_api import python_api_page
from docs.generate.routes import routes_page
from docs.generate.tables import tables_page
from noetl_broker import embedded_postgres
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.migrations import migrate


def write_pages() -> None:
    """Write the generated pages into docs/reference; an unchanged page keeps its time."""
    pages = (routes_page(), commands_page(), keys_page(), python_api_page(), asyncio.run(_tables()))
    for name, text in zip(GENERATED, pages, strict=True):
        file = REFERENCE / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


async def _tables() -> str:
    with embedded_postgres.start(settings={"fsync": "off"}) as postgres:
        database = Database(dsn=postgres.dsn())
        await migrate(database)
        return await tables_page(database)

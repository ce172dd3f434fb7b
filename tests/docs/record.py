"""Writes the generated pages and pictures: `make docs`. Pytest does not collect a file of this name by itself."""

from __future__ import annotations

from noetl_broker.diagram.svg import render_svg
from tests.docs.api_routes import ROUTES, api_routes
from tests.docs.pictures import pictures
from tests.docs.references import PLAYBOOKS, TABLES, playbook_reference, tables_reference
from tests.postgres import Database


async def test_write_the_generated_pages(database: Database) -> None:
    """From the present models, migrations and examples."""
    PLAYBOOKS.write_text(playbook_reference(), encoding="utf-8")
    TABLES.write_text(await tables_reference(database), encoding="utf-8")
    ROUTES.write_text(api_routes(), encoding="utf-8")
    for file, picture in pictures():
        file.write_text(render_svg(picture), encoding="utf-8")

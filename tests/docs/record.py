"""Writes the generated pages: `make docs`. Pytest does not collect a file of this name by itself."""

from __future__ import annotations

from tests.docs.api_routes import ROUTES, api_routes
from tests.docs.references import PLAYBOOKS, TABLES, playbook_reference, tables_reference
from tests.postgres import Database


async def test_write_the_generated_pages(database: Database) -> None:
    """From the present models and migrations."""
    PLAYBOOKS.write_text(playbook_reference(), encoding="utf-8")
    TABLES.write_text(await tables_reference(database), encoding="utf-8")
    ROUTES.write_text(api_routes(), encoding="utf-8")

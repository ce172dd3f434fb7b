"""Writes the generated pages anew: `make docs`. Its name is no test's, so that only who asks for it runs it."""

from __future__ import annotations

from tests.docs.references import PLAYBOOKS, TABLES, playbook_reference, tables_reference
from tests.postgres import Database


async def test_write_the_generated_pages(database: Database) -> None:
    """The pages as the models and the migrations have them now."""
    PLAYBOOKS.write_text(playbook_reference(), encoding="utf-8")
    TABLES.write_text(await tables_reference(database), encoding="utf-8")

"""The generated pages are what would be generated now, and leave nothing unsaid."""

from __future__ import annotations

import re

from tests.docs.references import HEADINGS, PLAYBOOKS, TABLES, playbook_reference, tables_reference
from tests.postgres import Database

REMEDY = "run make docs"


def test_the_keys_of_playbooks_are_those_of_the_models() -> None:
    """To the letter."""
    assert PLAYBOOKS.read_text(encoding="utf-8") == playbook_reference(), REMEDY


async def test_the_tables_are_those_of_a_migrated_database(database: Database) -> None:
    """To the letter."""
    assert TABLES.read_text(encoding="utf-8") == await tables_reference(database), REMEDY


async def test_each_table_column_and_function_has_a_comment(database: Database) -> None:
    """A migration that adds one says what it is: `comment on …` beside it."""
    page = await tables_reference(database)
    unsaid = [line for line in page.splitlines() if line.startswith("|") and line.endswith("|  |")]
    unsaid += re.findall(r"^(### .*)\n\n\|", page, re.MULTILINE)
    assert unsaid == []


def test_every_link_within_the_page_leads_somewhere() -> None:
    """To one of its headings."""
    page = PLAYBOOKS.read_text(encoding="utf-8")
    anchors = {re.sub(r"[^a-z ]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS.values()}
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) - anchors == set()

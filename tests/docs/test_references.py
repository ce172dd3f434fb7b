"""The generated pages are up to date and complete."""

from __future__ import annotations

import re

from tests.docs.references import HEADINGS, PLAYBOOKS, TABLES, playbook_reference, tables_reference
from tests.postgres import Database

REMEDY = "run make docs"


def test_the_keys_of_playbooks_are_those_of_the_models() -> None:
    """Exactly."""
    assert PLAYBOOKS.read_text(encoding="utf-8") == playbook_reference(), REMEDY


async def test_the_tables_are_those_of_a_migrated_database(database: Database) -> None:
    """Exactly."""
    assert TABLES.read_text(encoding="utf-8") == await tables_reference(database), REMEDY


async def test_each_table_column_and_function_has_a_comment(database: Database) -> None:
    """Each `create` has its `comment on`."""
    page = await tables_reference(database)
    uncommented = [line for line in page.splitlines() if line.startswith("|") and line.endswith("|  |")]
    uncommented += re.findall(r"^(### .*)\n\n\|", page, re.MULTILINE)
    assert uncommented == []


def test_each_link_within_the_page_leads_to_a_heading() -> None:
    """To one of the headings."""
    page = PLAYBOOKS.read_text(encoding="utf-8")
    anchors = {re.sub(r"[^a-z ]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS.values()}
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) - anchors == set()

"""The generated pages and pictures are up to date and complete."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.performance_page import PAGE, filled
from noetl_broker.diagram.svg import render_svg
from noetl_broker.store.connect.migrations import roles
from tests.docs.api_routes import ROUTES, api_routes
from tests.docs.pages import DOCS, read_page
from tests.docs.pictures import pictures
from tests.docs.references import HEADINGS, PLAYBOOKS, TABLES, playbook_reference, tables_reference
from tests.postgres import Database

REMEDY = "run make docs"


def test_the_keys_of_playbooks_are_those_of_the_models() -> None:
    """Exactly."""
    assert PLAYBOOKS.read_text(encoding="utf-8") == playbook_reference(), REMEDY


async def test_the_tables_are_those_of_a_migrated_database(database: Database) -> None:
    """Exactly; each table and each column has its `comment on`."""
    page = await tables_reference(database)
    assert TABLES.read_text(encoding="utf-8") == page, REMEDY
    uncommented = [line for line in page.splitlines() if line.startswith("|") and line.endswith("|  |")]
    uncommented += re.findall(r"^(### .*)\n\n\|", page, re.MULTILINE)
    assert uncommented == []


def test_the_functions_are_those_that_people_call() -> None:
    """Workers, producers and approvers; operators by their last list in roles.sql; the owner for tokens of the API."""
    grants = re.findall(r"grant execute on function\s+([^;]*?)\s+to noetl_(\w+);", roles())
    *_, actions = (functions for functions, role in grants if role == "operator")
    others = (functions for functions, role in grants if role in {"worker", "producer", "approver"})
    called = {name for functions in (actions, *others) for name in re.findall(r"noetl\.(\w+)\(", functions)}
    listed = re.findall(r"^\| `noetl\.(\w+)\(", TABLES.read_text(encoding="utf-8"), re.MULTILINE)
    assert {*listed} == called | {"create_api_token", "revoke_api_token"}


def test_the_routes_are_those_of_the_program() -> None:
    """Exactly."""
    assert ROUTES.read_text(encoding="utf-8") == api_routes(), REMEDY


def test_the_pictures_are_those_of_the_examples() -> None:
    """Each is shown, with a text; no other is in the folder of the cookbook."""
    files = dict(pictures())
    outdated = [file.name for file, picture in files.items() if file.read_text(encoding="utf-8") != render_svg(picture)]
    assert outdated == [], REMEDY
    shown = re.findall(r"!\[[^\]]+\]\(([^)]*\.svg)\)", read_page("graph") + read_page("cookbook"))
    assert sorted(Path(name).name for name in shown) == sorted(file.name for file in files)
    assert {*(DOCS / "how-to" / "cookbook").iterdir()} <= files.keys()


def test_the_page_about_performance_has_the_stored_results() -> None:
    """`python -m benchmarks.performance_page` writes the table from benchmarks/results/results.json."""
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page


def test_each_link_within_the_page_leads_to_a_heading() -> None:
    """To one of the headings."""
    page = PLAYBOOKS.read_text(encoding="utf-8")
    anchors = {re.sub(r"[^a-z ]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS.values()}
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) - anchors == set()

"""The generated pages are complete, and the pictures up to date."""

from __future__ import annotations

import re
from pathlib import Path

import noetl_broker
from benchmarks.performance_page import PAGE, filled
from docs.generate.commands import commands_page
from docs.generate.keys import keys_page
from docs.generate.python_api import python_api_page
from docs.generate.routes import routes_page
from docs.generate.tables import tables_page
from noetl_broker.commands import COMMANDS
from noetl_broker.console.api.routes import ROUTERS
from noetl_broker.console.document import operations
from noetl_broker.diagram.svg import render_svg
from noetl_broker.service.action import Role
from noetl_broker.store.connect.migrations import roles as roles_file
from tests.docs.pages import DOCS, read_page
from tests.docs.pictures import pictures
from tests.postgres import Database


def test_each_key_of_a_playbook_has_a_description() -> None:
    """Step types may lack keys of their own."""
    keys, _, _ = keys_page().partition("## Types")
    assert re.findall(r"^\| (`.*) \|  \|$", keys, re.MULTILINE) == []


async def test_each_table_and_each_column_has_its_comment(database: Database) -> None:
    """By `comment on` in the migrations."""
    page = await tables_page(database)
    uncommented = [line for line in page.splitlines() if line.startswith("|") and line.endswith("|  |")]
    uncommented += re.findall(r"^(### .*)\n\n\|", page, re.MULTILINE)
    assert uncommented == []


async def test_the_functions_are_those_that_people_call(database: Database) -> None:
    """Workers, producers and approvers; operators by their last list in roles.sql; the owner for tokens of the API."""
    grants = re.findall(r"grant execute on function\s+([^;]*?)\s+to noetl_(\w+);", roles_file())
    *_, actions = (functions for functions, role in grants if role == "operator")
    others = (functions for functions, role in grants if role in {"worker", "producer", "approver"})
    called = {name for functions in (actions, *others) for name in re.findall(r"noetl\.(\w+)\(", functions)}
    listed = re.findall(r"^\| `noetl\.(\w+)\(", await tables_page(database), re.MULTILINE)
    assert {*listed} == called | {"create_api_token", "revoke_api_token"}


def test_each_route_has_its_role_and_its_answer() -> None:
    """In the order of the routers, which the page groups by noun."""
    page = routes_page()
    sections = dict(re.findall(r"^### `([A-Z]+ /[^`]*)`\n(.*?)(?=^##)", page, re.MULTILINE | re.DOTALL))
    assert {*sections} == {f"{entry.method} {entry.path}" for entry in operations(ROUTERS, "")}
    for entry in operations(ROUTERS, ""):
        section = sections[f"{entry.method} {entry.path}"]
        roles = [role.value for role in Role if role in (entry.roles or ())]
        assert ("Needs no token." if entry.roles is None else f"For {', '.join(roles)}.") in section
        assert " ".join(entry.sentence.split()) in " ".join(section.split())
        assert "The answer, 2" in section


def test_each_command_and_each_public_name_has_a_heading() -> None:
    """Commands of a group and methods are one level below."""
    assert set(re.findall(r"^## `(.*)`$", commands_page(), re.MULTILINE)) == COMMANDS.keys()
    names = {name for name in noetl_broker.__all__ if not name.startswith("_")}
    assert set(re.findall(r"^## `(.*)`$", python_api_page(), re.MULTILINE)) == names


def test_the_pictures_are_those_of_the_examples() -> None:
    """Each is shown, with a text; no other is in the folder of the cookbook."""
    files = dict(pictures())
    outdated = [file.name for file, picture in files.items() if file.read_text(encoding="utf-8") != render_svg(picture)]
    assert outdated == [], "run make pictures"
    shown = re.findall(r"!\[[^\]]+\]\(([^)]*\.svg)\)", read_page("graph") + read_page("cookbook"))
    assert sorted(Path(name).name for name in shown) == sorted(file.name for file in files)
    assert {*(DOCS / "how-to" / "cookbook").iterdir()} <= files.keys()


def test_the_page_about_performance_has_the_stored_results() -> None:
    """`python -m benchmarks.performance_page` writes the table from benchmarks/results/results.json."""
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page

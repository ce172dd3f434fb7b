"""docs/architecture.md tells the tree as it is: each file and folder of the package, each module of the core."""

from __future__ import annotations

import re

import pytest

from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "noetl_broker"
UNSAID = {"__init__.py", "__pycache__", "py.typed"}


def layout(indent: str) -> set[str]:
    """The names that stand in the layout at one depth; two may share a line."""
    [block] = re.findall(r"^## Layout\n\n```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = re.findall(rf"^{indent}(\w\S*(?:  \w+\.py)?)", block, re.MULTILINE)
    return {name.rstrip("/") for line in lines for name in line.split()}


def test_the_layout_names_what_is_in_the_package() -> None:
    """And nothing that is not."""
    assert layout("  ") == {entry.name for entry in PACKAGE.iterdir()} - UNSAID


def test_the_folders_of_the_layout_are_there() -> None:
    """Those beside the package."""
    assert [name for name in sorted(layout("")) if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("place, folder", [(0, "broker"), (1, "template")])
def test_the_tables_name_each_module(place: int, folder: str) -> None:
    """Of the core and of the templates, each once."""
    tables = PAGE.split("\n| module | what |\n")[1:]
    rows = tables[place].split("\n\n")[0].splitlines()[1:]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(file.stem for file in (PACKAGE / folder).glob("*.py") if file.stem != "__init__")

"""docs/architecture.md lists each file of the package, and each module of broker/ and template/."""

from __future__ import annotations

import re

import pytest

from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "noetl_broker"
UNLISTED = {"__init__.py", "__pycache__", "py.typed"}


def layout(indent: str) -> set[str]:
    """Return the names in the layout at one indent; two may share a line."""
    [block] = re.findall(r"^## Layout\n\n```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = re.findall(rf"^{indent}(\w\S*(?:  \w+\.py)?)", block, re.MULTILINE)
    return {name.rstrip("/") for line in lines for name in line.split()}


def test_the_layout_lists_the_package() -> None:
    """And nothing else."""
    assert layout("  ") == {entry.name for entry in PACKAGE.iterdir()} - UNLISTED


def test_the_folders_of_the_layout_exist() -> None:
    """The folders beside the package."""
    assert [name for name in sorted(layout("")) if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("place, folder", [*enumerate(("broker", "history", "explain", "store", "daemon", "template"))])
def test_the_tables_list_each_module(place: int, folder: str) -> None:
    """Each once."""
    tables = PAGE.split("\n| module | what |\n")[1:]
    rows = tables[place].split("\n\n")[0].splitlines()[1:]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(file.stem for file in (PACKAGE / folder).glob("*.py") if file.stem != "__init__")

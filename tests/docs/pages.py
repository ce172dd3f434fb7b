"""Reads the pages: their text, their tables, their code blocks."""

from __future__ import annotations

import re

from tests.test_tidy import ROOT

DOCS = ROOT / "docs"
PAGES = {file.stem: file for file in sorted(DOCS.rglob("*.md"))}  # by name: no two pages have the same
README, CONTRIBUTING = ((ROOT / f"{name}.md").read_text(encoding="utf-8") for name in ("README", "CONTRIBUTING"))
BLOCK = re.compile(r"^```(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read_page(name: str) -> str:
    """Return the text of the page of this name."""
    return PAGES[name].read_text(encoding="utf-8")


def code_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language, in order."""
    return [body for form, body in BLOCK.findall(page) if form == language]


def table_rows(page: str, head: str) -> list[list[str]]:
    """Return the cells of the table whose first line starts with `head`."""
    lines = page.split(f"\n{head}", 1)[1].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def table(page: str, head: str) -> dict[str, list[str]]:
    """Return the rows of a table by their first cell, without code quotes."""
    return {first.strip("`"): rest for first, *rest in table_rows(page, head)}


def quoted(text: str) -> set[str]:
    """Return the words in code quotes."""
    return set(re.findall(r"`(\w+)`", text))

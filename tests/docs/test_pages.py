"""All pages: the index lists them, and their links and paths lead somewhere."""

from __future__ import annotations

import re

from tests.docs.pages import DOCS, PAGES, read_page
from tests.test_tidy import ROOT

NAMED = re.compile(r"`((?:benchmarks|deploy|docs|migrations|playbooks|src|tests)/[\w./-]+)`(?<!NNNN_what.sql`)")


def test_the_index_lists_every_page() -> None:
    """And nothing else."""
    named = set(re.findall(r"\]\(([\w/-]+\.md)\)", read_page("index")))
    assert named == {str(file.relative_to(DOCS)) for file in PAGES.values()} - {"index.md"}


def test_each_path_on_a_page_exists() -> None:
    """A path in code quotes that starts with a folder of the repository."""
    pages = [*PAGES.values(), *ROOT.glob("*.md")]
    named = {(file.name, path) for file in pages for path in NAMED.findall(file.read_text(encoding="utf-8"))}
    assert [(page, path) for page, path in sorted(named) if not (ROOT / path).exists()] == []


def test_each_link_leads_to_a_file_or_a_heading() -> None:
    """Links to other sites are not followed."""
    pages = {file: file.read_text(encoding="utf-8") for file in [*PAGES.values(), *ROOT.glob("*.md")]}
    broken = []
    for file, text in pages.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            name, _, anchor = link.partition("#")
            target = (file.parent / name).resolve() if name else file
            if "://" in link:
                continue
            if not target.exists() or (anchor and anchor not in _anchors(target.read_text(encoding="utf-8"))):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

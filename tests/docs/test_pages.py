"""What all pages have in common: the index, links, files that they name."""

from __future__ import annotations

import re

from tests.test_tidy import ROOT

DOCS = ROOT / "docs"
NAMED = re.compile(r"`((?:benchmarks|deploy|docs|migrations|playbooks|src|tests)/[\w./-]+)`(?<!NNNN_what.sql`)")


def test_the_index_names_every_page() -> None:
    """And no page that is not there."""
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert named == {file.name for file in DOCS.glob("*.md")} - {"README.md"}


def test_files_that_pages_name_are_there() -> None:
    """Tests, sources, migrations and what else stands in code quotes with its folder."""
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]
    named = {(file.name, path) for file in pages for path in NAMED.findall(file.read_text(encoding="utf-8"))}
    assert [(page, path) for page, path in sorted(named) if not (ROOT / path).exists()] == []


def test_links_between_pages_lead_to_files_and_headings() -> None:
    """Of all pages and the readme."""
    pages = {file: file.read_text(encoding="utf-8") for file in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]}
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

"""The links and paths of all pages lead somewhere. The site checks the pages that lie in docs/ once more."""

from __future__ import annotations

import re

from docs.generate import GENERATED, REFERENCE
from docs.generate.markdown import anchor
from tests.docs.pages import PAGES
from tests.test_tidy import ROOT

NAMED = re.compile(r"`((?:benchmarks|deploy|docs|migrations|playbooks|src|tests)/[\w./-]+)`(?<!NNNN_what.sql`)")


def test_each_path_on_a_page_exists() -> None:
    """A path in code quotes that starts with a folder of the repository."""
    pages = [*PAGES.values(), *ROOT.glob("*.md")]
    named = {(file.name, path) for file in pages for path in NAMED.findall(file.read_text(encoding="utf-8"))}
    assert [(page, path) for page, path in sorted(named) if not (ROOT / path).exists()] == []


def test_each_link_leads_to_a_file_or_a_heading() -> None:
    """Links to other sites are not followed; a generated page need not be there."""
    pages = {file: file.read_text(encoding="utf-8") for file in [*PAGES.values(), *ROOT.glob("*.md")]}
    generated = {REFERENCE / name for name in GENERATED}
    broken = []
    for file, text in pages.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            name, _, place = link.partition("#")
            target = (file.parent / name).resolve() if name else file
            if "://" in link or target in generated:
                continue
            if not target.exists() or (place and place not in _anchors(target.read_text(encoding="utf-8"))):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def _anchors(text: str) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}

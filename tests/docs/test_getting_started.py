"""docs/getting-started.md: its commands work in its order; and docs/README.md names every page."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.shell import blocks, run_script
from tests.postgres import Database

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "getting-started.md").read_text(encoding="utf-8")


def test_the_commands_work_in_their_order(database: Database, tmp_path: Path) -> None:
    """From a file to an execution that ended, with broker and worker in the background."""
    [playbook] = blocks(PAGE, "yaml")
    (tmp_path / "greet.yaml").write_text(playbook, encoding="utf-8")
    answer = run_script("".join(blocks(PAGE)), tmp_path, database)
    assert "event execution_complete" in answer.stdout
    assert '"Hello, Ada!"' in answer.stdout
    assert "COMPLETED" in answer.stdout


def test_the_index_names_every_page() -> None:
    """And no page that is not there."""
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert named == {file.name for file in DOCS.glob("*.md")} - {"README.md"}


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

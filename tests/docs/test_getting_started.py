"""docs/getting-started.md keeps its word: its commands work, in its order."""

from __future__ import annotations

from pathlib import Path

from tests.docs.shell import blocks, run_script
from tests.postgres import Database
from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")


def test_the_commands_work_in_their_order(database: Database, tmp_path: Path) -> None:
    """From a file to an execution that ended, with broker and worker in the background."""
    [playbook] = blocks(PAGE, "yaml")
    (tmp_path / "greet.yaml").write_text(playbook, encoding="utf-8")
    answer = run_script("".join(blocks(PAGE)), tmp_path, database)
    assert "event execution_complete" in answer.stdout
    assert '"Hello, Ada!"' in answer.stdout
    assert "COMPLETED" in answer.stdout

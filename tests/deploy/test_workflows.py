"""The workflows of GitHub. `make lint` checks their form, their rights and their actions."""

from __future__ import annotations

import re

from tests.test_tidy import ROOT

COMMAND = re.compile(r"\bmake ([a-z][a-z-]*)")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


def test_workflows_call_targets_that_exist() -> None:
    """Each `make` in a workflow names a target of the Makefile."""
    files = (ROOT / ".github" / "workflows").glob("*.yml")
    called = {(file.name, target) for file in files for target in COMMAND.findall(file.read_text(encoding="utf-8"))}
    targets = TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert called
    assert [(name, target) for name, target in sorted(called) if target not in targets] == []

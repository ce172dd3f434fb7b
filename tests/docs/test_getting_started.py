"""docs/getting-started.md: its commands run in order."""

from __future__ import annotations

import signal

from tests.cli.conftest import Command
from tests.docs.shell import blocks, run_script
from tests.running_dev import RunningDev, folder_for_every_account
from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")


def test_the_commands_run_in_order() -> None:
    """From an empty folder to an ended execution. The first command is `dev`, which the others need."""
    [playbook], [dev, *others] = blocks(PAGE, "yaml"), blocks(PAGE)
    assert dev == "noetl-broker dev\n"
    with folder_for_every_account() as folder:
        command = Command(folder, None)
        running = RunningDev(command)
        (folder / "greet.yaml").write_text(playbook, encoding="utf-8")
        running.read_until("greet.yaml: registered first/greet version 1")
        answer = run_script("".join(others), folder)
        assert "event execution_complete" in answer.stdout
        assert '"Hello, Ada!"' in answer.stdout
        assert "COMPLETED" in answer.stdout
        assert running.end(signal.SIGINT) == 0
        command.close()

"""`replay --against` where there is nothing to compare; what it compares is told in test_replay.py."""

from __future__ import annotations

from tests.cli.conftest import Command, write_playbook

BODY = "workflow:\n- {step: start, next: end}\n- {step: end}\n"


def test_a_path_without_executions_is_told(command: Command) -> None:
    """Else a misspelt path would pass for a change that changes nothing."""
    command("register", write_playbook(command.folder, BODY, path="story"))
    command("start", "story")
    command("run", "--drain")
    assert command("replay", "--against", write_playbook(command.folder, BODY, path="story")).stderr == ""
    missed = command("replay", "--against", write_playbook(command.folder, BODY, path="stroy"))
    assert missed.exit_code == 0
    assert missed.stderr == "no execution was compared; noetl-broker executions lists what there is\n"

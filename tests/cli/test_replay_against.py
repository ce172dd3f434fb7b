"""`replay --against` without executions to compare; test_replay.py tests the comparison."""

from __future__ import annotations

from tests.cli.conftest import Command, write_playbook

BODY = "workflow:\n- {step: start, next: end}\n- {step: end}\n"


def test_a_missing_path_suggests_a_registered_one(command: Command) -> None:
    """Otherwise a misspelt path would look like a harmless change."""
    command("register", write_playbook(command.folder, BODY, path="story"))
    command("start", "story")
    command("run", "--drain")
    assert command("replay", "--against", write_playbook(command.folder, BODY, path="story")).stderr == ""
    missed = command("replay", "--against", write_playbook(command.folder, BODY, path="stroy"))
    assert missed.exit_code == 0
    assert missed.stderr == "no execution was compared; noetl-broker executions lists what there is\n"

"""`schema`: what an editor needs to know of playbooks."""

from __future__ import annotations

import json

from noetl_broker.playbook.schema import playbook_schema
from tests.cli.conftest import Command


def test_it_is_the_schema_of_playbooks(lone_command: Command) -> None:
    """Indented for a file that is kept, on one line with `--json`."""
    plain, compact = lone_command("schema"), lone_command("schema", "--json")
    assert (plain.exit_code, compact.exit_code) == (0, 0)
    assert json.loads(plain.stdout) == json.loads(compact.stdout) == playbook_schema()
    assert compact.stdout.count("\n") == 1
    assert plain.stdout.startswith('{\n  "')


def test_the_operators_own_types_are_offered(lone_command: Command) -> None:
    """By the setting, from wherever it comes."""
    config = lone_command.folder / "broker.yaml"
    config.write_text("extra_step_types: [dbt]\n", encoding="utf-8")
    schema = json.loads(lone_command("schema", "--config", config).stdout)
    assert schema == playbook_schema(frozenset({"dbt"}))

"""`schema`: the JSON schema of playbooks for editors."""

from __future__ import annotations

import json

from noetl_broker.playbook.json_schema import playbook_schema
from tests.cli.conftest import Command


def test_schema_prints_the_json_schema(lone_command: Command) -> None:
    """Indented by default, on one line with `--json`."""
    plain, compact = lone_command("schema"), lone_command("schema", "--json")
    assert (plain.exit_code, compact.exit_code) == (0, 0)
    assert json.loads(plain.stdout) == json.loads(compact.stdout) == playbook_schema()
    assert compact.stdout.count("\n") == 1
    assert plain.stdout.startswith('{\n  "')


def test_schema_includes_extra_step_types(lone_command: Command) -> None:
    """From any source of the setting."""
    config = lone_command.folder / "broker.yaml"
    config.write_text("extra_step_types: [dbt]\n", encoding="utf-8")
    schema = json.loads(lone_command("schema", "--config", config).stdout)
    assert schema == playbook_schema(frozenset({"dbt"}))

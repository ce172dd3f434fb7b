"""The command `schema`: the JSON Schema of playbooks, for editors."""

from __future__ import annotations

import json

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.playbook.json_schema import playbook_schema


@command("schema", example="noetl-broker schema > noetl-playbook.schema.json")
def schema(call: Call) -> None:
    """Print the JSON Schema of playbooks, for editors.

    Needs no database. The types of the setting extra_step_types are offered beside the built-in ones. With --json it
    stands on one line in a pipe.
    """
    made = playbook_schema(call.settings.extra_step_types)
    if not call.printed(made):
        output.show_text(json.dumps(made, ensure_ascii=False, indent=2))

"""The command `config`."""

from __future__ import annotations

import os

from noetl_broker.cli.command import Call, command
from noetl_broker.compiled_form import installed_form
from noetl_broker.settings import HIDDEN, explain_settings, file_values


@command(
    "config",
    example=("noetl-broker config\nnoetl-broker config --config broker.toml --json"),
)
def config(call: Call) -> None:
    """Show the settings and where each comes from.

    A setting comes from the command line, the environment, the file of --config, or the default. Secrets are hidden.
    The last row is no setting: the form of the program, compiled or plain.
    """
    rows = explain_settings(call.settings, file_values(call.config), dict(os.environ))
    for row in rows:
        if row["name"] == "dsn" and call.given_dsns:
            row.update(value=HIDDEN, source="command line --dsn")
        elif row["name"] == "schema" and call.given_schemas:
            row.update(value=call.database.schema, source="command line --schema")
        elif row["source"] == "file":
            row["source"] = f"file {call.config}"
    description = "The form of the program: compiled (faster) or plain Python. An installation has one form."
    rows.append({"name": "form", "value": installed_form(), "source": "installation", "description": description})
    call.show_rows(rows, {name: name for name in ("name", "value", "source", "description")})

"""The command `config`: every setting with its value and where that comes from."""

from __future__ import annotations

import os

from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.settings import HIDDEN, explain_settings, file_values


@command(
    "config",
    example=("noetl-broker config\nnoetl-broker config --config broker.toml --json"),
)
def config(call: Call) -> None:
    """Show the settings and where each comes from.

    From the command line, the environment, the file of --config, or the default. Secrets are hidden.
    """
    rows = explain_settings(call.settings, file_values(call.config), dict(os.environ))
    for row in rows:
        if row["name"] == "dsn" and call.given_dsns:
            row.update(value=HIDDEN, source="command line --dsn")
        elif row["source"] == "file":
            row["source"] = f"file {call.config}"
    if call.as_json:
        output.show_json(rows)
        return
    columns = ("name", "value", "source", "description")
    output.show_table(columns, [[row[column] for column in columns] for row in rows])

"""The command `workers`: the workers that run."""

from __future__ import annotations

from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import ask


@command("workers", example="noetl-broker workers\nnoetl-broker workers --json")
def workers(call: Call) -> None:
    """List the workers that run: pools, types, slots and leases.

    These are the workers that announced themselves within a minute, and those that hold leases.
    """
    found = ask(call, "health.list_workers")["items"]
    if call.printed(found):
        return
    shown = [
        row | {"pools": ",".join(row["pools"]), "types": "all" if row["types"] is None else ",".join(row["types"])}
        for row in found
    ]
    columns = ("worker_id", "version", "pools", "types", "slots", "leases", "since", "seen")
    call.show_rows(shown, {name.removesuffix("_id"): name for name in columns}, none="no worker runs")

"""The commands `limit list`, `put` and `delete`: throttles of jobs, shared by name."""

from __future__ import annotations

from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.face import Face, ask, command_of, face
from noetl_broker.commands import ActionEntry
from noetl_broker.errors import NotFoundFault
from noetl_broker.service.models.slots import MOST_KEYS, ThrottleRequest
from noetl_broker.text import numbers_text

COUNTS = {name: name for name in ("leased", "ready", "held")}  # jobs by what they do


@click.group("limit", epilog="\b\nExamples:\n  noetl-broker limit list\n  noetl-broker limit put --help")
def limit() -> None:
    """Limit jobs: how many of a key run at a time, how many begin in a second.

    A step names its throttle under `throttle`. `register` makes a throttle that is not there with the numbers of the
    playbook, and never changes one. Each of these commands takes --dsn, --schema, --json, --config and --debug.
    """


@command("list", example="noetl-broker limit list\nnoetl-broker limit list stripe")
@click.argument("name", required=False)
def list_throttles(call: Call, *, name: str | None) -> None:
    """List throttles with the jobs that they count, or the keys of one throttle.

    Jobs are leased, ready for a worker, or held until there is a slot. Keys with most held jobs come first.
    """
    rows = ask(call, "throttles.list_throttles")["items"]
    if name is None:
        columns: output.Columns = {"throttle": "name", "allows": numbers_text, "keys": "keys", **COUNTS}
        call.show_rows(rows, columns, none="no throttles: a step gets one by `throttle`")
        return
    if not any(row["name"] == name for row in rows):
        raise NotFoundFault(f"there is no limit {name}; noetl-broker limit list names them")
    rows = ask(call, "throttles.list_keys", name=name, limit=MOST_KEYS)["items"]
    call.show_rows(rows, {"key": "key", **COUNTS}, none=f"throttle {name} counts no job now")


@face(
    "put",
    "throttles.put_throttle",
    Face(
        ThrottleRequest,
        ("name",),
        helps={
            "concurrency": "Jobs of a key that run at a time.",
            "rate": "Jobs of a key that begin: 10/s, 100/m, 5000/h.",
            "burst": "Jobs of a key that may begin at once; default: those of 100 ms, at least 1.",
        },
    ),
    example="noetl-broker limit put stripe --concurrency 5 --rate 10/s\nnoetl-broker limit put mail --rate 100/m",
)
def put(_call: Call, asked: ThrottleRequest, answer: Any) -> None:
    """Make a throttle, or change its numbers.

    A number that is not given is no limit. Fewer slots stop no job: jobs that run or are ready go on.
    """
    told = " (new; no job has counted for it yet)" if answer["unused"] else " (new)" if answer["new"] else ""
    output.say(f"{asked.name}: {numbers_text(answer)}{told}")


DELETE = ActionEntry(
    "Delete a throttle: its held jobs run. Exit 1 if there is none.", "throttles.delete_throttle", "slots.OneThrottle",
    ("name",), "{name}: deleted", example="noetl-broker limit delete stripe",
    details="The next job of a step whose `throttle` names it makes it again, with the numbers of the playbook.",
)  # fmt: skip


for each in (list_throttles, put, command_of("delete", DELETE)):
    limit.add_command(each)

"""The commands `limit list`, `put` and `delete`: throttles of jobs, shared by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.errors import EXIT_FAILED, NotFoundFault
from noetl_broker.playbook.throttle import RATE_FORMS, parse_rate
from noetl_broker.store.admin import throttles as store
from noetl_broker.store.admin.throttles import shown
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.session import session

MOST_KEYS = 1000
COUNTS = ("leased", "ready", "held")  # jobs by what they do


class Rate(click.ParamType[float]):
    """A rate as in playbooks: 10/s, 100/m, 5000/h."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        try:
            return parse_rate(value)
        except ValueError:
            self.fail(f"{value!r} is not a rate; write {RATE_FORMS}", param, ctx)


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

    async def ask(connection: Connection) -> list[dict[str, Any]]:
        rows = await store.list_throttles(connection)
        if name is None:
            return rows
        if not any(row["name"] == name for row in rows):
            raise NotFoundFault(f"there is no limit {name}; noetl-broker limit list names them")
        return await store.list_keys(connection, name, most=MOST_KEYS)

    rows = _with_session(call, ask)
    if call.as_json:
        output.show_json(rows)
    elif not rows:
        output.say(
            "no throttles: a step gets one by `throttle`" if name is None else f"throttle {name} counts no job now"
        )
    elif name is None:
        output.show_table(("throttle", "allows", "keys", *COUNTS), [
            (row["name"], shown(row), row["keys"], *(row[count] for count in COUNTS)) for row in rows
        ])  # fmt: skip
    else:
        output.show_table(("key", *COUNTS), [(row["key"], *(row[count] for count in COUNTS)) for row in rows])


@command(
    "put",
    example="noetl-broker limit put stripe --concurrency 5 --rate 10/s\nnoetl-broker limit put mail --rate 100/m",
)
@click.argument("name")
@click.option("--concurrency", type=click.IntRange(min=1), help="Jobs of a key that run at a time.")
@click.option("--rate", type=Rate(), metavar="RATE", help="Jobs of a key that begin: 10/s, 100/m, 5000/h.")
@click.option(
    "--burst",
    type=click.IntRange(min=1),
    help="Jobs of a key that may begin at once; default: those of 100 ms, at least 1.",
)
def put(call: Call, *, name: str, concurrency: int | None, rate: float | None, burst: int | None) -> None:
    """Make a throttle, or change its numbers.

    A number that is not given is no limit. Fewer slots stop no job: jobs that run or are ready go on.
    """

    async def make(connection: Connection) -> tuple[bool, bool]:
        is_new = await store.put_throttle(connection, name, concurrency=concurrency, rate=rate, burst=burst)
        return is_new, is_new and not await store.list_keys(connection, name, most=1)

    is_new, is_unused = _with_session(call, make)
    numbers = {"concurrency": concurrency, "rate": rate, "burst": burst}
    if call.as_json:
        output.show_json({"name": name, "new": is_new, **numbers})
    else:
        told = " (new; no job has counted for it yet)" if is_unused else " (new)" if is_new else ""
        output.say(f"{name}: {shown(numbers)}{told}")


@command("delete", example="noetl-broker limit delete stripe")
@click.argument("name")
def delete(call: Call, *, name: str) -> int:
    """Delete a throttle: its held jobs run. Exit 1 if there is none.

    The next job of a step whose `throttle` names it makes it again, with the numbers of the playbook.
    """
    found = _with_session(call, lambda connection: store.delete_throttle(connection, name))
    if call.as_json:
        output.show_json({"name": name, "deleted": found})
    else:
        output.say(f"{name}: deleted" if found else f"there is no limit {name}")
    return 0 if found else EXIT_FAILED


def _with_session(call: Call, ask: Callable[[Connection], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with session(call.database, name="limit") as connection:
            return await ask(connection)

    return asyncio.run(run())


for each in (list_throttles, put, delete):
    limit.add_command(each)

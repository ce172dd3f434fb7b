"""The commands `dead-letters`, `reevaluate` and `retry`: what went wrong comes back, one by one or many at once."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.many import MOST, Manner, one_or_many, treat, wished
from noetl_broker.errors import BrokerError
from noetl_broker.store import executions, recovery
from noetl_broker.store.pool import Connection
from noetl_broker.store.recovery import Wish
from noetl_broker.store.session import session


@command("dead-letters", example="noetl-broker dead-letters --path 'examples/*' --since 2h")
@wished()
@click.option("--limit", type=click.IntRange(1, MOST), default=100, show_default=True, help="How many at most.")
def dead_letters(call: Call, *, wish: Wish, limit: int) -> None:
    """List mail that the broker has set aside, the oldest first.

    Deciding on it failed by a fault of the program, or a value that the database refuses. When that is mended,
    `reevaluate` gives it back to the broker.
    """

    async def ask() -> list[dict[str, Any]]:
        async with session(call.dsn, name="dead-letters") as connection:
            return await recovery.search_dead_letters(connection, wish, limit=limit)

    found = asyncio.run(ask())
    if call.as_json:
        output.show_json(found)
        return
    columns = ("set aside", "execution", "path", "event", "of", "reason")
    fields = ("created_at", "execution_id", "path", "event_type", "step", "reason")
    output.show_table(columns, [[letter[field] for field in fields] for letter in found])


@command(
    "reevaluate",
    example=("noetl-broker reevaluate 58123456789012345\nnoetl-broker reevaluate --reason 'audit table' --yes"),
)
@wished()
@one_or_many
def reevaluate(call: Call, *, execution_id: int | None, wish: Wish, manner: Manner) -> int:
    """Give an execution's mail back to the broker, which decides again.

    That is what was set aside, and events that somebody has taken out of the inbox. Harmless where there is none, and
    when it is repeated. With filters instead of an ID: all executions with mail that was set aside.
    """

    async def ask() -> int:
        async with session(call.dsn, name="reevaluate") as connection:

            async def one(chosen: int) -> dict[str, Any]:
                return {"put_back": await recovery.put_back(connection, chosen)}

            if execution_id is None:
                letters = await recovery.search_dead_letters(connection, wish, limit=MOST)
                found = list({letter["execution_id"]: letter for letter in reversed(letters)}.values())[::-1]
                return await treat(call, found, one, manner, what="mail is put back")
            _tell_put_back(call, execution_id, (await one(execution_id))["put_back"])
            return 0

    return asyncio.run(ask())


@command(
    "retry",
    example=(
        "noetl-broker retry 58123456789012345\n"
        "noetl-broker retry --failed-step load --since 2h          # counts them\n"
        "noetl-broker retry --failed-step load --since 2h --yes    # does it"
    ),
)
@wished(failed_step=True)
@one_or_many
@click.option("--limit", type=click.IntRange(1, MOST), default=MOST, help="How many at most.")
def retry(call: Call, *, execution_id: int | None, wish: Wish, manner: Manner, limit: int) -> int:
    """Bring back a failed execution, or what was set aside of one.

    A failed execution is over and stays so: a new one takes over its results, its workload and its version, and goes on
    from the failed step and from whatever lived beside it. Asked again, it is the same new one. Mail that was set aside
    of a running execution is given back to the broker. With filters instead of an ID: all failed executions that nobody
    has brought back yet, children left to their parents.
    """

    async def ask() -> int:
        async with session(call.dsn, name="retry") as connection:

            async def one(chosen: int) -> dict[str, Any]:
                return await _bring_back(call, connection, chosen)

            if execution_id is None:
                found = await recovery.search_failed(connection, wish, limit=limit)
                found = [{**entry, "step": entry["failed_step"]} for entry in found]
                return await treat(call, found, one, manner, what="failed executions come back")
            await _retry_one(call, connection, execution_id)
            return 0

    return asyncio.run(ask())


async def _retry_one(call: Call, connection: Connection, execution_id: int) -> None:
    row = await executions.find_execution(connection, execution_id)
    if row["status"] != "FAILED":
        letters = await recovery.count_dead_letters(connection, execution_id)
        if not letters:
            raise BrokerError(_nothing_to_retry(execution_id, row["status"]))
        _tell_put_back(call, execution_id, await recovery.put_back(connection, execution_id))
        return
    before = await recovery.find_brought_back(connection, execution_id)
    told = await _bring_back(call, connection, execution_id)
    if call.as_json:
        output.show_json({"execution_id": execution_id, **told})
        return
    new = told["brought_back_as"]
    if before is not None:
        further = f"; noetl-broker retry {new} brings that one back" if before["status"] == "FAILED" else ""
        output.say(f"execution {execution_id} was brought back as {new}, which is {before['status']}{further}")
    else:
        output.say(f"execution {new} goes on from {', '.join(told['steps'])}; it brings back {execution_id}")
    parent = row["parent_execution_id"]
    if parent is not None:
        output.note(f"its parent {parent} has been told of the failure, and does not wait for the new one")


async def _bring_back(call: Call, connection: Connection, execution_id: int) -> dict[str, Any]:
    new, plan = await recovery.bring_back(connection, execution_id, call.playbook_rules)
    return {"brought_back_as": new, "steps": list(plan.steps), "taken": [wanted.step for wanted in plan.taken]}


def _nothing_to_retry(execution_id: int, status: str) -> str:
    if status == executions.OPEN:
        return (
            f"execution {execution_id} is running, and nothing of it was set aside;"
            f" noetl-broker explain {execution_id} says what it waits for"
        )
    return (
        f"execution {execution_id} has not failed, it is {status};"
        f" noetl-broker fork {execution_id} --from STEP goes on from any step of it"
    )


def _tell_put_back(call: Call, execution_id: int, count: int) -> None:
    if call.as_json:
        output.show_json({"execution_id": execution_id, "put_back": count})
    elif count:
        output.say(f"execution {execution_id}: {count} {'event is' if count == 1 else 'events are'} put back")
    else:
        output.say(f"execution {execution_id} has no mail that was set aside or lost")

"""The commands `dead-letters`, `reevaluate` and `retry`, for one execution or many."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.arguments import LATEST, VersionOrLatest
from noetl_broker.cli.bulk import MOST, BulkOptions, GroupPreview, act_on_each, bulk_options, make_groups_with
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.selection import Selection, filters, selection
from noetl_broker.errors import OperatorFault
from noetl_broker.service.bulk import Treatment, find_executions, find_left_out
from noetl_broker.service.recoveries import (
    ABANDONED,
    UNDONE,
    OnVersion,
    Recovered,
    newer_version,
    recover,
    recover_failed,
)
from noetl_broker.store.admin import recovery
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.connect.session import session


@command("dead-letters", example="noetl-broker dead-letters --path 'examples/*' --since 2h")
@filters
@click.option("--limit", type=click.IntRange(1, MOST), default=100, show_default=True, help="How many at most.")
def dead_letters(call: Call, *, which: Filter, limit: int) -> None:
    """List dead letters: events on which deciding failed, oldest first.

    The cause is a bug of the program, or a value that the database refuses. When it is mended, `reevaluate` gives the
    events back to the broker. --error and --since compare with the dead letter.
    """

    async def ask() -> list[dict[str, Any]]:
        async with session(call.database, name="dead-letters") as connection:
            return await recovery.search_dead_letters(connection, which, limit=limit)

    found = asyncio.run(ask())
    if call.as_json:
        output.show_json(found)
        return
    columns = ("set aside", "execution", "path", "event", "of", "reason")
    fields = ("created_at", "execution_id", "path", "event_type", "step", "reason")
    output.show_table(columns, [[letter[field] for field in fields] for letter in found])


@command(
    "reevaluate",
    example=("noetl-broker reevaluate 58123456789012345\nnoetl-broker reevaluate --error 'audit table' --yes"),
)
@selection()
@bulk_options
def reevaluate(call: Call, *, chosen: Selection, bulk: BulkOptions) -> int:
    """Give dead letters and lost mail back to the broker.

    Lost mail: events without a turn that are not in the inbox. Repeating the command is harmless. With filters instead
    of an ID: all executions with dead letters; --error and --since compare with the dead letter.
    """

    async def ask() -> int:
        async with session(call.database, name="reevaluate") as connection:

            async def put_back(execution_id: int) -> dict[str, Any]:
                return {"put_back": await recovery.put_back(connection, execution_id)}

            if chosen.ids:
                [one] = chosen.ids
                _show_put_back(call, one, (await put_back(one))["put_back"])
                return 0
            found = await find_executions(connection, "reevaluate", chosen.which, limit=bulk.limit)
            return await act_on_each(
                call,
                found,
                put_back,
                bulk,
                what="dead letters are put back",
                none="no dead letters are left to put back",
            )

    return asyncio.run(ask())


@command(
    "retry",
    example=(
        "noetl-broker retry 58123456789012345\n"
        "noetl-broker retry --step load --since 2h          # counts them\n"
        "noetl-broker retry --step load --since 2h --yes    # does it\n"
        "noetl-broker retry --step load --version latest    # after a fix: says which can go on"
    ),
)
@selection(version=False)
@bulk_options
@click.option("--version", type=VersionOrLatest(), metavar="N|latest", help="Continue on this version of the playbook.")
@click.option(
    "--or-from-start",
    is_flag=True,
    help="With --version: start an execution anew if that version goes another way.",
)
def retry(call: Call, *, chosen: Selection, bulk: BulkOptions, version: int | None, or_from_start: bool) -> int:
    """Retry failed executions, each as a new execution from its failed step.

    A failed execution stays failed. A new one with its results, workload and version continues from the failed step and
    all other open steps. Each retry gives the same new execution. Dead letters of a running execution are given back to
    the broker. With --version, it continues on that version if that decides the same up to the failure; otherwise
    nothing is started, and it says where they differ. With filters instead of an ID: all failed executions that were
    not recovered before and have no parent.
    """
    if or_from_start and version is None:
        raise OperatorFault("--or-from-start is for --version: without it, the way is the same")

    async def ask() -> int:
        async with session(call.database, name="retry") as connection:
            rules, on = call.playbook_rules, None
            if version is not None:
                on = OnVersion(None if version == LATEST else version, rules, or_from_start=or_from_start)

            async def retry_execution(execution_id: int) -> dict[str, Any]:
                return await recover_failed(connection, execution_id, rules, on)

            if chosen.ids:
                recovered = await recover(connection, chosen.ids[0], rules, on)
                newer = None if on is not None else await newer_version(connection, recovered.of)
                _show_recovered(call, recovered, newer)
                return 0
            found = await find_executions(connection, "retry", chosen.which, limit=bulk.limit)
            left_out = await find_left_out(connection, "retry", chosen.which, limit=MOST) or []
            groups = make_groups_with(connection, Treatment("retry", rules, on=on), found)
            remedy = None if version is None or or_from_start else _other_ways(version)
            return await act_on_each(
                call, found, retry_execution, bulk,
                what="failed executions are retried", none="no failed execution is left to retry",
                preview=GroupPreview(groups, len(left_out), remedy),
            )  # fmt: skip

    return asyncio.run(ask())


def _other_ways(version: int) -> str:
    named = "latest" if version == LATEST else version
    return (
        "--or-from-start starts those anew that go another way;"
        f" fork --from STEP --version {named} starts from a step that you choose"
    )


def _show_recovered(call: Call, recovered: Recovered, newer: int | None) -> None:
    execution_id = recovered.of["execution_id"]
    if recovered.put_back is not None:
        _show_put_back(call, execution_id, recovered.put_back)
        return
    if call.as_json:
        output.show_json(recovered.as_document())
        return
    new, before = recovered.made["recovered_as"], recovered.before
    if before is not None:
        again = call.with_schema(f"noetl-broker retry {new}")
        further = f"; {again} retries that one" if before["status"] == "FAILED" else ""
        output.say(f"execution {execution_id} was retried as {new}, which is {before['status']}{further}")
    else:
        steps, version = ", ".join(recovered.made["steps"]), recovered.made.get("version")
        where = f"{steps} on version {version}" if version is not None else steps
        output.say(f"execution {new} continues from {where}; it retries {execution_id}")
        if "anew" in recovered.made:
            way = recovered.made["anew"]
            why = way if way in {ABANDONED, UNDONE} else f"it would have gone another way: {way}"
            output.note(f"it starts anew, because {why}")
        if newer is not None:
            output.note(
                f"it has version {recovered.of['version']}; {newer} is registered: --version latest continues on it"
            )
    parent = recovered.of["parent_execution_id"]
    if parent is not None:
        output.note(f"its parent {parent} has received the failure and does not wait for the new execution")


def _show_put_back(call: Call, execution_id: int, count: int) -> None:
    if call.as_json:
        output.show_json({"execution_id": execution_id, "put_back": count})
    elif count:
        output.say(f"execution {execution_id}: {count} {'event is' if count == 1 else 'events are'} put back")
    else:
        output.say(f"execution {execution_id} has no dead letters and no lost mail")

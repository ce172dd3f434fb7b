"""The command `replay`: retake recorded turns through the same core, and name what differs from what was written."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from noetl_broker.cli.frame import LARGEST_ID, Call, command
from noetl_broker.cli.pasting import show_stories
from noetl_broker.cli.retelling import Retold
from noetl_broker.cli.until import show_until
from noetl_broker.cli.walking import Chosen, moment_of, walk
from noetl_broker.errors import OperatorFault
from noetl_broker.store.histories import Filter

STATUSES = ("RUNNING", "COMPLETED", "FAILED", "CANCELLED")


@command("replay", example="noetl-broker replay --all --path 'examples/*' --since 24h")
@click.argument("execution_ids", metavar="[ID]…", nargs=-1, type=click.IntRange(1, LARGEST_ID))
@click.option("--all", "everything", is_flag=True, help="Every execution that the broker has read.")
@click.option("--path", metavar="PATH", help="All of this playbook; * stands for any characters.")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="All that stand so.")
@click.option("--until", metavar="EVENT", help="Show where the execution stood at this event's id, or turn:4.")
@click.option("--story", is_flag=True, help="Print it as a test that can be pasted: its playbook and its story.")
@click.option("--since", metavar="WHEN", help="All started since: 2026-01-31, 2026-01-31T08:00Z, or 24h, 7d ago.")
def replay(
    call: Call, *, execution_ids: tuple[int, ...], everything: bool, until: str | None, story: bool, **filters: Any
) -> int:
    """Retake the recorded turns of executions and compare.

    Takes every turn again, from its event alone, through the same rules, and holds what they decide against
    what was written: events, jobs, tracking rows, the end. Of executions by ID it prints the story, up to the first
    difference; of many only the differences and the sum. Exit 1 where anything differs.
    """
    chosen = _choose(execution_ids, everything=everything, **filters)
    if until is not None:
        if len(execution_ids) != 1:
            raise OperatorFault("--until takes the id of one execution")
        return asyncio.run(show_until(call, execution_ids[0], until))
    if story:
        if not execution_ids:
            raise OperatorFault("--story takes the ids of executions")
        return asyncio.run(show_stories(call, execution_ids))

    async def ask() -> int:
        retold = Retold(as_json=call.as_json, stories=bool(execution_ids))
        async for part in walk(call, chosen):
            retold.take(part)
        return retold.close(alone=len(execution_ids) == 1)

    return asyncio.run(ask())


def _choose(
    execution_ids: tuple[int, ...], *, everything: bool, path: str | None, status: str | None, since: str | None
) -> Chosen:
    which = Filter(path=path, status=status, since=None if since is None else moment_of(since))
    if bool(execution_ids) == (everything or which != Filter()):
        raise OperatorFault("replay takes the ids of executions, or --all, or a filter (--path, --status, --since)")
    return Chosen(ids=execution_ids, which=which)

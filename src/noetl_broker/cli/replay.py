"""The command `replay`: retake recorded turns through the same core, and name what differs from what was written."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from noetl_broker.cli.against import compare
from noetl_broker.cli.arguments import ExecutionId
from noetl_broker.cli.frame import Call, command
from noetl_broker.cli.pasting import show_stories
from noetl_broker.cli.retelling import Retold
from noetl_broker.cli.until import show_until
from noetl_broker.cli.walking import Chosen, moment_of, walk
from noetl_broker.errors import OperatorFault
from noetl_broker.store.histories import ALL, Filter

STATUSES = ("RUNNING", "COMPLETED", "FAILED", "CANCELLED")


@command(
    "replay",
    example=(
        "noetl-broker replay 58123456789012345\n"
        "noetl-broker replay --all --path 'examples/*' --since 24h\n"
        "noetl-broker replay 58123456789012345 --until turn:4\n"
        "noetl-broker replay --against playbooks/diamond.yaml"
    ),
)
@click.argument("execution_ids", metavar="[ID]...", nargs=-1, type=ExecutionId())
@click.option("--all", "everything", is_flag=True, help="Every execution that the broker has read.")
@click.option("--path", metavar="PATH", help="All of this playbook; * stands for any characters.")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="All that stand so.")
@click.option("--since", metavar="WHEN", help="All started since: 2026-01-31, 2026-01-31T08:00Z, or 24h, 7d ago.")
@click.option("--until", metavar="EVENT", help="Show where the execution stood at this event's id, or at turn:4.")
@click.option("--story", is_flag=True, help="Print it as a test that can be pasted: its playbook and its story.")
@click.option(
    "--against",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take the histories against this edited playbook; without IDs or a filter, all of its path.",
)
@click.option("--ways-only", is_flag=True, help="With --against: a step whose job is told otherwise is no parting.")
def replay(call: Call, **asked: Any) -> int:
    """Retake the recorded turns of executions and compare.

    Takes every turn again, from its event alone, through the same rules, and holds what they decide against
    what was written: events, jobs, tracking rows, the end. Of executions by ID it prints the story, up to the first
    difference; of many only the differences and the sum. Exit 1 where anything differs.

    With --against, each history is taken through an edited playbook as far as it goes the same way, and a table says
    which would have gone another way, at which step, because of which condition.
    """
    return asyncio.run(_answer(call, **asked))


def _answer(
    call: Call,
    *,
    execution_ids: tuple[int, ...],
    everything: bool,
    until: str | None,
    story: bool,
    against: Path | None,
    ways_only: bool,
    **filters: str | None,
) -> Coroutine[Any, Any, int]:
    """Which of its answers the call asks for; raises OperatorFault where it asks for none, or for two at once."""
    chosen = _choose(execution_ids, everything=everything, needed=against is None, **filters)
    if (until is not None) + story + (against is not None) > 1:
        raise OperatorFault("--until, --story and --against are answers to different questions: ask one at a time")
    if ways_only and against is None:
        raise OperatorFault("--ways-only belongs to --against FILE")
    if until is not None:
        if len(execution_ids) != 1:
            raise OperatorFault("--until takes the ID of one execution")
        return show_until(call, execution_ids[0], until)
    if story:
        if not execution_ids:
            raise OperatorFault("--story takes the IDs of executions")
        return show_stories(call, execution_ids)
    if against is not None:
        return compare(call, chosen, against, ways_only=ways_only)
    return _retell(call, chosen)


async def _retell(call: Call, chosen: Chosen) -> int:
    retold = Retold(as_json=call.as_json, stories=bool(chosen.ids))
    async for part in walk(call, chosen):
        retold.take(part)
    return retold.close(alone=len(chosen.ids) == 1)


def _choose(
    execution_ids: tuple[int, ...],
    *,
    everything: bool,
    needed: bool,
    path: str | None,
    status: str | None,
    since: str | None,
) -> Chosen:
    which = Filter(path=path, status=status, since=None if since is None else moment_of(since))
    by_filter = everything or which != ALL
    if (execution_ids and by_filter) or (needed and not execution_ids and not by_filter):
        raise OperatorFault("replay takes the IDs of executions, or --all, or a filter (--path, --status, --since)")
    return Chosen(ids=execution_ids, which=which)

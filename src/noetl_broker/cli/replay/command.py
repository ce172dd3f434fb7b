"""The command `replay`: decide recorded turns again and compare with what was written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from noetl_broker.cli.command import Call, command
from noetl_broker.cli.replay.compare import compare
from noetl_broker.cli.replay.histories import count_erased, read_histories
from noetl_broker.cli.replay.snapshot import show_until
from noetl_broker.cli.replay.stories import show_stories
from noetl_broker.cli.replay.summary import Summary
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.errors import OperatorFault


@command(
    "replay",
    example=(
        "noetl-broker replay 58123456789012345\n"
        "noetl-broker replay --all --path 'examples/*' --since 24h\n"
        "noetl-broker replay 58123456789012345 --until turn:4\n"
        "noetl-broker replay --against playbooks/diamond.yaml"
    ),
)
@selection(several=True, required=False, until=False)
@click.option("--until", metavar="EVENT", help="Show the state after the turn of this event: its id, or turn:4.")
@click.option("--story", is_flag=True, help="Print it as a test to paste, with its playbook and its story.")
@click.option(
    "--against",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Compare with this edited playbook; without IDs and --path, all executions of its path.",
)
@click.option("--ways-only", is_flag=True, help="With --against: other inputs of a job are not a difference.")
def replay(
    call: Call, *, chosen: Selection, until: str | None, story: bool, against: Path | None, ways_only: bool
) -> int:
    """Replay every decision of executions and report differences.

    Decides each recorded turn again, from its event alone. Compares the events, jobs, tracking rows and the end with
    what was written. For IDs it prints each story up to the first difference. For a filter it prints only differences
    and totals. Exit 1 if anything differs.

    With --against, it replays each history on an edited playbook until a decision differs. A table shows at which step,
    and because of which condition.
    """
    if against is None:
        chosen.require()
    if (until is not None) + story + (against is not None) > 1:
        raise OperatorFault("--until, --story and --against exclude each other: give one of them")
    if ways_only and against is None:
        raise OperatorFault("--ways-only belongs to --against FILE")
    if until is not None:
        if len(chosen.ids) != 1:
            raise OperatorFault("--until takes the ID of one execution")
        return asyncio.run(show_until(call, chosen.ids[0], until))
    if story:
        if not chosen.ids:
            raise OperatorFault("--story takes the IDs of executions")
        return asyncio.run(show_stories(call, chosen))
    if against is not None:
        return asyncio.run(compare(call, chosen, against, ways_only=ways_only))
    return asyncio.run(_replay(call, chosen))


async def _replay(call: Call, chosen: Selection) -> int:
    summary = Summary(call, stories=bool(chosen.ids))
    async for part in read_histories(call, chosen):
        summary.take(part)
    erased = 0 if chosen.ids else await count_erased(call, chosen)
    return summary.close(alone=len(chosen.ids) == 1, erased=erased)

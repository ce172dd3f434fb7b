"""Prints `replay --story`: recorded executions as tests to paste."""

from __future__ import annotations

from contextlib import aclosing

from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.event import Event
from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.cli.replay.histories import read_histories
from noetl_broker.cli.selection import Selection
from noetl_broker.errors import EXIT_FAILED
from noetl_broker.history.pasted_test import pasted_test
from noetl_broker.history.replay import Replay


async def show_stories(call: Call, chosen: Selection) -> int:
    """Print one test for each execution; gives exit code 1 if a story diverges from its execution."""
    pasted = []
    replay: Replay | None = None
    taken: list[tuple[Event, Decision]] = []
    async with aclosing(read_histories(call, chosen)) as parts:
        async for part in parts:
            if part.first or replay is None:
                replay, taken = Replay(part.history, in_parts=True), []
            taken += [(recorded.event, replay.apply(recorded).decision) for recorded in part.readable_turns()]
            if not part.last:
                continue
            found = pasted_test(part.history, taken, call.playbook_rules)
            pasted.append(found)
            if not call.as_json:
                output.show_text(found["test"])
            if not call.as_json and found["parts_at"]:
                output.note(
                    f"this story diverges from execution {found['execution_id']} at turn {found['parts_at']}: "
                    "a template reads the execution's id or the time, which differ in a test"
                )
    call.printed(pasted)
    return EXIT_FAILED if any(one["parts_at"] for one in pasted) else 0

"""What was written and what is decided now, side by side as the lines of a diff."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import unified_diff
from typing import Any

from noetl_broker.broker.history import RecordedTurn
from noetl_broker.broker.replay import Difference
from noetl_broker.cli import output

CONTEXT_LINES = 2
MOST_LINES = 60
COLOURS = {"-": "red", "+": "green"}


def heading(difference: Difference, recorded: RecordedTurn | None) -> str:
    """Where the difference is: the turn with the event that it read, and what of it differs."""
    if difference.turn is None:
        return difference.what
    if recorded is None or recorded.turn.number != difference.turn:
        return f"turn {difference.turn}: {difference.what}"
    event = recorded.event
    of_step = f" {event.step}" if event.step else ""
    return f"turn {difference.turn}, {event.type}{of_step} (event {recorded.event_id}): {difference.what}"


def show_difference(difference: Difference, recorded: RecordedTurn | None) -> None:
    """Print it: red what was written, green what is decided, on a terminal."""
    output.say(f"  {heading(difference, recorded)}")
    lines = [*diff(difference.written, difference.decided)]
    for line in lines[:MOST_LINES]:
        output.say(output.Styled(f"    {line}", COLOURS.get(line[:1])))
    if len(lines) > MOST_LINES:
        output.say(f"    … and {len(lines) - MOST_LINES} more lines; --json has them all")


def diff(written: Any, decided: Any) -> Iterator[str]:
    """The lines of a unified diff of two values as JSON; nothing where both are none."""
    before, after = _lines(written), _lines(decided)
    found = unified_diff(before, after, "written", "decided", n=CONTEXT_LINES, lineterm="")
    return (line for line in found if not line.startswith("@@"))


def as_json(difference: Difference, recorded: RecordedTurn | None) -> dict[str, Any]:
    """The difference as an object for programs."""
    event = recorded.event if recorded is not None and difference.turn is not None else None
    return {
        "turn": difference.turn,
        "event_id": recorded.event_id if recorded is not None and event is not None else None,
        "event_type": event.type if event is not None else None,
        "step": event.step if event is not None else None,
        "what": difference.what,
        "written": difference.written,
        "decided": difference.decided,
    }


def _lines(value: Any) -> list[str]:
    if value is None:
        return []
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, default=str).splitlines()

"""docs/events.md lists exactly the event types of the core, with their aliases."""

from __future__ import annotations

import re
from pathlib import Path

from noetl_broker.broker.dispatcher import REACTIONS
from noetl_broker.broker.event_types import EVENT_TYPES, RECORDED

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, set[str]]:
    """Return the types below a heading, each with its aliases."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^\| `(\w+)` \| ([^|]*)\|", section, flags=re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", others)) for name, others in found}


def test_types_that_need_a_decision_are_listed_with_aliases() -> None:
    """From the table of reactions."""
    assert rows("What asks for a decision") == {kind: set(aliases) for kind, aliases in EVENT_TYPES.items()}
    assert EVENT_TYPES.keys() == REACTIONS.keys()


def test_recorded_types_are_listed() -> None:
    """Without aliases."""
    assert rows("What is recorded").keys() == RECORDED

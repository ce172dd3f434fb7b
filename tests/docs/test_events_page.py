"""The page of events names every type that the core knows, with its other names, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from noetl_broker.broker.dispatcher import REACTIONS, RECORDED
from noetl_broker.broker.model import ALIASES

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, set[str]]:
    """Give the types in the table below a heading, each with the names in its second column."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^\| `(\w+)` \| ([^|]*)\|", section, flags=re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", others)) for name, others in found}


def test_what_asks_for_a_decision_is_there_with_its_other_names() -> None:
    """As the core reads them."""
    assert rows("What asks for a decision") == {
        kind: {name for name, meant in ALIASES.items() if meant == kind and name != kind} for kind in REACTIONS
    }


def test_what_is_recorded_is_there() -> None:
    """As the core lets it pass."""
    assert rows("What is recorded").keys() == RECORDED

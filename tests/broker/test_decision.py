"""A decision says whether it writes more than nearly every turn does."""

from __future__ import annotations

from typing import Any, cast

from noetl_broker.broker.model import Decision

COMMON = ["outcome", "note", "events", "jobs", "rows", "ended"]  # what the store writes of each decision


def test_a_decision_with_anything_that_few_turns_write_says_so() -> None:
    """Else the store would not look for it."""
    plain, anything = Decision("decided"), cast("Any", ("changed",))
    changed = {name: plain._replace(**{name: anything}) for name in Decision._fields}
    assert [name for name, decision in changed.items() if not decision.has_rare] == COMMON

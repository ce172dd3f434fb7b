"""Explains who holds a slot and who waits for it."""

from __future__ import annotations

from datetime import timedelta

from noetl_broker.explain.facts import SlotFact
from tests.explanations import NOW, execution_lines, facts_of
from tests.forks import history_of
from tests.stories import dedented, playbook

ONE = """
workload: {customer: 7}
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
METADATA = 'concurrency: {key: "{{ workload.customer }}"}'
WAITING = SlotFact("story", "7", "customer", 12, None, NOW - timedelta(minutes=10), 1, 1, 3, (99,))


def test_an_execution_that_waits_for_a_slot_says_who_holds_it_and_how_many_are_before_it() -> None:
    """As `status` does."""
    history = history_of(playbook(ONE, metadata=METADATA), "> execution_start; slot busy")
    assert execution_lines(history, facts_of(history, status="QUEUED", slots=(WAITING,))) == dedented(
        """
        execution 1 (story version 1) is QUEUED; it started 10 min 0 s ago
          it was queued 10 min 0 s ago
            it waits for a slot: customer 7, second of 3, held by execution 99
            a token is kept that will enter start when the execution runs on
        """
    )


def test_a_running_execution_says_who_waits_for_its_slot() -> None:
    """Not if nobody does."""
    history = history_of(playbook(ONE, metadata=METADATA), "> execution_start; slot free")
    held = WAITING._replace(held_at=NOW, before=None, holders=(1,))
    for count, expected in (
        (3, ["  it holds a slot: customer 7, 3 wait for it"]),
        (1, ["  it holds a slot: customer 7, 1 waits for it"]),
        (0, []),
    ):
        slots = (held._replace(waiting=count),)
        lines = execution_lines(history, facts_of(history, status="RUNNING", slots=slots)).splitlines()
        assert [line for line in lines if "slot" in line] == expected

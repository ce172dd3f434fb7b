"""Explains what steps wait for that the broker runs: moments, signals and people."""

from __future__ import annotations

from datetime import timedelta

import pytest

from noetl_broker.explain.facts import WaitFact
from noetl_broker.history.record import History
from tests.explanations import NOW, execution_lines, facts_of, step_lines
from tests.forks import history_of
from tests.stories import dedented, playbook

HOUR = timedelta(hours=1)
BODY = """
workflow:
- {step: start, next: cool}
- {step: cool, type: TYPE, next: end}
- {step: end}
"""
DECIDED = """
> execution_start
> approval_decided cool {"approved": true, "by": "ann", "at": "2026-01-01T00:05:00.000000Z", "form": {}}
"""


def started(step_type: str) -> History:
    """An execution that waits in its first step."""
    return history_of(playbook(BODY.replace("TYPE", step_type)), "> execution_start")


@pytest.mark.parametrize(
    "step_type, wait, expected",
    [
        (
            "wait, for: 3d",
            WaitFact("timer", NOW - HOUR, NOW + 71 * HOUR),
            """
            cool has been waiting for its moment for 1 h 0 min
              it ends in 2 d 23 h, at 2026-01-03T23:10:00.000000Z
            """,
        ),
        (
            "wait, for: 3d",
            WaitFact("timer", NOW - HOUR, NOW - timedelta(seconds=4)),
            """
            cool has been waiting for its moment for 1 h 0 min
              it was due 4.0 s ago, at 2026-01-01T00:09:56.000000Z: no broker has fired its timer yet
            """,
        ),
        (
            "approval",
            WaitFact("approval", NOW - HOUR, NOW + 23 * HOUR, title="Order 7", approvers=("finance", "ann")),
            """
            cool has been waiting for a person's decision for 1 h 0 min: Order 7
              only finance and ann may decide
              noetl-broker approve 1 cool, or noetl-broker reject 1 cool
              it times out in 23 h 0 min, at 2026-01-01T23:10:00.000000Z
            """,
        ),
        (
            "approval",
            WaitFact("approval", NOW - HOUR, title="Order 7"),
            """
            cool has been waiting for a person's decision for 1 h 0 min: Order 7
              noetl-broker approve 1 cool, or noetl-broker reject 1 cool
              it has no timeout
            """,
        ),
    ],
)
def test_a_wait_says_for_what_since_when_and_until_when(step_type: str, wait: WaitFact, expected: str) -> None:
    """The moment in UTC, and how long until then."""
    text = execution_lines(started(step_type), facts_of(started(step_type), waits={("cool", 1, None): wait}))
    assert dedented(expected).strip() in "\n".join(line.removeprefix("  ") for line in text.splitlines())


def test_a_decided_approval_says_who_decided() -> None:
    """Its result has the decision, from the event that a person's call wrote."""
    history = history_of(playbook(BODY.replace("TYPE", "approval")), DECIDED)
    assert "\n".join(step_lines(history, "cool").splitlines()[-2:]) == (
        '    its result is {"comment": null, "approved": true, "by": "ann", "at": "2026-01-01T00:05:00.000000Z"}, from'
        " approval_decided (event 102, turn 2)\n    it led to end"
    )

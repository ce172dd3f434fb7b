"""Explains why an execution is paused or queued."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.explanations import NOW, execution_lines, facts_of, job, step_lines
from tests.forks import history_of
from tests.stories import dedented, playbook

TWO = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: b}
- {step: b, type: python, code: x, next: end}
- {step: end}
"""


def waits(story: str, **more: object) -> str:
    """The explanation of an execution, without the path that it took."""
    history = history_of(playbook(TWO), dedented(story))
    lines = execution_lines(history, facts_of(history, **more)).splitlines()
    return "\n".join(line for line in lines if not line.startswith("  it went through"))


def test_a_paused_execution_says_since_when_why_and_what_it_keeps() -> None:
    """With the command that resumes it."""
    assert waits(
        """
        > execution_start
        > execution_pause {"reason": "disk full"}
        > action_completed a 1
        """,
        status="PAUSED",
    ) == dedented(
        """
        execution 1 (story version 1) is PAUSED; it started 10 min 0 s ago
          it was paused 10 min 0 s ago: disk full (noetl-broker resume 1)
            a token is kept that will enter b when the execution runs on
        """
    )


def test_a_held_job_is_named() -> None:
    """No worker is missing."""
    jobs = {("a", 1, None): job(status="held")}
    assert waits("> execution_start\n> execution_pause", status="PAUSED", jobs=jobs).splitlines()[1:] == [
        "  it was paused 10 min 0 s ago (noetl-broker resume 1)",
        "  the job of a is held until the execution is resumed",
    ]


def test_a_child_that_was_paused_with_its_parent_names_it() -> None:
    """The parent is to be resumed."""
    story = '> execution_start\n> execution_pause {"parent_execution_id": 7, "reason": "a fix"}'
    assert waits(story, status="PAUSED").splitlines()[1] == (
        "  it was paused with its parent 7 10 min 0 s ago: a fix (noetl-broker resume 7)"
    )


def test_a_queued_execution_says_what_it_waits_for() -> None:
    """Its path is to be resumed."""
    assert waits("> execution_start; path paused", status="QUEUED").splitlines()[1:] == [
        (
            "  it was queued 10 min 0 s ago: new executions of playbook story are paused"
            " (noetl-broker resume --path story admits it)"
        ),
        "    a token is kept that will enter start when the execution runs on",
    ]


def test_a_step_whose_token_is_kept_says_so() -> None:
    """It did not run, because the execution is paused."""
    history = history_of(playbook(TWO), dedented("> execution_start\n> execution_pause\n> action_completed a 1"))
    assert step_lines(history, "b", status="PAUSED").splitlines()[1:3] == [
        "  a token is kept that will enter b when the execution runs on",
        "  it was paused 10 min 0 s ago (noetl-broker resume 1)",
    ]


@pytest.mark.parametrize(
    "hours, expected",
    [
        (2, "  it fails in 2 h 0 min, at 2026-01-01T02:10:00.000000Z (metadata.deadline)"),
        (-1, "  its deadline passed 1 h 0 min ago: no broker has fired its timer yet"),
    ],
)
def test_a_live_execution_says_when_its_deadline_fails_it(hours: int, expected: str) -> None:
    """By the database's clock."""
    assert waits("> execution_start", deadline=NOW + timedelta(hours=hours)).splitlines()[-1] == expected

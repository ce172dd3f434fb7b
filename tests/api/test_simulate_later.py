"""The simulation's clock jumps to what comes next: timers, delays, answers that take time, timeouts and deadlines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from noetl_broker import JobFailed, SimulationFault, Story, delayed, in_turn, simulate

HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: p, path: p}\n"


def ends(story: Story) -> dict[str, tuple[str, datetime | None]]:
    """Return the status and the end of each step."""
    return {visit.step: (visit.status, visit.ended_at) for visit in story.steps}


def test_three_days_pass_in_no_time() -> None:
    """The result of the wait is its moment."""
    story = simulate(
        HEAD
        + """
workflow:
- {step: start, next: cool}
- {step: cool, type: wait, for: 3d, next: remind}
- {step: remind, type: python, code: "def main(): return 1", next: end}
- {step: end, result: "{{ cool }}"}
""",
        {"remind": 1},
    )
    assert (story.result, story.waited) == ({"waited_until": "2026-01-04T00:00:01.000000Z"}, timedelta(days=3))
    assert ends(story)["cool"] == ("COMPLETED", datetime(2026, 1, 4, 0, 0, 1, tzinfo=UTC))
    assert story.visits("cool")[0].result == {"waited_until": "2026-01-04T00:00:01.000000Z"}


BRANCHES = (
    HEAD
    + """
workflow:
- {step: start, next: [cool, work]}
- {step: cool, type: wait, for: 1h, next: first}
- {step: work, type: python, timeout: 7200, code: "def main(): return 1", next: first}
- {step: first, join: any, next: end}
- {step: end}
"""
)


@pytest.mark.parametrize(
    "after, cool, work, minutes",
    [
        ("30m", "CANCELLED", "COMPLETED", 30),
        (timedelta(hours=1.5), "COMPLETED", "COMPLETED", 90),
        (86_400, "COMPLETED", "FAILED", 120),
    ],
)
def test_an_answer_may_take_time(after: str | float | timedelta, cool: str, work: str, minutes: int) -> None:
    """The first of both wins. `end` waits for the work, until its timeout at most."""
    story = simulate(BRANCHES, {"work": delayed(5, after=after)})
    statuses = {step: status for step, (status, _) in ends(story).items()}
    assert (story.status, statuses["cool"], statuses["work"]) == ("COMPLETED", cool, work)
    assert round(story.waited.total_seconds() / 60) == minutes


def test_a_retry_comes_after_its_delay() -> None:
    """30, then 60 seconds."""
    story = simulate(
        HEAD
        + """
workflow:
- {step: start, next: a}
- step: a
  type: python
  retry: {max_attempts: 3, initial_delay: 30, backoff_multiplier: 2, jitter: false}
  code: "def main(): return 1"
""",
        {"a": in_turn(JobFailed("no"), JobFailed("no"), 7)},
    )
    assert (story.result, story.waited) == (7, timedelta(seconds=90))


@pytest.mark.parametrize("deadline", ["60", '"{{ limit }}m"'])
def test_a_deadline_ends_what_takes_longer(deadline: str) -> None:
    """Nothing else is left on the agenda."""
    story = simulate(
        HEAD.replace("path: p}", f"path: p, deadline: {deadline}}}")
        + "workload: {limit: 1}\n"
        + "workflow:\n- {step: start, next: cool}\n- {step: cool, type: wait, for: 3d}\n"
    )
    assert (story.status, story.error["type"], story.waited) == ("FAILED", "deadline", timedelta(seconds=60))


def test_a_step_that_calls_a_playbook_times_out() -> None:
    """The child waits longer; it is cancelled."""
    child = HEAD.replace("p}", "child}") + "workflow:\n- {step: start, next: c}\n- {step: c, type: wait, for: 2d}\n"
    body = "workflow:\n- {step: start, next: call}\n- {step: call, type: playbook, path: child, timeout: 3600}\n"
    story = simulate(HEAD + body, playbooks=[child])
    assert (story.status, story.error["type"], story.waited) == ("FAILED", "timeout", timedelta(hours=1))
    assert [one.status for one in story.children] == ["CANCELLED"]


def test_the_late_end_of_a_block_that_timed_out_leaves_its_next_attempt_alone() -> None:
    """The block waits for the action that it undoes; meanwhile the next attempt runs, and times out too."""
    body = """
workflow:
- {step: start, next: block}
- step: block
  type: playbook
  timeout: 10
  retry: {max_attempts: 3, initial_delay: 1, jitter: false}
  workflow:
  - {step: start, next: slow}
  - {step: slow, type: python, code: "def main(): return 1", compensate: {type: python, code: "def main(): return 1"}}
"""
    story = simulate(HEAD + body, {"block.slow": delayed(1, after=12), "block.slow!undo": None})
    assert (story.status, story.error["type"], len(story.children)) == ("FAILED", "timeout", 3)


def test_a_bad_duration_is_refused() -> None:
    """The fault names the value and the forms."""
    with pytest.raises(SimulationFault, match="after='soon' is no duration: a duration is a number of seconds"):
        delayed(1, after="soon")

"""Joins that need a number of arrivals, explained: what they wait for, and what became of the losers."""

from __future__ import annotations

from noetl_broker.broker.state.state import decode
from noetl_broker.history.snapshot import WaitingJoin, take_snapshot
from noetl_broker.history.timeline import trace_turns
from tests.explanations import execution_lines, facts_of, step_lines
from tests.forks import history_of
from tests.stories import playbook

BODY = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x, next: j}
- {step: b, type: python, code: x, next: [j, log]}
- {step: c, type: python, code: x, next: [{when: "{{ c }}", step: both}]}
- {step: d, type: python, code: x, next: both}
- {step: both, type: python, code: x, next: j}
- {step: log, type: python, code: x}
- {step: j, join: {need: 2, losers: cancel}, type: python, code: x}
"""
WON = "> execution_start\n> action_completed a 1\n> action_completed c true\n> action_completed both 1"


def stripped(text: str) -> list[str]:
    """Return the lines of an explanation without indentation."""
    return [line.strip() for line in text.splitlines()]


def test_a_join_that_counts_says_how_many_came() -> None:
    """And what can still reach it."""
    history = history_of(playbook(BODY), "> execution_start\n> action_completed a 1")
    lines = stripped(execution_lines(history, facts_of(history)))
    at = lines.index("join j waits: 1 of the 2 tokens came that it needs")
    assert lines[at + 1 : at + 4] == [
        "tokens have arrived from a",
        "b is running and can still reach it",
        "c is running and can still reach it (c → both → j)",
    ]


def test_a_snapshot_shows_what_a_join_needs() -> None:
    """Beside what it waits for."""
    history = history_of(playbook(BODY), "> execution_start\n> action_completed a 1")
    *_, last = trace_turns(history)
    snapshot = take_snapshot(history.playbook, decode(history.state), last.known)
    assert snapshot.joins == (WaitingJoin("j", "need 2", ("a",), (("b", 1), ("c", 1)), ()),)


def test_a_cancelled_visit_names_the_join_that_cancelled_it() -> None:
    """And a step behind it never ran."""
    history = history_of(playbook(BODY), WON)
    lines = stripped(step_lines(history, "b"))
    assert lines[0] == "b of execution 1 (story version 1, RUNNING) was cancelled in turn 4"
    assert "it was cancelled in turn 4: join j needs it no more" in lines
    lines = stripped(step_lines(history, "log"))
    at = lines.index("the transition from b was never taken: b was cancelled")
    assert lines[at + 1] == "it was cancelled in turn 4: join j needs it no more"


def test_the_visit_of_a_join_names_all_that_it_gathered() -> None:
    """With the conditions that led to them."""
    lines = stripped(step_lines(history_of(playbook(BODY), WON), "j"))
    assert [line for line in lines if " finished with " in line] == [
        "a finished with action_completed (event 102, turn 2)",
        "both finished with action_completed (event 104, turn 4)",
    ]


def test_a_token_that_waited_at_another_join_says_what_cancelled_it() -> None:
    """It came to that join, and another one ran."""
    body = BODY.replace("[a, b, c]", "[a, b, c, d]")
    story = "> execution_start\n> action_completed c true\n> action_completed a 1\n> action_completed b 1"
    lines = stripped(step_lines(history_of(playbook(body), story), "c"))
    assert "its token ended in turn 4: join j ran and cancelled its losers" in lines
    lines = stripped(step_lines(history_of(playbook(body), story), "both"))
    assert lines[1] == (
        "the transition from c (when {{ c }}) was taken, but its token ended in turn 4: "
        "join j ran and cancelled its losers"
    )


def test_a_join_with_too_few_arrivals_says_so() -> None:
    """In the explanation of the execution."""
    story = "> execution_start\n> action_completed a 1\n> action_completed c false"
    history = history_of(playbook(BODY.replace("next: [j, log]", "next: log")), story)
    lines = stripped(execution_lines(history, facts_of(history)))
    assert lines[1:3] == ["j failed on action_completed (event 103, turn 3)", "b was still running and was cancelled"]
    assert lines[0].endswith(
        "in step j: need_not_met: join j needs 2 arrivals; 1 came, and no other token can reach it"
    )

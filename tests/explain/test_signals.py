"""Explains which signals came and did not fit."""

from __future__ import annotations

from datetime import timedelta

from noetl_broker.explain.facts import WaitFact
from tests.explanations import NOW, execution_lines, facts_of
from tests.forks import history_of
from tests.stories import dedented, playbook

BODY = """
workload: {total: 10}
workflow:
- {step: start, next: paid}
- {step: paid, type: wait, signal: payment, key: 42, when: "{{ signal.payload.amount >= total }}"}
"""
STORY = """
> execution_start
> execution_signal paid {"name": "payment", "key": "42", "payload": {"amount": 5}, "at": "now"}
> execution_signal paid {"name": "payment", "key": "42", "payload": {"sum": 7}, "at": "now"}
> execution_signal {"name": "refund", "key": "42", "payload": null, "at": "now"}
"""


def test_a_wait_names_the_signals_that_do_not_fit() -> None:
    """With the values that its condition read, or its fault; and what the execution keeps."""
    history = history_of(playbook(BODY), STORY)
    wait = WaitFact("signal", NOW - timedelta(hours=1), NOW + timedelta(hours=23), ("payment",), "42")
    facts = facts_of(history, waits={("paid", 1, None): wait})
    expected = """
    execution 1 (story version 1) has been RUNNING for 10 min 0 s
      paid has been waiting for signal payment of 42 for 1 h 0 min
        it times out in 23 h 0 min, at 2026-01-01T23:10:00.000000Z
        2 signals came that do not fit {{ signal.payload.amount >= total }}; they are kept for a later wait
          turn 2: payment: signal.payload.amount was 5, total was 10
          turn 3: payment: `signal.payload.amount` is undefined: there is no such key in a mapping
      3 signals are kept for a later wait: payment (2) and refund; those that did not fit are among them
      it went through start and paid
    """
    assert execution_lines(history, facts) == dedented(expected)


def test_of_many_signals_of_a_wait_twelve_are_named() -> None:
    """The others are counted."""
    history = history_of(playbook(BODY), "> execution_start")
    wait = WaitFact("signal", NOW, None, tuple(f"s{number}" for number in range(14)), "42")
    assert "for signal s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 and 2 more of 42" in execution_lines(
        history, facts_of(history, waits={("paid", 1, None): wait})
    )


def test_a_wait_names_the_signals_that_cannot_reach_it() -> None:
    """They were sent to the execution, or before `since`."""
    history = history_of(playbook(BODY), "> execution_start")
    wait = WaitFact("signal", NOW, None, ("payment",), "42", to_execution=2, too_old=2.0)
    remedy = "; send it by the key: noetl-broker signal payment --key 42"
    expected = f"""
    execution 1 (story version 1) has been RUNNING for 10 min 0 s
      paid has been waiting for signal payment of 42 for 0 ms
        2 signals payment were sent to this execution, and they cannot reach this wait, which has the key 42{remedy}
        a signal of this name and key was sent 2.0 s before the start; `since` would include it
        it has no timeout
      it went through start and paid
    """
    assert execution_lines(history, facts_of(history, waits={("paid", 1, None): wait})) == dedented(expected)

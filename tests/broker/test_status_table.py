"""Events for waits and approvals by the status of the execution: queued and paused."""

from __future__ import annotations

import pytest

from tests.stories import assert_story

PAID = """
    workflow:
      - {step: start, next: paid}
      - {step: paid, type: wait, signal: payment, timeout: 24h, next: ship}
      - {step: ship, type: python, code: "def main(): ..."}
"""
FORGIVING = PAID.replace("timeout: 24h", "timeout: 24h, on_error: continue")
APPROVE = PAID.replace("wait, signal: payment", "approval")
COOL = PAID.replace("wait, signal: payment, timeout: 24h", "wait, for: 24h")
BEGINS = {
    PAID: "wait  paid signal payment 1|timer paid timeout",
    APPROVE: 'wait  paid approval {"title": "paid"}|timer paid timeout',
    COOL: "wait  paid timer|timer paid wait",
}
BEGINS[FORGIVING] = BEGINS[PAID]
TIMEOUT = '> timer_due paid {"purpose": "timeout"}'


@pytest.mark.parametrize(
    "body, event, completes",
    [
        (
            PAID,
            '> execution_signal paid {"name": "payment", "key": "1", "payload": 5, "at": "now"}',
            "step_completed paid 5",
        ),
        (
            APPROVE,
            '> approval_decided paid {"approved": true, "by": "ann", "at": "now"}',
            'step_completed paid {"comment": null, "approved": true, "by": "ann", "at": "now"}',
        ),
        (
            COOL,
            '> timer_due paid {"purpose": "wait", "due_at": "then"}',
            'step_completed paid {"waited_until": "then"}',
        ),
        (FORGIVING, TIMEOUT, 'step_failed paid "no signal came in time"'),
    ],
)
def test_a_wait_of_a_paused_execution_ends(body: str, event: str, completes: str) -> None:
    """By its signal, its decision, its moment or its timeout. What follows begins at the resume."""
    waits = BEGINS[body].replace("|", "\n            ")
    assert_story(
        body,
        f"""
        > execution_start
            event step_started paid
            {waits} 2026-01-02T00:00:01.000000Z
        > execution_pause
            event execution_paused
        {event}
            event {completes}
        {TIMEOUT}  (duplicate)
        > execution_resume
            event execution_resumed
            event step_started ship
            job   ship
        """,
    )


@pytest.mark.parametrize("body, message", [(PAID, "no signal came in time"), (APPROVE, "nobody decided in time")])
def test_the_timeout_of_a_wait_is_not_held(body: str, message: str) -> None:
    """It fails a paused execution."""
    waits = BEGINS[body].replace("|", "\n            ")
    assert_story(
        body,
        f"""
        > execution_start
            event step_started paid
            {waits} 2026-01-02T00:00:01.000000Z
        > execution_pause
            event execution_paused
        {TIMEOUT}
            event step_failed paid "{message}"
            event execution_failed "{message}"
            cancel all work
        """,
    )


def test_a_queued_execution_keeps_signals() -> None:
    """A wait that begins at the admission takes them."""
    assert_story(
        PAID,
        """
        > execution_start; path paused
            event execution_queued {"reason": "new executions of playbook story are paused"}
        > execution_signal {"name": "payment", "key": "1", "payload": 5, "at": "now"}
        > execution_signal {"name": "payment", "key": "1", "payload": 6, "at": "now"}
        > place_free
            event execution_admitted
            event step_started paid
            event step_completed paid 5
            event step_started ship
            job   ship
        """,
    )


def test_a_paused_execution_that_was_never_admitted_is_cancelled() -> None:
    """It has nothing to undo."""
    assert_story(
        PAID,
        """
        > execution_start; path paused
            event execution_queued {"reason": "new executions of playbook story are paused"}
        > execution_pause
            event execution_paused
        > execution_signal {"name": "payment", "key": "1", "payload": 5, "at": "now"}
        > execution_deadline  (recorded)
        > timer_due paid {"purpose": "timeout"}  (not_open)
        > execution_cancel
            event execution_cancelled "cancelled"
            cancel all work
        > place_free  (after_end)
        """,
        metadata="deadline: 60",
    )


def test_a_cancel_ends_the_wait_of_a_paused_execution() -> None:
    """Later signals, decisions and timers change nothing."""
    assert_story(
        PAID,
        """
        > execution_start
            event step_started paid
            wait  paid signal payment 1
            timer paid timeout 2026-01-02T00:00:01.000000Z
        > execution_pause
            event execution_paused
        > execution_cancel
            event execution_cancelled "cancelled"
            cancel all work
        > execution_signal paid {"name": "payment", "key": "1", "payload": 5, "at": "now"}  (after_end)
        > timer_due paid {"purpose": "timeout"}  (after_end)
        """,
    )

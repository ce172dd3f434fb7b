"""Events for waits and approvals by the status of the execution: queued and paused."""

from __future__ import annotations

from tests.stories import assert_story

PAID = """
    workflow:
      - {step: start, next: paid}
      - {step: paid, type: wait, signal: payment, timeout: 24h, next: ship}
      - {step: ship, type: python, code: "def main(): ..."}
"""
APPROVE = """
    workflow:
      - {step: start, next: approve}
      - {step: approve, type: approval, timeout: 24h, next: ship}
      - {step: ship, type: python, code: "def main(): ..."}
"""


def test_a_signal_completes_the_wait_of_a_paused_execution() -> None:
    """What follows the wait begins at the resume."""
    assert_story(
        PAID,
        """
        > execution_start
            event step_started paid
            wait  paid signal payment 1
            timer paid timeout 2026-01-02T00:00:01.000000Z
        > execution_pause
            event execution_paused
        > execution_signal paid {"name": "payment", "key": "1", "payload": 5, "at": "now"}
            event step_completed paid 5
        > timer_due paid {"purpose": "timeout"}  (duplicate)
        > execution_resume
            event execution_resumed
            event step_started ship
            job   ship
        """,
    )


def test_a_signal_that_fits_no_wait_of_a_paused_execution_is_kept() -> None:
    """A wait that begins after the resume takes it."""
    assert_story(
        """
        workflow:
        - {step: start, next: work}
        - {step: work, type: python, code: x, next: paid}
        - {step: paid, type: wait, signal: payment}
        """,
        """
        > execution_start
            event step_started work
            job   work
        > execution_pause
            event execution_paused
        > execution_signal {"name": "payment", "key": "1", "payload": 5, "at": "now"}
        > action_completed work 1
            event step_completed work
        > execution_resume
            event execution_resumed
            event step_started paid
            event step_completed paid 5
            event execution_complete 5
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


def test_the_timeout_of_a_wait_is_not_held() -> None:
    """It fails a paused execution, of a wait and of an approval."""
    for body, step, message, written in (
        (PAID, "paid", "no signal came in time", "wait  paid signal payment 1"),
        (APPROVE, "approve", "nobody decided in time", 'wait  approve approval {"title": "approve"}'),
    ):
        assert_story(
            body,
            f"""
            > execution_start
                event step_started {step}
                {written}
                timer {step} timeout 2026-01-02T00:00:01.000000Z
            > execution_pause
                event execution_paused
            > timer_due {step} {{"purpose": "timeout"}}
                event step_failed {step} "{message}"
                event execution_failed "{message}"
                withdraw
            """,
        )


def test_after_a_timeout_on_error_continue_is_held() -> None:
    """The step has failed; the next one begins at the resume."""
    assert_story(
        PAID.replace("timeout: 24h", "timeout: 24h, on_error: continue"),
        """
        > execution_start
            event step_started paid
            wait  paid signal payment 1
            timer paid timeout 2026-01-02T00:00:01.000000Z
        > execution_pause
            event execution_paused
        > timer_due paid {"purpose": "timeout"}
            event step_failed paid "no signal came in time"
        > execution_resume
            event execution_resumed
            event step_started ship
            job   ship
        """,
    )


def test_a_decision_completes_the_approval_of_a_paused_execution() -> None:
    """What follows it begins at the resume."""
    assert_story(
        APPROVE,
        """
        > execution_start
            event step_started approve
            wait  approve approval {"title": "approve"}
            timer approve timeout 2026-01-02T00:00:01.000000Z
        > execution_pause
            event execution_paused
        > approval_decided approve {"approved": true, "by": "ann", "at": "now"}
            event step_completed approve {"comment": null, "approved": true, "by": "ann", "at": "now"}
        > execution_resume
            event execution_resumed
            event step_started ship
            job   ship
        """,
    )


def test_the_moment_of_a_wait_comes_while_the_execution_is_paused() -> None:
    """The wait is over; the next step begins at the resume."""
    assert_story(
        """
        workflow:
        - {step: start, next: cool}
        - {step: cool, type: wait, for: 3d, next: go}
        - {step: go, type: python, code: x}
        """,
        """
        > execution_start
            event step_started cool
            wait  cool timer
            timer cool wait 2026-01-04T00:00:01.000000Z
        > execution_pause
            event execution_paused
        > timer_due cool {"purpose": "wait", "due_at": "then"}
            event step_completed cool {"waited_until": "then"}
        > execution_resume
            event execution_resumed
            event step_started go
            job   go
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
            withdraw
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
            withdraw
        > execution_signal paid {"name": "payment", "key": "1", "payload": 5, "at": "now"}  (after_end)
        > timer_due paid {"purpose": "timeout"}  (after_end)
        """,
    )

"""Visits that are over and may still report a success: stories, event by event."""

from __future__ import annotations

from tests.stories import assert_story

BROKEN_NEXT = """
    workflow:
    - {step: start, next: a}
    - step: a
      type: http
      compensate: {type: http, url: "undo {{ result }}"}
      on_error: continue
      next: [{when: "{{ 1 / 0 }}", step: b}]
    - {step: b, type: http, url: x}
"""
PAY = """
    workflow:
    - {step: start, next: charge}
    - {step: charge, type: http, url: x, compensate: {type: http, url: "undo {{ result }}"}, next: ship}
    - {step: ship, type: http, url: y}
"""
PAY_TWICE = """
    workflow:
    - {step: start, next: charge}
    - step: charge
      type: http
      compensate: {type: http, url: "undo {{ result }}"}
      retry: {max_attempts: 2, jitter: false}
      next: ship
    - {step: ship, type: http, url: y}
"""
LOSERS = """
    workflow:
    - {step: start, next: [a, b]}
    - {step: a, type: http, url: x, compensate: {type: http, url: "undo {{ result }}"}, next: j}
    - {step: b, type: http, url: x, next: j}
    - {step: j, type: http, url: x, join: {need: 1, losers: cancel}, next: end}
    - {step: end}
"""
GIVEN_UP = """
    workflow:
    - {step: start, next: [pay, p]}
    - {step: pay, type: http, url: x, compensate: {type: http, url: "undo {{ result }}"}, next: j}
    - {step: p, type: playbook, path: sub, on_error: continue, next: j}
    - {step: j, type: http, url: x}
"""
SIDE_BY_SIDE = """
    workflow:
    - {step: start, next: [pay, p]}
    - {step: pay, type: http, url: x, compensate: {type: http, url: "undo {{ result }}"}}
    - {step: p, type: playbook, path: sub, on_error: continue}
"""


def test_a_template_error_in_next_after_the_success_is_undone() -> None:
    """`on_error` does not apply to it. The trial: a card was charged and never refunded."""
    assert_story(
        BROKEN_NEXT,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 5
            event step_failed a "it divides by zero"
            event execution_compensating "it divides by zero"
            event compensation_started a
            job   a!undo
            cancel all work
            undo  a
        > action_completed a!undo
            event compensation_completed a
            event execution_failed "it divides by zero"
        """,
    )


def test_a_job_that_completes_after_a_cancel_is_undone() -> None:
    """Its success is late: no step completes, and it is undone."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain charge
        > action_completed charge 5  (late)
            event compensation_started charge
            job   charge!undo
            undo  charge
        > action_completed charge 5  (duplicate)
        > action_completed charge!undo
            event compensation_completed charge
            event execution_cancelled "cancelled"
        """,
    )


def test_a_job_that_is_cancelled_leaves_nothing_to_undo() -> None:
    """The execution ends when it is known that nobody had the job."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain charge
        > action_failed charge {"message": "it was cancelled", "type": "cancelled"}
            event execution_cancelled "cancelled"
        """,
    )


def test_a_lease_that_is_lost_while_draining_is_unknown() -> None:
    """The execution ends, and lists the visit."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain charge
        > action_failed charge {"message": "lost", "type": "lost_lease"}
            event execution_cancelled "cancelled"
            undo  charge unknown
        """,
    )


def test_a_visit_that_timed_out_and_never_succeeded_is_unknown() -> None:
    """Nothing else is to be undone, so the execution ends at once."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_failed charge {"message": "too late", "type": "timeout"}
            event step_failed charge "too late"
            event execution_failed "too late"
            dead  charge
            cancel all work
            undo  charge unknown
        """,
    )


def test_a_visit_that_lost_a_lease_and_failed_is_unknown() -> None:
    """The failure names the second lease, and no failure of the first one came."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_failed charge {"message": "no"}; attempt 2
            event step_failed charge "no"
            event execution_failed "no"
            dead  charge
            cancel all work
            undo  charge unknown
        """,
    )


def test_a_visit_that_timed_out_and_succeeded_then_is_undone_once() -> None:
    """The retry succeeded."""
    assert_story(
        PAY_TWICE,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_failed charge {"message": "too late", "type": "timeout"}; attempt 1
            event action_retry charge "too late"
            retry charge 1 s
        > action_completed charge 5; attempt 2
            event step_completed charge
            event step_started ship
            job   ship
            undo  charge
        > action_failed ship {"message": "no"}
            event step_failed ship "no"
            event execution_compensating "no"
            event compensation_started charge
            job   charge!undo
            dead  ship
            cancel all work
        > action_completed charge!undo
            event compensation_completed charge
            event execution_failed "no"
        """,
    )


def test_abandon_while_draining_lists_what_is_draining() -> None:
    """Nobody knows whether the action happened."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain charge
        > execution_abandon
            event execution_failed "the undo was abandoned"
            cancel all work
            undo  charge unknown
        """,
    )


def test_a_loser_that_completes_late_holds_the_end() -> None:
    """It completes no step; the execution completes then."""
    assert_story(
        LOSERS,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed b 1
            event step_completed b
            event step_cancelled a
            event step_started j
            job   j
            cancel a
            drain a
        > action_completed j 1
            event step_completed j
        > action_completed a 7  (late)
            event execution_complete 1
            undo  a
        """,
    )


def test_a_loser_that_completed_late_is_undone_if_the_execution_fails() -> None:
    """And if it fails, nothing is left of it."""
    assert_story(
        LOSERS,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed b 1
            event step_completed b
            event step_cancelled a
            event step_started j
            job   j
            cancel a
            drain a
        > action_completed a 7  (late)
            undo  a
        > action_failed j {"message": "no"}
            event step_failed j "no"
            event execution_compensating "no"
            event compensation_started a
            job   a!undo
            dead  j
            cancel all work
        > action_completed a!undo
            event compensation_completed a
            event execution_failed "no"
        """,
    )


def test_a_failure_while_a_loser_is_draining_awaits_it_further() -> None:
    """One that was cancelled is not undone."""
    assert_story(
        LOSERS,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed b 1
            event step_completed b
            event step_cancelled a
            event step_started j
            job   j
            cancel a
            drain a
        > action_failed j {"message": "no"}
            event step_failed j "no"
            event execution_compensating "no"
            dead  j
            cancel all work
            drain a
        > action_failed a {"message": "cancelled", "type": "cancelled"}
            event execution_failed "no"
        """,
    )


def test_a_visit_that_timed_out_and_succeeded_late_is_undone() -> None:
    """It is not listed as unknown."""
    assert_story(
        PAY_TWICE,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_failed charge {"message": "too late", "type": "timeout"}; attempt 1
            event action_retry charge "too late"
            retry charge 1 s
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain charge
        > action_completed charge 5; attempt 2  (late)
            event compensation_started charge
            job   charge!undo
            undo  charge
        > action_completed charge!undo
            event compensation_completed charge
            event execution_cancelled "cancelled"
        """,
    )


def test_a_success_of_an_attempt_that_failed_before_is_undone() -> None:
    """A result of an action counts whatever was said of its attempt, as in a running execution."""
    assert_story(
        PAY_TWICE,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_failed charge {"message": "busy"}; attempt 1
            event action_retry charge "busy"
            retry charge 1 s
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain charge
        > action_completed charge 5; attempt 1  (late)
            event compensation_started charge
            job   charge!undo
            undo  charge
        > action_completed charge 5; attempt 1  (duplicate)
        > action_completed charge!undo
            event compensation_completed charge
            event execution_cancelled "cancelled"
        """,
    )


def test_a_child_that_completes_after_it_was_given_up_is_undone_in_its_turn() -> None:
    """The parent had gone on. The same answer twice counts once: the store has a row for the child."""
    assert_story(
        GIVEN_UP,
        """
        > execution_start
            event step_started pay
            event step_started p
            job   pay
            child p sub
        > action_completed pay 1
            event step_completed pay
            undo  pay
        > action_failed p {"message": "too late", "type": "timeout"}; attempt 1
            event step_failed p "too late"
            event step_started j
            job   j
            dead  p
            cancel items of p
        > action_completed p 2; attempt 1, undo child 77  (late)
            undo  p child 77
        > action_completed p 2; attempt 1, undo child 77  (duplicate)
            undo execution 77
        > action_failed j {"message": "no"}
            event step_failed j "no"
            event execution_compensating "no"
            event compensation_started p
            undo execution 77; answer 1
            dead  j
            cancel all work
        > action_completed p!undo
            event compensation_completed p
            event compensation_started pay
            job   pay!undo
        > action_completed pay!undo
            event compensation_completed pay
            event execution_failed "no"
        """,
    )


def test_a_child_that_completes_while_an_undo_runs_is_undone_next() -> None:
    """Its success is the last one."""
    assert_story(
        GIVEN_UP,
        """
        > execution_start
            event step_started pay
            event step_started p
            job   pay
            child p sub
        > action_completed pay 1
            event step_completed pay
            undo  pay
        > action_failed p {"message": "too late", "type": "timeout"}; attempt 1
            event step_failed p "too late"
            event step_started j
            job   j
            dead  p
            cancel items of p
        > action_failed j {"message": "no"}
            event step_failed j "no"
            event execution_compensating "no"
            event compensation_started pay
            job   pay!undo
            dead  j
            cancel all work
        > action_completed p 2; attempt 1, undo child 77  (late)
            undo  p child 77
        > action_completed pay!undo
            event compensation_completed pay
            event compensation_started p
            undo execution 77; answer 1
        > action_completed p!undo
            event compensation_completed p
            event execution_failed "no"
        """,
    )


def test_a_success_after_that_of_a_child_that_was_given_up_is_undone_first() -> None:
    """It is draining, so no undo has begun. Otherwise it would never be undone."""
    assert_story(
        SIDE_BY_SIDE,
        """
        > execution_start
            event step_started pay
            event step_started p
            job   pay
            child p sub
        > action_failed p {"message": "too late", "type": "timeout"}; attempt 1
            event step_failed p "too late"
            dead  p
            cancel items of p
        > execution_cancel {"reason": "stop"}
            event execution_compensating "stop"
            cancel all work
            drain pay
        > action_completed p 2; attempt 1, undo child 77  (late)
            undo  p child 77
        > action_completed pay 1  (late)
            event compensation_started pay
            job   pay!undo
            undo  pay
        > action_completed pay!undo
            event compensation_completed pay
            event compensation_started p
            undo execution 77; answer 1
        > action_completed p!undo
            event compensation_completed p
            event execution_cancelled "stop"
        """,
    )


def test_end_runs_while_a_visit_is_draining() -> None:
    """The loser is over, so no other token lives. Only the end of the execution waits for it."""
    assert_story(
        LOSERS.replace("{step: end}", "{step: end, type: http, url: x}"),
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed b 1
            event step_completed b
            event step_cancelled a
            event step_started j
            job   j
            cancel a
            drain a
        > action_completed j 1
            event step_completed j
            event step_started end
            job   end
        > action_completed end 2
            event step_completed end
        > action_completed a 7  (late)
            event execution_complete 2
            undo  a
        """,
    )

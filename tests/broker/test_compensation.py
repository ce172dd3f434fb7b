"""What an execution that failed or was cancelled undoes: stories, event by event."""

from __future__ import annotations

from tests.stories import assert_story

PARALLEL = """
    workflow:
    - {step: start, next: [a, b, c]}
    - {step: a, type: http, url: x, compensate: {type: http, url: "undo {{ result }}"}, next: j}
    - {step: b, type: http, url: x, compensate: {type: http, url: "undo {{ result }}"}, next: j}
    - {step: c, type: http, url: x, next: j}
    - {step: j, type: http, url: x}
"""
LOOP = """
    workflow:
    - {step: start, next: a}
    - step: a
      type: http
      compensate: {type: http, url: "undo {{ result }}"}
      next: [{when: "{{ a < 3 }}", step: a}, {else: [b]}]
    - {step: b, type: http, url: x}
"""
PAY_WITH_RETRY = """
    workflow:
    - {step: start, next: charge}
    - step: charge
      type: http
      url: x
      args: {order: 7}
      compensate:
        type: http
        url: "refund {{ result.id }} {{ order }}"
        args: {why: "{{ error.message }}"}
        retry: {max_attempts: 2, jitter: false}
      next: ship
    - {step: ship, type: http, url: y}
"""
TWO = """
    workflow:
    - {step: start, next: a}
    - {step: a, type: http, url: x, compensate: {type: http, args: {id: "{{ result.id }}"}}, next: b}
    - {step: b, type: http, url: x, compensate: {type: http, args: {id: "{{ result.id }}"}}, next: c}
    - {step: c, type: http, url: x}
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


def test_the_last_success_is_undone_first() -> None:
    """Branches run in parallel: the order is that of the turns which read the successes."""
    assert_story(
        PARALLEL,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            job   a
            job   b
            job   c
        > action_completed b 2
            event step_completed b
            undo  b
        > action_completed a 1
            event step_completed a
            undo  a
        > action_failed c {"message": "no"}
            event step_failed c "no"
            event execution_compensating "no"
            event compensation_started a
            job   a!undo
            dead  c
            cancel all work
        > action_completed a!undo
            event compensation_completed a
            event compensation_started b
            job   b!undo
        > action_completed a!undo  (duplicate)
        > action_completed b!undo
            event compensation_completed b
            event execution_failed "no"
        """,
    )


def test_each_visit_of_a_loop_is_undone() -> None:
    """The last visit first."""
    assert_story(
        LOOP,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event step_started a#2
            job   a#2
            undo  a
        > action_completed a#2 2
            event step_completed a#2
            event step_started a#3
            job   a#3
            undo  a#2
        > action_completed a#3 3
            event step_completed a#3
            event step_started b
            job   b
            undo  a#3
        > action_failed b {"message": "no"}
            event step_failed b "no"
            event execution_compensating "no"
            event compensation_started a#3
            job   a#3!undo
            dead  b
            cancel all work
        > action_completed a#3!undo
            event compensation_completed a#3
            event compensation_started a#2
            job   a#2!undo
        > action_completed a#2!undo
            event compensation_completed a#2
            event compensation_started a
            job   a!undo
        > action_completed a!undo
            event compensation_completed a
            event execution_failed "no"
        """,
    )


def test_an_undo_sees_inputs_result_and_error_and_is_retried() -> None:
    """Its job is `charge!undo`; a second attempt that is sent twice counts once."""
    assert_story(
        PAY_WITH_RETRY,
        """
        > execution_start
            event step_started charge
            job   charge {"order": 7}
        > action_completed charge {"id": 5}
            event step_completed charge
            event step_started ship
            job   ship
            undo  charge
        > action_failed ship {"message": "no"}
            event step_failed ship "no"
            event execution_compensating "no"
            event compensation_started charge
            job   charge!undo {"why": "no"}
            dead  ship
            cancel all work
        > action_failed charge!undo {"message": "busy"}; attempt 1
            retry charge!undo 1 s
        > action_failed charge!undo {"message": "busy"}; attempt 1  (duplicate)
        > action_completed charge!undo; attempt 2
            event compensation_completed charge
            event execution_failed "no"
        """,
    )


def test_an_undo_that_fails_for_good_ends_the_compensation() -> None:
    """What is left stays open, and the execution keeps its error."""
    assert_story(
        TWO,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"id": 5}
            event step_completed a
            event step_started b
            job   b
            undo  a
        > action_completed b {"id": 6}
            event step_completed b
            event step_started c
            job   c
            undo  b
        > action_failed c {"message": "no"}
            event step_failed c "no"
            event execution_compensating "no"
            event compensation_started b
            job   b!undo {"id": 6}
            dead  c
            cancel all work
        > action_failed b!undo {"message": "gone"}
            event compensation_failed b "gone"
            event execution_failed "no"
            dead  b!undo
        """,
    )


def test_a_cancel_whose_undo_fails_ends_failed() -> None:
    """The error is that of the undo."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_completed charge 5
            event step_completed charge
            event step_started ship
            job   ship
            undo  charge
        > execution_cancel
            event execution_compensating "cancelled"
            event compensation_started charge
            job   charge!undo
            cancel all work
        > action_failed charge!undo {"message": "gone"}
            event compensation_failed charge "gone"
            event execution_failed "the undo of charge failed: gone"
            dead  charge!undo
        """,
    )


def test_an_undo_that_cannot_be_rendered_fails() -> None:
    """It queues no job; the error of the execution names the remedy."""
    assert_story(
        TWO,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"id": 5}
            event step_completed a
            event step_started b
            job   b
            undo  a
        > action_completed b 6
            event step_completed b
            event step_started c
            job   c
            undo  b
        > execution_cancel
            event execution_compensating "cancelled"
            event compensation_started b
            event compensation_failed b "`result.id` is undefined: there is no such key in a number"
            event execution_failed "the undo of b failed: `result.id` is undefined: there is no such key in a number$"
            cancel all work
        """.replace("number$", "number; mend its `compensate`, register it, then undo with --version latest"),
    )


def test_a_success_with_a_refused_result_is_undone() -> None:
    """The action happened, also if a later attempt fails."""
    assert_story(
        PAY_TWICE,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_completed charge; attempt 1, bytes 3000000
            event action_retry charge "the result takes 3000000 bytes; the limit max_result_bytes is 2097152"
            retry charge 1 s
            undo  charge
        > action_failed charge {"message": "no"}; attempt 2
            event step_failed charge "no"
            event execution_compensating "no"
            event compensation_started charge
            job   charge!undo
            dead  charge
            cancel all work
        > action_completed charge!undo
            event compensation_completed charge
            event execution_failed "no"
        """,
    )


def test_nothing_else_counts_while_compensating() -> None:
    """Cancel, pause, deadline and the end of other actions are recorded."""
    assert_story(
        PARALLEL,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            job   a
            job   b
            job   c
        > action_completed a 1
            event step_completed a
            undo  a
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain b
        > execution_cancel  (recorded)
        > execution_pause  (recorded)
        > execution_resume  (recorded)
        > execution_deadline  (recorded)
        > action_completed c 3  (duplicate)
        > action_failed b {"message": "no"}
            event compensation_started a
            job   a!undo
        > action_completed c 3  (duplicate)
        > action_completed a!undo
            event compensation_completed a
            event execution_cancelled "cancelled"
        """,
        metadata="deadline: 60",
    )


def test_a_deadline_undoes() -> None:
    """It is a failure as any other."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > action_completed charge 5
            event step_completed charge
            event step_started ship
            job   ship
            undo  charge
        > execution_deadline
            event execution_compensating "the deadline of 60 s passed"
            event compensation_started charge
            job   charge!undo
            cancel all work
        > action_failed ship {"message": "no"}  (duplicate)
        > action_completed charge!undo
            event compensation_completed charge
            event execution_failed "the deadline of 60 s passed"
        """,
        metadata="deadline: 60",
    )


def test_a_paused_execution_that_is_cancelled_undoes() -> None:
    """What it kept is dropped."""
    assert_story(
        PAY,
        """
        > execution_start
            event step_started charge
            job   charge
        > execution_pause
            event execution_paused
        > action_completed charge 5
            event step_completed charge
            undo  charge
        > execution_cancel
            event execution_compensating "cancelled"
            event compensation_started charge
            job   charge!undo
            cancel all work
        > action_completed charge!undo
            event compensation_completed charge
            event execution_cancelled "cancelled"
        """,
    )


def test_abandon_ends_the_undo() -> None:
    """The one that runs is listed as unknown; its late success counts. A second abandon is late."""
    assert_story(
        TWO,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"id": 5}
            event step_completed a
            event step_started b
            job   b
            undo  a
        > execution_abandon  (recorded)
        > action_completed b {"id": 6}
            event step_completed b
            event step_started c
            job   c
            undo  b
        > action_failed c {"message": "no"}
            event step_failed c "no"
            event execution_compensating "no"
            event compensation_started b
            job   b!undo {"id": 6}
            dead  c
            cancel all work
        > execution_abandon {"reason": "refunded by hand"}
            event execution_failed "no"
            cancel all work
            undo  b unknown
        > action_completed b!undo  (late)
            event compensation_completed b
        > execution_abandon  (after_end)
        """,
    )


def test_max_visits_and_max_turns_undo() -> None:
    """A limit of the execution is a failure as any other."""
    assert_story(
        LOOP,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event step_started a#2
            job   a#2
            undo  a
        > action_completed a#2 2
            event step_completed a#2
            event step_failed a#3 "step a in the loop a would be visit 4; the limit max_visits is 3"
            event execution_compensating "step a in the loop a would be visit 4; the limit max_visits is 3"
            event compensation_started a#2
            job   a#2!undo
            cancel all work
            undo  a#2
        > action_completed a#2!undo
            event compensation_completed a#2
            event compensation_started a
            job   a!undo
        > action_completed a!undo
            event compensation_completed a
            event execution_failed "step a in the loop a would be visit 4; the limit max_visits is 3"
        """,
        metadata="max_visits: 3",
    )


def test_an_execution_that_completes_undoes_nothing() -> None:
    """It says to its parent that it could."""
    assert_story(
        PAY,
        """
        > execution_start; depth 1
            event step_started charge
            job   charge
        > action_completed charge 5
            event step_completed charge
            event step_started ship
            job   ship
            undo  charge
        > action_completed ship 6
            event step_completed ship
            event execution_complete 6
        > action_completed charge 5  (after_end)
        """,
    )


def test_a_result_of_the_end_that_cannot_be_rendered_undoes() -> None:
    """Nothing is draining, so the first undo begins in the turn of the failure."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: http, url: x, compensate: {type: http, url: y}, next: end}
        - {step: end, result: "{{ b.x }}"}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event step_failed end "`b` is undefined: no input, step with a result or workload key has that name"
            event execution_compensating "`b` is undefined: no input, step with a result or workload key has that name"
            event compensation_started a
            job   a!undo
            cancel all work
            undo  a
        > action_completed a!undo
            event compensation_completed a
            event execution_failed "`b` is undefined: no input, step with a result or workload key has that name"
        """,
    )

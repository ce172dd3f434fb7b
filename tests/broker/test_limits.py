"""Limits of an execution and of a turn. The error names the limit."""

from __future__ import annotations

import json

from noetl_broker.broker.model import Rules
from tests.stories import assert_story

LOOP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: a}
"""
SHORT = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x}
"""
RETRIED = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, retry: {max_attempts: 2, initial_delay: 0}}
"""
ITEMS = """
workflow:
- {step: start, next: a}
- step: a
  type: iterator
  collection: [1]
  element: x
  distribute: true
  task: {type: python, code: x, args: {x: "{{ x }}"}}
"""
WIDE = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
- {step: c, type: python, code: x}
"""


def test_an_execution_over_its_limit_of_turns_fails() -> None:
    """The error has turn and limit. Jobs of the last turn are withdrawn."""
    assert_story(
        LOOP,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event step_started a#2
            event execution_failed "the execution has not ended with turn 2; the limit max_turns is 2"
            job   a#2
            withdraw
        > action_completed a#2 1  (after_end)
        """,
        rules=Rules(max_turns=2),
    )


def test_the_last_turn_may_end_the_execution() -> None:
    """The limit itself is allowed."""
    assert_story(
        SHORT,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 1
            event step_completed a
            event execution_complete 1
        """,
        rules=Rules(max_turns=2),
    )


def test_a_cancel_in_the_last_turn_cancels_the_execution() -> None:
    """The last turn read a duplicate. The error is the reason of the cancel."""
    assert_story(
        LOOP,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed b 1  (unknown_step)
        > action_completed b 1  (unknown_step)
        > execution_cancel {"reason": "enough"}
            event execution_cancelled "enough"
            withdraw
        """,
        rules=Rules(max_turns=2),
    )


def test_a_turn_that_takes_too_many_transitions_fails_its_execution() -> None:
    """Jobs of the turn are withdrawn. The error names the step after the limit."""
    assert_story(
        WIDE,
        """
        > execution_start
            event step_started a
            event step_started b
            event execution_failed "step c would be at transition 3 of one turn; the limit max_fan_out is 2"
            job   a
            job   b
            withdraw
        """,
        rules=Rules(max_fan_out=2),
    )


def test_a_payload_of_too_many_keys_fails_its_execution() -> None:
    """Keys of mappings in lists count too."""
    assert_story(
        WIDE,
        """
        > execution_start {"a": [{"b": 1}]}
            event execution_failed "the payload has more than 1 keys; the limit max_payload_keys is 1"
            withdraw
        """,
        rules=Rules(max_payload_keys=1),
    )


def test_a_start_that_is_too_large_fails_the_execution() -> None:
    """The event says what was too large."""
    assert_story(
        WIDE,
        """
        > execution_start; oversize context 50000012
            event execution_failed "the context of execution_start takes 50000012 bytes; the limit max_payload_bytes is 16777216"
            withdraw
        """,  # noqa: E501 - a story is one line for each event
    )


def test_too_many_open_jobs_fail_the_execution() -> None:
    """The third of three parallel steps."""
    assert_story(
        WIDE,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_failed c "step c would be open job 3; the limit max_open_jobs is 2"
            event execution_failed "step c would be open job 3; the limit max_open_jobs is 2"
            job   a
            job   b
            withdraw
        """,
        rules=Rules(max_open_jobs=2),
    )


def test_a_turn_may_take_as_many_transitions_as_the_limit() -> None:
    """The limit itself is allowed."""
    assert_story(
        WIDE,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            job   a
            job   b
            job   c
        """,
        rules=Rules(max_fan_out=3),
    )


def test_a_result_over_the_limit_fails_the_attempt() -> None:
    """The `retry` of the step counts."""
    assert_story(
        RETRIED,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a 1; bytes 2097153
            event action_retry a "the result takes 2097153 bytes; the limit max_result_bytes is 2097152"
            retry a 0 s
        > action_completed a 1; bytes 3000000
            event step_failed a "the result takes 3000000 bytes; the limit max_result_bytes is 2097152"
            event execution_failed "the result takes 3000000 bytes; the limit max_result_bytes is 2097152"
            dead  a
            withdraw
        """,
    )


def test_a_result_over_the_limit_fails_its_item() -> None:
    """As a result that is not JSON."""
    assert_story(
        ITEMS,
        """
        > execution_start
            event step_started a
            event iterator_started a {"total": 1}
            event iteration_started a {"index": 0}
            job   a[0] {"x": 1}
        > action_completed a[0] 1; bytes 2097153
            event iteration_failed a "the result takes 2097153 bytes; the limit max_result_bytes is 2097152"
            event step_failed a "the result takes 2097153 bytes; the limit max_result_bytes is 2097152"
            event execution_failed "the result takes 2097153 bytes; the limit max_result_bytes is 2097152"
            dead  a[0]
            dead  a
            abandon a
            withdraw
        """,
    )


def test_an_execution_with_old_rules_has_no_limits() -> None:
    """Stored rules without limits decide as before."""
    stored = json.loads('{"max_visits": 10000}')
    rules = Rules(**stored)
    assert (rules.max_turns, rules.max_fan_out, rules.max_payload_keys) == (None, None, None)

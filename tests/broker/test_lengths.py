"""How long an execution may grow and how wide a turn: past a bound it fails with the bound's name."""

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
WIDE = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
- {step: c, type: python, code: x}
"""


def test_an_execution_that_has_had_all_its_turns_fails() -> None:
    """The error names the turn and the limit; what the last turn began is withdrawn."""
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


def test_past_its_last_turn_an_execution_is_cancelled_in_the_name_of_the_cancel() -> None:
    """A duplicate has used the turn up and changes nothing; the reason that somebody gave is the error."""
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
    """What the turn has begun is withdrawn with it; the error names the step that was one too many."""
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


def test_an_execution_from_before_these_bounds_has_none() -> None:
    """Rules that were stored without them decide as they did."""
    stored = json.loads('{"max_visits": 10000}')
    rules = Rules(**stored)
    assert (rules.max_turns, rules.max_fan_out) == (None, None)

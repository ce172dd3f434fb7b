"""Limits of an execution and of a turn. The error names the limit."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from noetl_broker.broker.model.rules import Rules, stored_rules
from tests.stories import assert_story, last_turn, lines_of

LOOP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: a}
"""
RETRIED = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, retry: {max_attempts: 2, initial_delay: 0}}
"""
ITEMS = """
workflow:
- {step: start, next: a}
- {step: a, type: iterator, collection: [1], element: x, distribute: true, task: {type: python, code: x}}
"""
WIDE = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
- {step: c, type: python, code: x}
"""
TOO_LARGE = "the result takes 2097153 bytes; the limit max_result_bytes is 2097152"
TOO_MANY = "takes 50000012 bytes; the limit max_payload_bytes is 16777216"
# The workflow, the rules, the events, and what the last one decides.
LIMITS = {
    "the last turn may end the execution": (
        RETRIED,
        Rules(max_turns=2),
        "> execution_start\n> action_completed a 1",
        """
        event step_completed a
        event execution_complete 1
        """,
    ),
    "jobs of a turn over max_turns are cancelled": (
        LOOP,
        Rules(max_turns=2),
        "> execution_start\n> action_completed a 1",
        """
        event step_completed a
        event step_started a#2
        event execution_failed "the execution has not ended with turn 2; the limit max_turns is 2"
        job   a#2
        cancel all work
        """,
    ),
    "jobs of a turn over max_fan_out are cancelled, and the error names the step after the limit": (
        WIDE,
        Rules(max_fan_out=2),
        "> execution_start",
        """
        event step_started a
        event step_started b
        event execution_failed "step c would be at transition 3 of one turn; the limit max_fan_out is 2"
        job   a
        job   b
        cancel all work
        """,
    ),
    "max_fan_out itself is allowed": (
        WIDE,
        Rules(max_fan_out=3),
        "> execution_start",
        """
        event step_started a
        event step_started b
        event step_started c
        job   a
        job   b
        job   c
        """,
    ),
    "keys of mappings in lists count for max_payload_keys": (
        WIDE,
        Rules(max_payload_keys=1),
        '> execution_start {"a": [{"b": 1}]}',
        """
        event execution_failed "the payload has more than 1 keys; the limit max_payload_keys is 1"
        cancel all work
        """,
    ),
    "a start that is too large": (
        WIDE,
        None,
        "> execution_start; oversize context 50000012",
        f"""
        event execution_failed "the context of execution_start {TOO_MANY}"
        cancel all work
        """,
    ),
    "the third of three open jobs": (
        WIDE,
        Rules(max_open_jobs=2),
        "> execution_start",
        """
        event step_started a
        event step_started b
        event step_failed c "step c would be open job 3; the limit max_open_jobs is 2"
        event execution_failed "step c would be open job 3; the limit max_open_jobs is 2"
        job   a
        job   b
        cancel all work
        """,
    ),
    "a result that is too large fails its item": (
        ITEMS,
        None,
        "> execution_start\n> action_completed a[0] 1; bytes 2097153",
        f"""
        event iteration_failed a "{TOO_LARGE}"
        event step_failed a "{TOO_LARGE}"
        event execution_failed "{TOO_LARGE}"
        dead  a[0]
        dead  a
        cancel items of a
        cancel all work
        """,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", LIMITS)
def test_an_execution_over_a_limit_fails(what: str) -> None:
    """The limit itself is allowed."""
    body, rules, story, decided = LIMITS[what]
    assert last_turn(body, story, rules=rules) == lines_of(decided)


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
            cancel all work
        """,
        rules=Rules(max_turns=2),
    )


def test_a_result_over_the_limit_fails_the_attempt() -> None:
    """The `retry` of the step counts."""
    assert_story(
        RETRIED,
        f"""
        > execution_start
            event step_started a
            job   a
        > action_completed a 1; bytes 2097153
            event action_retry a "{TOO_LARGE}"
            retry a 0 s
        > action_completed a 1; bytes 2097153
            event step_failed a "{TOO_LARGE}"
            event execution_failed "{TOO_LARGE}"
            dead  a
            cancel all work
        """,
    )


def test_rules_are_read_as_they_were_stored() -> None:
    """All of them are stored. One that an execution has not stored has its default."""
    rules = Rules(max_turns=200, max_fan_out=3, retry_owner="worker", beside_noetl=True)
    stored = json.loads(json.dumps(rules.pinned()))
    assert stored.keys() == asdict(Rules()).keys()
    assert stored_rules(stored) == rules
    assert stored_rules({"max_turns": 200}) == Rules(max_turns=200)

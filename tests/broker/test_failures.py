"""Failures: `retry`, `on_error`, retry conditions, and templates that fail."""

from __future__ import annotations

import json

import pytest

from noetl_broker.broker.model.effects import JobChanged
from noetl_broker.broker.model.values import JSON
from noetl_broker.history.story import play_turns, read_events
from tests.stories import assert_story, last_turn, playbook


def test_an_action_is_retried_with_growing_delays() -> None:
    """After the last attempt step and execution fail, and queued jobs are cancelled."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, b]}
        - step: a
          type: python
          code: x
          retry: {max_attempts: 3, initial_delay: 2, backoff_multiplier: 3, max_delay: 5, jitter: false}
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_failed a {"message": "one"}
            event action_retry a "one"
            retry a 2 s
        > action_failed a {"message": "two"}
            event action_retry a "two"
            retry a 5 s
        > action_failed a {"message": "three"}
            event step_failed a "three"
            event execution_failed "three"
            dead  a
            cancel all work
        > action_completed b 1  (after_end)
        """,
    )


def test_inputs_that_are_one_template_must_give_a_mapping() -> None:
    """Stronger words are merged over it. Any other value is an error."""
    assert_story(
        """
        workload: {m: {x: 1, y: 2}}
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, args: "{{ workload.m }}", data: {y: 3}}
        - {step: b, type: python, code: x, args: "{{ workload.m.x }}"}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            event step_failed b "the inputs must be a mapping, the template gives int"
            event execution_failed "the inputs must be a mapping, the template gives int"
            job   a {"y": 2, "x": 1}
            cancel all work
        """,
    )


@pytest.mark.parametrize(
    "conditions, error, tries_again",
    [
        ("stop_when: status_code == 404, retry_when: attempt < 2", {"message": "m", "status_code": 500}, [True, False]),
        ("stop_when: status_code == 404, retry_when: attempt < 2", {"message": "m", "status_code": 404}, [False]),
        ("stop_when: \"{{ 'fatal' in error }}\"", {"message": "fatal"}, [False]),
        ("retry_when: nothing.here + 1", {"message": "m"}, [False]),
        ("max_attempts: 2, retry_when: result is none", {"message": "m"}, [True, False]),
        # The words of a retry hide inputs of their names, which `args` still has.
        (
            "max_attempts: 2, stop_when: status_code or result is not none or args.attempt != 7",
            {"message": "m"},
            [True],
        ),
        ("retry_when: \"'m' in error and attempt < most and args.error == 'none'\"", {"message": "m"}, [True, False]),
    ],
)
def test_stop_when_and_retry_when_decide_about_another_attempt(
    conditions: str, error: dict[str, JSON], tries_again: list[bool]
) -> None:
    """`stop_when` comes first. An error in either means no retry."""
    body = f"""
        workflow:
        - {{step: start, next: [{{step: a, args: {{error: none, attempt: 7, result: 1, status_code: 1, most: 2}}}}]}}
        - {{step: a, type: python, code: x, retry: {{jitter: false, {conditions}}}}}
        """
    story = "> execution_start" + f"\n> action_failed a {json.dumps(error)}" * len(tries_again)
    turns = play_turns(playbook(body), read_events(story))
    assert [
        decision.of(JobChanged)[0].status == "retry" for _, decision, _ in turns if decision.of(JobChanged)
    ] == tries_again


@pytest.mark.parametrize("end", ["", "type: python, code: x, "])
def test_an_error_in_the_result_of_end_fails_end(end: str) -> None:
    """`step_failed` replaces `step_completed`."""
    body = f"workflow: [{{step: start, next: end}}, {{step: end, {end}result: '{{{{ 1 / 0 }}}}'}}]"
    assert last_turn(body, "> execution_start" + "\n> action_completed end 1" * bool(end)) == [
        'event step_failed end "it divides by zero"', 'event execution_failed "it divides by zero"', "cancel all work",
    ]  # fmt: skip

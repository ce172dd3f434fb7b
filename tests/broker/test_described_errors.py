"""What an execution says of the error that ended it: the failing step's own name, and a message that is text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.forking import history_of
from tests.stories import playbook

ONE = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x}
"""
UNKNOWN = "the action failed"


def error_of(error: Any, body: str = ONE, step: str = "a") -> Any:
    """The error of the execution whose step failed with this one."""
    started = f"> execution_start\n> action_failed {step} "
    ended = history_of(playbook(body), started + json.dumps(error)).ended
    assert ended is not None
    return ended.error


@pytest.mark.parametrize(
    "told, expected",
    [
        ({"message": "m", "step": None}, {"step": "a", "message": "m"}),
        ({"message": "m", "step": "a"}, {"step": "a", "message": "m"}),
        ({"message": "m", "step": "zzz"}, {"step": "a", "message": "m", "reported_step": "zzz"}),
        ({"message": "m", "step": [1], "reported_step": 5}, {"step": "a", "message": "m", "reported_step": 5}),
    ],
)
def test_the_step_is_the_one_that_failed(told: Any, expected: Any) -> None:
    """Whatever else its worker calls a step is kept beside it."""
    assert error_of(told) == expected


@pytest.mark.parametrize(
    "told, message",
    [
        ({"message": "m"}, "m"),
        ({"message": 404}, "404"),
        ({"message": {"code": 1, "why": "é"}}, '{"code": 1, "why": "é"}'),
        ({"message": False}, "false"),
        ({"message": None}, UNKNOWN),
        ({"message": ""}, UNKNOWN),
        ({}, UNKNOWN),
        ("m", "m"),
        ("", UNKNOWN),
        (["a"], '["a"]'),
        (5, "5"),
        (0, "0"),
    ],
)
def test_the_message_is_text(told: Any, message: str) -> None:
    """What is no text stands there as JSON; only where there is none it says that much."""
    assert error_of(told) == {"step": "a", "message": message}


def test_what_else_an_error_says_is_kept() -> None:
    """Its other keys are nobody's business."""
    assert error_of({"message": "m", "code": 7, "step": "zzz"}) == {
        "step": "a",
        "message": "m",
        "code": 7,
        "reported_step": "zzz",
    }


def test_the_error_of_an_item_is_told_alike() -> None:
    """An item's, and of the step that it fails."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: iterator, collection: [1], element: n, distribute: true, task: {type: python, code: x}}
        """
    assert error_of({"message": 404, "step": "zzz"}, body, "a[0]") == {
        "step": "a",
        "message": "404",
        "reported_step": "zzz",
        "index": 0,
    }


def test_a_condition_on_errors_reads_the_text() -> None:
    """`error` in `retry_when` is the message."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, retry: {max_attempts: 3, jitter: false, retry_when: "error == '404'"}}
        """
    story = '> execution_start\n> action_failed a {"message": 404}\n> action_failed a {"message": 405}'
    history = history_of(playbook(body), story)
    assert [event.type for turn in history.turns for event in turn.events] == [
        "step_started",
        "action_retry",
        "step_failed",
        "execution_failed",
    ]


@pytest.mark.parametrize(
    "told, condition",
    [
        ({"message": "m", "type": "timeout"}, "error_type == 'timeout'"),
        ({"message": "m", "type": "TimeoutError"}, "'timeout' in error_type.lower()"),
        ({"message": "m", "type": 404}, "error_type == '404'"),
        ({"message": "m", "type": None}, "error_type == ''"),
        ({"message": "m"}, "error_type == ''"),
        ("m", "error_type == ''"),
    ],
)
@pytest.mark.parametrize("word", ["retry_when", "stop_when"])
def test_a_condition_on_errors_reads_their_type(told: Any, condition: str, word: str) -> None:
    """`error_type` is a text, empty where the error has no type."""
    retry = f'{{max_attempts: 2, jitter: false, {word}: "{condition}"}}'
    body = f"""
        workflow:
        - {{step: start, next: a}}
        - {{step: a, type: python, code: x, retry: {retry}}}
        """
    history = history_of(playbook(body), f"> execution_start\n> action_failed a {json.dumps(told)}")
    again = "action_retry" in [event.type for turn in history.turns for event in turn.events]
    assert again == (word == "retry_when")
    assert "retry_error" not in json.dumps([event.error for turn in history.turns for event in turn.events])

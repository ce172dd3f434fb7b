"""The error of an execution names the failed step and has a text message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.forks import history_of
from tests.stories import playbook

ONE = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x}
"""
UNKNOWN = "the action failed"


def error_of(error: Any, body: str = ONE, step: str = "a") -> Any:
    """Return the error of an execution whose step failed with this error."""
    started = f"> execution_start\n> action_failed {step} "
    ended = history_of(playbook(body), started + json.dumps(error)).ended
    assert ended is not None
    return ended.error


@pytest.mark.parametrize(
    "reported, expected",
    [
        ({"message": "m", "step": None}, {"step": "a", "message": "m"}),
        ({"message": "m", "step": "a"}, {"step": "a", "message": "m"}),
        ({"message": "m", "step": "zzz"}, {"step": "a", "message": "m", "reported_step": "zzz"}),
        ({"message": "m", "code": 7, "step": "zzz"}, {"step": "a", "message": "m", "code": 7, "reported_step": "zzz"}),
        ({"message": "m", "step": [1], "reported_step": 5}, {"step": "a", "message": "m", "reported_step": 5}),
    ],
)
def test_an_error_names_the_step_that_failed(reported: Any, expected: Any) -> None:
    """A `step` of the worker is kept beside it."""
    assert error_of(reported) == expected


@pytest.mark.parametrize(
    "reported, message",
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
def test_the_message_of_an_error_is_text(reported: Any, message: str) -> None:
    """Other values become JSON; an error without a message says so."""
    assert error_of(reported) == {"step": "a", "message": message}


def test_the_error_of_an_item_has_the_same_form() -> None:
    """Both the item's error and the step's."""
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


@pytest.mark.parametrize(
    "reported, condition",
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
def test_error_type_in_a_retry_condition_is_text(reported: Any, condition: str, word: str) -> None:
    """It is empty if the error has no type."""
    retry = f'{{max_attempts: 2, jitter: false, {word}: "{condition}"}}'
    body = f"""
        workflow:
        - {{step: start, next: a}}
        - {{step: a, type: python, code: x, retry: {retry}}}
        """
    history = history_of(playbook(body), f"> execution_start\n> action_failed a {json.dumps(reported)}")
    again = "action_retry" in [event.type for turn in history.turns for event in turn.events]
    assert again == (word == "retry_when")
    assert "retry_error" not in json.dumps([event.error for turn in history.turns for event in turn.events])

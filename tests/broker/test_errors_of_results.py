"""The error of a failure whose event has none comes from its result."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.broker.model.event import Event
from noetl_broker.history.story import play_turns, read_events
from tests.stories import playbook

ONE = """
workflow:
- {step: start, next: a}
- {step: a, type: http, url: u, retry: {max_attempts: 2, jitter: false, retry_when: "{{ status_code >= 500 }}"}}
"""


def answered(status: Any, body: Any = "") -> dict[str, Any]:
    """Return the result of the http tool of a NoETL worker for a failed response."""
    return {"id": "x", "status": "error", "data": {"status_code": status, "url": "http://x/?key=1", "data": body}}


def failed_with(result: Any, error: Any = None) -> tuple[str, Any]:
    """Return the first event of the turn and its error."""
    events = [*read_events("> execution_start"), Event("action_error", "a", 1, result=result, error=error)]
    *_, (_, decision, _) = play_turns(playbook(ONE), events)
    return decision.events[0].type, decision.events[0].error


@pytest.mark.parametrize("status, event", [(503, "action_retry"), (404, "step_failed")])
def test_the_status_code_of_a_response_decides_about_a_retry(status: int, event: str) -> None:
    """`status_code` in `retry_when` is that of the result's data."""
    written, error = failed_with(answered(status))
    message = f"the server answered with status {status}"
    expected = {"step": "a", "message": message, "type": "http", "status_code": status, "response": ""}
    assert (written, error) == (event, expected)


@pytest.mark.parametrize(
    "body, shown", [("no\n", "no\n"), ({"é": 1}, '{"é": 1}'), ("x" * 5000, "x" * 1000), (None, "null")]
)
def test_the_body_of_a_response_is_text_in_the_error(body: Any, shown: str) -> None:
    """It is cut, because every later event of the failure copies the error."""
    assert failed_with(answered(500, body))[1]["response"] == shown


@pytest.mark.parametrize(
    "result, message",
    [
        ({**answered(500), "error": "no route"}, "no route"),
        ({**answered(500), "message": "no luck"}, "no luck"),
        (answered("500"), "the action failed"),
        (answered(500.5), "the action failed"),
        ({"data": [500]}, "the action failed"),
        ("no", "no"),
        (None, "the action failed"),
    ],
)
def test_a_result_without_a_plain_status_code_is_the_error(result: Any, message: str) -> None:
    """An error or a message comes first. A status of another form is ignored."""
    assert failed_with(result)[1]["message"] == message


def test_the_error_of_the_event_wins_over_its_result() -> None:
    """The result may have an error too."""
    assert failed_with(answered(404), "boom")[1] == {"step": "a", "message": "boom"}

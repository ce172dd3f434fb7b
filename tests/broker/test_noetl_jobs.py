"""What a job says beside a NoETL server: its inputs stand where that server's worker looks for them."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.broker.model import Rules
from tests.broker.test_jobs import job_of, jobs_of

BESIDE = Rules(beside_noetl=True)
ITERATOR = "type: iterator, collection: [1, 2], element: n, "


def action_of(step: str, **more: Any) -> dict[str, Any]:
    """The action of a job beside a NoETL server."""
    return job_of(step, rules=BESIDE, **more).action


def test_all_inputs_stand_under_data() -> None:
    """Whatever word the author used; the words themselves stay as they are."""
    words = ("with", "payload", "input", "params", "data", "args")
    action = action_of("type: python, code: x, " + ", ".join(f"{word}: {{{word}1: 1}}" for word in words))
    assert action["data"] == action["args"] == {f"{word}1": 1 for word in words}
    assert action["with"] == {"with1": 1}


def test_elsewhere_a_job_says_what_it_always_said() -> None:
    """Without the rule no word is added."""
    step = f"{ITERATOR}args: {{a: 1}}, task: {{type: http, url: u, params: {{b: 2}}, args: {{c: 3}}}}"
    action = job_of(step).action
    assert "data" not in action
    assert action["task"].keys().isdisjoint({"data", "with"})


def test_inputs_of_the_workbook_and_of_a_transition_are_among_them() -> None:
    """The transition's over the step's, those over the action's."""
    [job] = jobs_of(
        """
        workbook:
        - {name: act, type: python, code: x, with: {a: 1, b: 1, c: 1}}
        workflow:
        - {step: start, next: {step: s, params: {c: 3, d: 3}}}
        - {step: s, type: workbook, task: act, input: {b: 2, c: 2}}
        """,
        rules=BESIDE,
    )
    assert job.action["data"] == {"a": 1, "b": 2, "c": 3, "d": 3}


def test_a_job_without_inputs_says_none() -> None:
    """There is nothing to add."""
    assert action_of("type: python, code: x").keys() == {"name", "type", "code_b64", "unfinished"}


def test_a_task_that_the_worker_repeats_holds_all_inputs_under_with() -> None:
    """It sees nothing else there: the inputs of its step too, under its own."""
    action = action_of(
        f"{ITERATOR}args: {{a: 1, b: 1}}, task: {{type: python, code: x, data: {{b: '{{{{ n }}}}', c: 3}}}}"
    )
    expected = {"a": 1, "b": "{{ n }}", "c": 3}
    assert (action["data"], action["task"]["with"], action["task"]["data"]) == ({"a": 1, "b": 1}, expected, expected)
    assert action["task"]["args"] == {"b": "{{ n }}", "c": 3}


def test_the_playbook_stays_as_it_is() -> None:
    """A job adds to its own copy of a task: the next one of the same step begins anew."""
    body = f"""
        workflow:
        - {{step: start, next: [{{step: s, args: {{a: 1}}}}, {{step: s, args: {{b: 2}}}}]}}
        - {{step: s, join: each, {ITERATOR}task: {{type: python, code: x, args: {{c: 3}}}}}}
        """
    first, second = jobs_of(body, rules=BESIDE)
    assert (first.action["task"]["with"], second.action["task"]["with"]) == ({"a": 1, "c": 3}, {"b": 2, "c": 3})


@pytest.mark.parametrize(
    "step, expected",
    [
        ("params: {a: 1}", {"data": {"a": 1}}),
        ("params: {a: 1, query: q}, data: {a: 2, b: 2}", {"data": {"a": 2, "query": "q", "b": 2}}),
        ("data: {query: {a: 1}}", {"data": {"query": {"a": 1}}}),
        ("method: POST, payload: {a: 1}", {"data": {"body": {"a": 1}}}),
        ("method: POST, body: text, args: {b: 2}", {"data": {"body": "text"}, "with": {"b": 2}}),
        ("method: POST, payload: [1], data: {b: 2}", {"data": {"body": [1]}, "with": {"b": 2}}),
        ("method: POST, data: {b: 2}", {"data": {"b": 2}}),
    ],
)
def test_a_request_stands_where_that_workers_http_tool_reads_it(step: str, expected: dict[str, Any]) -> None:
    """It sends what `data` holds: the query of a GET, the body of a POST; of `data.body` that is the body alone."""
    action = action_of(f"type: http, url: u, {step}")
    assert {key: action.get(key) for key in ("data", "with") if key in action} == expected


def test_a_type_that_reads_data_itself_keeps_it() -> None:
    """A `save` stores its `data`: inputs stand under `with`."""
    action = action_of("type: save, storage: event_log, data: {a: 1}, args: {b: 2}")
    assert (action["data"], action["with"]) == ({"a": 1}, {"b": 2})


def test_what_only_a_worker_can_finish_is_marked_wherever_it_stands() -> None:
    """A worker that goes by the marks finishes each copy."""
    action = action_of("type: python, code: x, data: {a: '{{ env.A }}', b: 1}")
    assert action["unfinished"] == [["args", "a"], ["data", "a"]]
    request = "{type: http, url: u, method: POST, payload: {p: '{{ n }}'}}"
    action = action_of(f"{ITERATOR}args: {{a: '{{{{ env.A }}}}'}}, task: {request}")
    marked = sorted(map(tuple, action["unfinished"]))
    assert marked == [
        ("args", "a"),
        ("data", "a"),
        ("task", "data", "body", "p"),
        ("task", "payload", "p"),
        ("task", "with", "a"),
    ]

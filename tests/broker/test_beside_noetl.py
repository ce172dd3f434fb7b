"""Beside a NoETL server a job has its inputs where the worker of that server reads them."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.broker.model.rules import Rules
from tests.broker.test_jobs import job_of, jobs_of

BESIDE = Rules(beside_noetl=True)
ITERATOR = "type: iterator, collection: [1, 2], element: n, "


def action_of(step: str, **more: Any) -> dict[str, Any]:
    """Return the action of a job beside a NoETL server."""
    return job_of(step, rules=BESIDE, **more).action


def test_beside_noetl_all_inputs_are_under_data() -> None:
    """For any word of the author; the words themselves do not change."""
    words = ("with", "payload", "input", "params", "data", "args")
    action = action_of("type: python, code: x, " + ", ".join(f"{word}: {{{word}1: 1}}" for word in words))
    assert action["data"] == action["args"] == {f"{word}1": 1 for word in words}
    assert action["with"] == {"with1": 1}


def test_without_noetl_a_job_has_no_extra_words() -> None:
    """The rule is off by default."""
    step = f"{ITERATOR}args: {{a: 1}}, task: {{type: http, url: u, params: {{b: 2}}, args: {{c: 3}}}}"
    action = job_of(step).action
    assert "data" not in action
    assert action["task"].keys().isdisjoint({"data", "with"})


def test_beside_noetl_data_has_workbook_and_transition_inputs() -> None:
    """Transition over step, step over action."""
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


def test_beside_noetl_a_job_without_inputs_has_no_data() -> None:
    """No word is added."""
    assert action_of("type: python, code: x").keys() == {"name", "type", "code_b64", "unfinished"}


def test_beside_noetl_an_iterated_task_has_all_inputs_under_with() -> None:
    """It has the inputs of its step too; its own win."""
    action = action_of(
        f"{ITERATOR}args: {{a: 1, b: 1}}, task: {{type: python, code: x, data: {{b: '{{{{ n }}}}', c: 3}}}}"
    )
    expected = {"a": 1, "b": "{{ n }}", "c": 3}
    assert (action["data"], action["task"]["with"], action["task"]["data"]) == ({"a": 1, "b": 1}, expected, expected)
    assert action["task"]["args"] == {"b": "{{ n }}", "c": 3}


def test_a_job_beside_noetl_does_not_change_the_playbook() -> None:
    """A job changes its own copy of the task."""
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
def test_an_http_step_has_its_request_under_data_beside_noetl(step: str, expected: dict[str, Any]) -> None:
    """`data` is the query of a GET and the body of a POST; `data.body` is the body alone."""
    action = action_of(f"type: http, url: u, {step}")
    assert {key: action.get(key) for key in ("data", "with") if key in action} == expected


def test_a_type_with_its_own_data_keeps_it() -> None:
    """A `save` stores its `data`; its inputs are under `with`."""
    action = action_of("type: save, storage: event_log, data: {a: 1}, args: {b: 2}")
    assert (action["data"], action["with"]) == ({"a": 1}, {"b": 2})


def test_deferred_strings_are_marked_under_every_word() -> None:
    """The worker renders each copy that is marked."""
    action = action_of("type: python, code: x, data: {a: '{{ env.A }}', b: 1}")
    assert action["unfinished"] == [["args", "a"], ["data", "a"]]
    request = "{type: http, url: u, method: POST, payload: {p: '{{ n }}'}, args: {a: '{{ env.A }}'}}"
    action = action_of(f"{ITERATOR}args: {{b: 1}}, task: {request}")
    marked = sorted(map(tuple, action["unfinished"]))
    assert marked == [
        ("task", "args", "a"),
        ("task", "data", "body", "p"),
        ("task", "payload", "p"),
        ("task", "with", "a"),
    ]

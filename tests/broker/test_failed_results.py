"""The failure of a step that went on is the same in its `next` and in later turns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.values import JSON
from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.story import play_turns, read_events
from tests.forks import fork_history, history_of
from tests.stories import playbook

READ = 'args: {s: "{{ a.status }}", e: "{{ a.error }}", d: "{{ a }}"}'
HANDED = 'args: {s: "{{ result.status }}", e: "{{ result.error }}", d: "{{ result }}"}'
CHAIN = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, on_error: continue, MORE, next: [{step: b, READ}]}
- {step: b, type: python, code: x, next: [{step: c, READ}]}
- {step: c, type: python, code: x}
"""
LOOPED = 'loop: {collection: [1, 2], element: n, distribute: true, mode: async}, args: {n: "{{ n }}"}'
# `j` has the result of a and waits for b. It passes on the result of the last transition in the document.
GATHERED = """
workflow:
- {step: start, next: [b, a]}
- {step: b, type: python, code: x, next: j}
- {step: a, type: python, code: x, on_error: continue, next: j}
- {step: j, type: route, next: [{step: c, HANDED}]}
- {step: c, type: python, code: x}
"""
TOO_LARGE = {
    "step": "a",
    "message": "the result takes 3000000 bytes; the limit max_result_bytes is 2097152",
    "type": "max_result_bytes",
}
NO_JSON = {"step": "a", "message": "the result of the event is no JSON", "type": "bad_result"}


def _chain(more: str = "") -> str:
    return CHAIN.replace("READ", READ).replace("MORE, ", f"{more}, " if more else "")


def _inputs(body: str, events: list[Event]) -> dict[str, Any]:
    """Return the inputs of all jobs of these events, by step."""
    turns: list[Decision] = [decision for _, decision, _ in play_turns(playbook(body), events)]
    return {job.step: job.action.get("args") for decision in turns for job in decision.jobs if job.item_index is None}


@pytest.mark.parametrize(
    "more, story, error",
    [
        ("", '> action_failed a "boom"', {"step": "a", "message": "boom"}),
        ("", '> action_failed a {"message": "m", "code": 7}', {"step": "a", "message": "m", "code": 7}),
        ("", "> action_completed a 5; bytes 3000000", TOO_LARGE),
        ("", "> action_completed a 5; broken", NO_JSON),
        (LOOPED, "> action_completed a[0] 5; bytes 3000000", {**TOO_LARGE, "index": 0}),
        (
            LOOPED,
            '> action_completed a[0] 5\n> action_failed a[1] "boom"',
            {"step": "a", "message": "boom", "index": 1},
        ),
        (
            'retry: {max_attempts: 2, retry_when: "{{ nobody }}"}',
            '> action_failed a {"message": "m"}',
            {
                "step": "a",
                "message": "m",
                "retry_error": {
                    "message": "`nobody` is undefined: no input, step with a result or workload key has that name",
                    "template": "{{ nobody }}",
                    "at": "workflow[1].retry.retry_when",
                },
            },
        ),
    ],
)
def test_later_turns_read_the_same_failure_as_next(more: str, story: str, error: JSON) -> None:
    """Status, error and data, with `on_error: continue`."""
    events = [*read_events(f"> execution_start\n{story}\n> action_completed b 1")]
    found = _inputs(_chain(more), events)
    assert json.dumps(found["b"]["e"], sort_keys=True) == json.dumps(error, sort_keys=True)
    assert found["b"] == {"s": "FAILED", "e": error, "d": None}
    assert json.dumps(found["c"]) == json.dumps(found["b"])  # to the order of the keys


def test_later_turns_read_the_same_envelope_error_as_next() -> None:
    """A NoETL worker reports errors only there."""
    envelope = {"id": "1", "status": "error", "data": None, "error": "disk full"}
    start, completed = read_events("> execution_start\n> action_completed b 1")
    found = _inputs(_chain(), [start, Event("action_error", "a", 1, result=envelope), completed])
    assert found["b"] == found["c"] == {"s": "FAILED", "e": {"step": "a", "message": "disk full"}, "d": None}


def test_a_failed_step_passes_its_failure_on_as_result() -> None:
    """At a waiting join `result` equals that of the step's own `next`."""
    events = read_events("> execution_start\n> action_completed a 5; bytes 3000000\n> action_completed b 1")
    found = _inputs(GATHERED.replace("HANDED", HANDED), [*events])
    assert found["c"] == {"s": "FAILED", "e": TOO_LARGE, "d": None}


@pytest.mark.parametrize("story", ['> action_failed a "boom"', "> action_completed a 5; bytes 3000000"])
def test_a_fork_keeps_a_failure(story: str) -> None:
    """A refused result does not become data, and the error stays the same."""
    own = playbook(_chain())
    source = history_of(own, f"> execution_start\n{story}\n> action_completed b 1")
    plan = plan_fork(source, "c", values={"b": 2})
    taken = [(one["step"], one["status"]) for one in plan.document["results"]]
    assert taken == [("a", "FAILED"), ("b", "COMPLETED")]
    error = source.turns[1].events[0].error
    arrival = plan.document["state"]["hold"]["kept"][0]
    assert arrival["inputs"] == {"s": "FAILED", "e": error, "d": None}
    again = plan_fork(fork_history(source, plan), "c", values={"b": 3})
    assert again.document["state"]["hold"]["kept"][0]["inputs"] == arrival["inputs"]


def test_a_fork_keeps_a_result_whose_transition_failed() -> None:
    """The action did not fail. A better playbook continues from its result."""
    body = """
    workflow:
    - {step: start, next: a}
    - {step: a, type: python, code: x, next: [{step: b, args: {v: "{{ a.v | default(a.nothing) }}"}}]}
    - {step: b, type: python, code: x}
    """
    source = history_of(playbook(body), "> execution_start\n> action_completed a 5")
    plan = plan_fork(source, "b", playbook=playbook(body.replace("a.v | default(a.nothing)", "a")))
    assert plan.document["results"] == [{"step": "a", "visit": 1, "status": "COMPLETED", "name": 2}]


@pytest.mark.parametrize(
    "event, retried",
    [
        (Event("action_failed", "a", 1, result={"code": "busy"}, error={"message": "m"}), False),
        (Event("action_failed", "a", 1, result={"code": "busy"}, error={"message": "m"}, bytes_over=3_000_000), True),
        (Event("action_completed", "a", 1, result={"code": "busy"}, bytes_over=3_000_000), True),
        (Event("action_completed", "a", 1, result={"code": "busy"}, broken=True), True),
    ],
)
def test_a_retry_condition_reads_no_refused_result(event: Event, retried: bool) -> None:
    """A replay may have the result and must decide as without it."""
    more = 'retry: {max_attempts: 2, jitter: false, retry_when: "{{ result is none }}"}'
    [start] = read_events("> execution_start")
    *_, (_, decision, _) = play_turns(playbook(_chain(more)), [start, event])
    assert (decision.events[0].type == "action_retry") is retried

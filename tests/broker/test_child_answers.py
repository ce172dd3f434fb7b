"""Answers of children: results, failures, and children that cannot start."""

from __future__ import annotations

import json

import pytest

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.decision import ExecutionEnd
from noetl_broker.broker.model.effects import ItemsCancelled, JobChanged
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import Parent
from noetl_broker.broker.work.children import error_of_child
from noetl_broker.history.story import STORY_START, play_turns, read_events
from tests.stories import assert_story, playbook

CALL = """
workflow:
- {step: start, next: a}
- {step: a, type: playbook, path: p, retry: {max_attempts: 3, jitter: false, RETRY}}
"""


def test_a_child_is_started_once_for_each_attempt() -> None:
    """Duplicate answers change nothing. No child runs during the delay of a retry."""
    assert_story(
        CALL.replace("RETRY", "retry_when: 'attempt < 2'"),
        """
        > execution_start
            event step_started a
            child a p
        > child_due a  (not_open)
        > action_failed a {"message": "no"}
            event action_retry a "no"
            delegated a 1 s
            cancel items of a
        > action_failed a {"message": "timeout"}  (duplicate)
        > action_completed a 1; attempt 1  (duplicate)
        > child_due a
            child a p
        > child_due a  (duplicate)
        > action_failed a {"message": "no again"}
            event step_failed a "no again"
            event execution_failed "no again"
            dead  a
            cancel items of a
            cancel all work
        """,
    )


@pytest.mark.parametrize(
    "retry, error, again",
    [
        ("initial_delay: 1", {"message": "no"}, True),
        ("retry_when: status_code >= 500", {"message": "no", "status_code": 503}, True),
        ("retry_when: status_code >= 500", {"message": "no", "status_code": 404}, False),
        ("stop_when: \"'quota' in error\"", {"message": "the quota is used up"}, False),
        ("retry_when: nothing.here", {"message": "no"}, False),
    ],
)
def test_retry_conditions_read_the_error_of_a_child(retry: str, error: JSON, *, again: bool) -> None:
    """`retry_when` and `stop_when` read the error of the child's action."""
    events = read_events(f"> execution_start\n> action_failed a {json.dumps(error)}")
    *_, (_, decision, _) = play_turns(playbook(CALL.replace("RETRY", retry)), events)
    assert [change.status for change in decision.of(JobChanged)] == ["delegated" if again else "dead"]


@pytest.mark.parametrize(
    "status, error, expected",
    [
        ("FAILED", {"step": "a", "message": "no"}, {"message": "no", "type": "child_failed", "child_step": "a"}),
        (
            "FAILED",
            {"step": "a", "message": "busy", "type": "HTTPError", "status_code": 503},
            {"message": "busy", "type": "HTTPError", "status_code": 503, "child_step": "a"},
        ),
        ("FAILED", {"message": "no", "type": None}, {"message": "no", "type": "child_failed", "child_step": None}),
        ("FAILED", {"message": "x", "type": "deadline"}, {"message": "x", "type": "deadline", "child_step": None}),
        (
            "FAILED",
            {"step": "a", "message": "no x", "template": "{{ x }}", "at": "workflow[1]"},
            {
                "message": "no x", "template": "{{ x }}", "type": "child_failed", "child_step": "a",
                "child_at": "workflow[1]",
            },
        ),
        ("CANCELLED", {"message": "why not"}, {"message": "why not", "type": "child_cancelled", "child_step": None}),
        ("FAILED", {}, {"message": "the child failed", "type": "child_failed", "child_step": None}),
        (
            "FAILED",
            {"step": "b", "message": "no", "type": "timeout", "child_step": "a", "child_execution_id": 9},
            {"message": "no", "type": "timeout", "child_step": "b"},
        ),
    ],
)  # fmt: skip
def test_a_child_error_keeps_the_type_of_its_cause(
    status: str, error: dict[str, JSON], expected: dict[str, JSON]
) -> None:
    """The error has the step of the child, and a type if the cause has one."""
    assert error_of_child(7, ExecutionEnd(status, None, error)) == {**expected, "child_execution_id": 7}


VERSION = "the version of a playbook must be a whole number from 1 to 2147483647, it is"


@pytest.mark.parametrize(
    "call, message",
    [
        ("path: '{{ 5 }}'", "the path of a playbook must be text, it is 5"),
        ("path: \"{{ '' }}\"", 'the path of a playbook must be text, it is ""'),
        ("path: p, version: \"{{ 'three' }}\"", f'{VERSION} "three"'),
        ("path: p, version: '{{ 0 }}'", f"{VERSION} 0"),
        ("path: p, version: '{{ 1.5 }}'", f"{VERSION} 1.5"),
        ("path: p, version: '{{ 3000000000 }}'", f"{VERSION} 3000000000"),
        ("path: p, return_step: '{{ 7 }}'", "the return_step of a playbook must be text, it is 7"),
        ("path: p, return_step: '{{ [] }}'", "the return_step of a playbook must be text, it is []"),
    ],
)
def test_a_bad_path_or_version_of_a_child_fails_the_step(call: str, message: str) -> None:
    """No child starts."""
    assert_story(
        f"""
        workflow:
        - {{step: start, next: a}}
        - {{step: a, type: playbook, on_error: continue, {call}}}
        """,
        f"""
        > execution_start
            event step_started a
            event step_failed a {json.dumps(message)}
            event execution_failed {json.dumps(message)}
            cancel all work
        """,
    )


@pytest.mark.parametrize(
    "parent, ended",
    [
        ({"depth": 1, "attempt": 1}, ExecutionEnd("COMPLETED", {"a": 1, "b": None}, answer={"a": 1, "b": None})),
        ({"depth": 1, "attempt": 1, "return_step": "a"}, ExecutionEnd("COMPLETED", {"a": 1, "b": None}, answer=1)),
        ({"depth": 1, "attempt": 1, "return_step": "b"}, ExecutionEnd("COMPLETED", {"a": 1, "b": None}, answer=None)),
        (
            {"depth": 1, "attempt": 1, "return_step": "start"},
            ExecutionEnd("COMPLETED", {"a": 1, "b": None}, answer=None),
        ),
        (
            {"depth": 1, "attempt": 1, "return_step": "c"},
            ExecutionEnd(
                "FAILED",
                error={
                    "message": "the parent asks for the data of step c; playbook story has no step of that name",
                    "type": "return_step",
                },
            ),
        ),
    ],
)
def test_return_step_selects_the_answer_of_a_child(parent: JSON, ended: ExecutionEnd) -> None:
    """Null if the step did not run. An unknown step fails the child at its start."""
    compiled = playbook(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "a > 5", step: b}, {else: [end]}]}
        - {step: b, type: python, code: x, next: end}
        - {step: end, result: {a: "{{ a }}", b: "{{ b | default(none) }}"}}
        """
    )
    first, *rest = read_events("> execution_start\n> action_completed a 1")
    events = [first._replace(meta={"parent": parent}), *rest]
    endings = [decision.ended for _, decision, _ in play_turns(compiled, events) if decision.ended is not None]
    assert endings == [ended]


@pytest.mark.parametrize("back", [{}, {"return_step": "a"}])
def test_an_answer_that_looks_like_an_envelope_is_wrapped(back: dict[str, JSON]) -> None:
    """The parent unwraps it once and finds the whole answer."""
    gave = {"id": 2, "status": "error", "data": {"n": 2}}
    child = playbook("workflow:\n- {step: start, next: a}\n- {step: a, type: python, code: x}")
    first, *rest = read_events(f"> execution_start\n> action_completed a {json.dumps({'data': gave})}")
    events = [first._replace(meta={"parent": {"depth": 1, "attempt": 1, **back}}), *rest]
    *_, (_, decision, _) = play_turns(child, events)
    assert decision.ended == ExecutionEnd("COMPLETED", gave, answer={"data": gave})
    assert_story(
        """
        workflow:
        - {step: start, next: call}
        - {step: call, type: playbook, path: p, next: [{when: "call.id == 2 and call.status == 'error'", step: b}]}
        - {step: b, type: python, code: x, args: {got: "{{ call }}", n: "{{ call.data.n }}"}}
        """,
        f"""
        > execution_start
            event step_started call
            child call p
        > action_completed call {json.dumps(decision.ended.answer)}
            event step_completed call
            event step_started b
            job   b {json.dumps({"got": gave, "n": 2})}
        """,
    )


@pytest.mark.parametrize(
    "body", ["workload: {a: '{{ nothing.b }}'}\nworkflow: [{step: start}]", "workflow: [{step: start}]"]
)
def test_the_answer_of_a_child_that_cannot_start_names_its_attempt(body: str) -> None:
    """Without it a second failure would be a duplicate, and the parent would wait forever."""
    meta = {"parent": {"depth": 2, "attempt": 2, "return_step": "nowhere"}}
    start = Event("execution_start", context={"workload": {}}, meta=meta)
    [(_, decision, state)] = play_turns(playbook(body), [start])
    assert (decision.ended and decision.ended.status, state.parent) == ("FAILED", Parent(2, "nowhere", 2))
    session = Session("no such playbook")
    decision = session.apply(start, STORY_START)
    assert (decision.ended and decision.ended.status, session.state.parent) == ("FAILED", Parent(2, "nowhere", 2))


def test_an_answer_of_an_operator_cancels_the_child() -> None:
    """No step waits for that child."""
    events = [*read_events("> execution_start\n> action_completed a 1")]
    by_hand = [events[0], events[1]._replace(meta={})]
    by_child = [events[0], events[1]._replace(meta={"child_execution_id": 7, "attempt": 1})]
    compiled = playbook(CALL.replace("RETRY", ""))
    abandoned = [[*play_turns(compiled, events)][-1][1].of(ItemsCancelled) for events in (by_hand, by_child)]
    assert abandoned == [[("a", 1)], []]


def test_an_answer_of_an_operator_completes_the_step_during_the_delay_of_a_retry() -> None:
    """The child is not started again."""
    assert_story(
        CALL.replace("RETRY", "initial_delay: 1"),
        """
        > execution_start
            event step_started a
            child a p
        > action_failed a {"message": "no"}; attempt 1
            event action_retry a "no"
            delegated a 1 s
            cancel items of a
        > action_completed a 1
            event step_completed a
            event execution_complete 1
        > child_due a; attempt 2  (after_end)
        """,
    )

"""What a child answers, and what its parent makes of it: results, failures, and starts that cannot be."""

from __future__ import annotations

import json

import pytest

from noetl_broker.broker.children import error_of_child
from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn_or_reject
from noetl_broker.broker.model import JSON, Ended, Event, Rules, Turn
from noetl_broker.broker.state import ExecutionState, Parent
from noetl_broker.broker.story import STORY_START, play_turns, read_events
from tests.stories import assert_story, playbook

CALL = """
workflow:
- {step: start, next: a}
- {step: a, type: playbook, path: p, retry: {max_attempts: 3, jitter: false, RETRY}}
"""


def test_a_child_is_started_once_for_each_attempt() -> None:
    """What is said twice is heard once; while the pause lasts no child runs, so nobody can answer for one."""
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
            abandon a
        > action_failed a {"message": "timeout"}  (duplicate)
        > action_completed a 1  (duplicate)
        > child_due a
            child a p
        > child_due a  (duplicate)
        > action_failed a {"message": "no again"}
            event step_failed a "no again"
            event execution_failed "no again"
            dead  a
            abandon a
            withdraw
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
def test_the_error_of_a_child_is_read_as_that_of_any_action(retry: str, error: JSON, *, again: bool) -> None:
    """By `retry_when` and `stop_when`, with what the child's own action reported."""
    events = read_events(f"> execution_start\n> action_failed a {json.dumps(error)}")
    *_, (_, decision, _) = play_turns(playbook(CALL.replace("RETRY", retry)), events)
    assert [change.status for change in decision.changes] == ["delegated" if again else "dead"]


@pytest.mark.parametrize(
    "status, error, told",
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
def test_the_error_of_a_child_is_that_of_its_cause(status: str, error: dict[str, JSON], told: dict[str, JSON]) -> None:
    """With its type, if it has one; the step is named as the child's."""
    assert error_of_child(7, Ended(status, None, error)) == {**told, "child_execution_id": 7}


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
def test_a_child_that_cannot_be_named_fails_the_step(call: str, message: str) -> None:
    """Before anything starts."""
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
            withdraw
        """,
    )


@pytest.mark.parametrize(
    "told, ended",
    [
        ({"depth": 1, "attempt": 1}, Ended("COMPLETED", {"a": 1, "b": None}, answer={"a": 1, "b": None})),
        ({"depth": 1, "attempt": 1, "return_step": "a"}, Ended("COMPLETED", {"a": 1, "b": None}, answer=1)),
        ({"depth": 1, "attempt": 1, "return_step": "b"}, Ended("COMPLETED", {"a": 1, "b": None}, answer=None)),
        ({"depth": 1, "attempt": 1, "return_step": "start"}, Ended("COMPLETED", {"a": 1, "b": None}, answer=None)),
        (
            {"depth": 1, "attempt": 1, "return_step": "c"},
            Ended(
                "FAILED",
                error={
                    "message": "the parent asks for the data of step c; playbook story has no step of that name",
                    "type": "return_step",
                },
            ),
        ),
    ],
)
def test_the_answer_is_the_result_or_the_data_of_a_step(told: JSON, ended: Ended) -> None:
    """Null where the step did not run; a step that the playbook has not fails the child before it does anything."""
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
    events = [first._replace(meta={"parent": told}), *rest]
    endings = [decision.ended for _, decision, _ in play_turns(compiled, events) if decision.ended is not None]
    assert endings == [ended]


@pytest.mark.parametrize("back", [{}, {"return_step": "a"}])
def test_an_answer_that_looks_like_an_envelope_is_told_in_one(back: dict[str, JSON]) -> None:
    """So the parent, which unwraps it once as any result, finds what the child gave, with its `status`."""
    gave = {"id": 2, "status": "bad", "data": {"n": 2}}
    child = playbook("workflow:\n- {step: start, next: a}\n- {step: a, type: python, code: x}")
    first, *rest = read_events(f"> execution_start\n> action_completed a {json.dumps({'data': gave})}")
    events = [first._replace(meta={"parent": {"depth": 1, "attempt": 1, **back}}), *rest]
    *_, (_, decision, _) = play_turns(child, events)
    assert decision.ended == Ended("COMPLETED", gave, answer={"data": gave})
    assert_story(
        """
        workflow:
        - {step: start, next: call}
        - {step: call, type: playbook, path: p, next: [{when: "{{ call.id == 2 and call.status == 'bad' }}", step: b}]}
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
def test_however_early_a_child_fails_its_answer_says_which_start_it_was(body: str) -> None:
    """Else the second attempt's failure would pass for the first one's, and the parent would wait for ever."""
    meta = {"parent": {"depth": 2, "attempt": 2, "return_step": "nowhere"}}
    start = Event("execution_start", context={"workload": {}}, meta=meta)
    [(_, decision, state)] = play_turns(playbook(body), [start])
    assert (decision.ended and decision.ended.status, state.parent) == ("FAILED", Parent(2, "nowhere", 2))
    known = Known(Rules(), complete=True)
    state, decision = take_turn_or_reject("no such playbook", ExecutionState(), start, Turn(1, 1, STORY_START), known)
    assert (decision.ended and decision.ended.status, state.parent) == ("FAILED", Parent(2, "nowhere", 2))


def test_who_answers_in_the_place_of_a_child_has_it_given_up() -> None:
    """An operator completes the step by hand: nobody waits for the child any more, so it need not run."""
    events = [*read_events("> execution_start\n> action_completed a 1")]
    by_hand = [events[0], events[1]._replace(meta={})]
    by_child = [events[0], events[1]._replace(meta={"child_execution_id": 7, "attempt": 1})]
    compiled = playbook(CALL.replace("RETRY", ""))
    assert [[*play_turns(compiled, told)][-1][1].abandoned for told in (by_hand, by_child)] == [(("a", 1),), ()]

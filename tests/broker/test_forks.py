"""Forks: what a new execution takes over of another, and how it goes on from there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.model import Event, Turn
from noetl_broker.broker.plans import plan_fork, plan_retry
from noetl_broker.broker.replay import retake
from noetl_broker.broker.state import ExecutionState
from noetl_broker.broker.story import STORY_START
from noetl_broker.errors import BrokerError, OperatorFault
from tests.forking import DIAMOND, fork_history, fork_story, history_of, told
from tests.stories import playbook

WHOLE = """
    > execution_start
    > action_completed a {"ok": true, "v": 1}
    > action_completed b {"v": 2}
    > action_completed c {"v": 3}
    > action_completed j {"v": 4}
    """


def test_a_fork_enters_its_step_alone() -> None:
    """What ran beside it is not taken over, and the join after it waits for nothing else."""
    source = history_of(
        playbook(DIAMOND),
        """
        > execution_start
        > action_completed a {"ok": true, "v": 1}
        > action_completed c {"v": 3}
        > action_completed b {"v": 2}
        """,
    )
    plan = plan_fork(source, "c")
    assert [wanted.step for wanted in plan.taken] == ["a"]
    assert (
        fork_story(source, plan, '> action_completed c {"v": 5}').splitlines()[:7]
        == told("""
        > fork
            event step_started c
            job   c {"mine": 1, "v": 1, "handed": 1}
        > action_completed c {"v": 5}
            event step_completed c
            event step_started j
            event step_failed j "`b` is undefined: no input, step with a result or workload key has that name"
    """).splitlines()
    )


def test_a_fork_from_a_join_is_handed_what_the_join_gathered() -> None:
    """All that was done before it, merged as it was."""
    source = history_of(playbook(DIAMOND), WHOLE)
    assert fork_story(source, plan_fork(source, "j")) == told("""
        > fork
            event step_started j
            job   j {"b": 2, "c": 3}
    """)


def test_a_result_given_by_hand_goes_through_transitions_and_routers() -> None:
    """The inputs that they give are rendered again."""
    source = history_of(playbook(DIAMOND), WHOLE)
    assert fork_story(source, plan_fork(source, "c", values={"a": {"v": 99}})) == told("""
        > fork
            event step_started c
            job   c {"mine": 1, "v": 99, "handed": 99}
    """)


def test_a_result_given_by_hand_goes_through_a_fork_of_a_fork() -> None:
    """The second fork knows of the way to its step only what the first one was told."""
    source = history_of(playbook(DIAMOND), WHOLE)
    fork = fork_history(source, plan_fork(source, "c"))
    assert fork_story(fork, plan_fork(fork, "c", values={"a": {"v": 99}})) == told("""
        > fork
            event step_started c
            job   c {"mine": 1, "v": 99, "handed": 99}
    """)


def test_a_step_that_was_never_reached_is_entered_with_a_result_given_by_hand() -> None:
    """The failing step is stepped over; the transition from it gives the inputs."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: b}
        - {step: b, type: python, code: x, next: [{when: "{{ b.ok }}", step: c, args: {rows: "{{ result.rows }}"}}]}
        - {step: c, type: python, code: x, args: {a: "{{ a }}"}}
        """),
        """
        > execution_start
        > action_completed a 1
        > action_failed b {"message": "boom"}
        """,
    )
    assert fork_story(source, plan_fork(source, "c", values={"b": {"rows": 3}}), "> action_completed c 5") == told("""
        > fork
            event step_started c
            job   c {"a": 1, "rows": 3}
        > action_completed c 5
            event step_completed c
            event execution_complete 5
    """)


def test_a_step_from_which_a_fork_goes_on_is_no_end_of_a_branch() -> None:
    """The branch had ended there, because its condition was false; the result is now of where it goes on."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "{{ a > 1 }}", step: b}]}
        - {step: b, type: python, code: x}
        """),
        "> execution_start\n> action_completed a 1",
    )
    assert fork_story(source, plan_fork(source, "b"), "> action_completed b 2").splitlines()[-1].strip() == (
        "event execution_complete 2"
    )


def test_a_fork_counts_visits_on() -> None:
    """Of its step, and of all: the limit is that of the execution that it comes from."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: a}
        """),
        "> execution_start\n> action_completed a 1\n> action_completed a#2 2",
    )
    plan = plan_fork(source, "a")
    assert (plan.document["total"], plan.document["visits"]) == (3, {"start": 1, "a": 2})
    assert fork_story(source, plan) == told("""
        > fork
            event step_started a#3
            job   a#3
    """)


def test_a_fork_may_go_on_in_another_playbook() -> None:
    """Its transitions give the inputs; a result of a step that it has not is left out."""
    source = history_of(playbook(DIAMOND), WHOLE)
    other = playbook("""
        workload: {n: 1, more: 2}
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: r}
        - {step: r, type: route, next: [{step: c, args: {twice: "{{ a.v * 2 }}", more: "{{ more }}"}}]}
        - {step: c, type: python, code: y, next: end}
        - {step: end, result: {a: "{{ a.v }}", c: "{{ c.v }}"}}
        """)
    plan = plan_fork(source, "c", playbook=other)
    assert (plan.left_out, [wanted.step for wanted in plan.taken]) == ((), ["a"])
    assert plan_fork(source, "end", playbook=other).left_out == ("b", "j")
    assert fork_story(
        source, plan_fork(source, "c", playbook=other), '> action_completed c {"v": 6}', playbook=other
    ) == told("""
        > fork
            event step_started c
            job   c {"twice": 2, "more": 2}
        > action_completed c {"v": 6}
            event step_completed c
            event execution_complete {"a": 1, "c": 6}
    """)


def test_a_result_of_a_step_that_the_other_playbook_has_not_is_not_handed_on() -> None:
    """The fork began with a plan that named the step, which failed it."""
    source = history_of(playbook(DIAMOND), WHOLE)
    other = playbook("workflow:\n- {step: start, next: c}\n- {step: c, type: python, code: x}")
    plan = plan_fork(source, "c", playbook=other)
    assert (plan.left_out, plan.taken) == (("a",), ())
    assert fork_story(source, plan, playbook=other).splitlines()[1].strip() == "event step_started c"


def test_a_fork_from_start_takes_over_the_workload_alone() -> None:
    """As it was, though the defaults may have changed."""
    source = history_of(playbook(DIAMOND), WHOLE.replace("execution_start", 'execution_start {"n": 5}'))
    plan = plan_fork(source, "start")
    assert plan.taken == ()
    assert fork_story(source, plan, '> action_completed a {"ok": true, "v": 1}').splitlines()[-1].strip() == (
        'job   c {"mine": 5, "v": 1, "handed": 1}'
    )


def test_a_fork_from_the_end_ends_at_once() -> None:
    """With the same result, from the results that were taken."""
    source = history_of(playbook(DIAMOND), WHOLE)
    assert fork_story(source, plan_fork(source, "end")) == told("""
        > fork
            event execution_complete {"v": 4}
    """)


def test_a_fork_of_a_running_execution_leaves_it_alone() -> None:
    """Its history so far is enough."""
    source = history_of(playbook(DIAMOND), "\n".join(WHOLE.splitlines()[:3]))
    assert plan_fork(source, "b").steps == ("b",)


@pytest.mark.parametrize(
    "step, values, complaint",
    [
        ("strat", {}, "has no step strat; did you mean `start`"),
        ("everything", {}, "has no step everything; known are: start, a, r, c, b, j, end"),
        ("j", {"starts": 1}, "has no step starts; did you mean `start`"),
        ("c", {"a": {"w": 1}}, "step c cannot be entered with these results: .*`a.v` is undefined"),
    ],
)
def test_a_fork_that_cannot_be_is_refused(step: str, values: dict[str, Any], complaint: str) -> None:
    """With what is wrong, before anything is written."""
    source = history_of(playbook(DIAMOND), WHOLE)
    with pytest.raises(OperatorFault, match=complaint):
        plan_fork(source, step, values=values)


def test_a_history_that_goes_otherwise_now_is_followed_as_far_as_it_goes() -> None:
    """A retry says so; a fork takes what was before."""
    source = history_of(
        playbook(DIAMOND),
        """
        > execution_start
        > action_completed a {"ok": true, "v": 1}
        > action_completed b {"v": 2}
        > action_failed c {"message": "boom"}
        """,
    )
    turns = list(source.turns)
    turns[2] = turns[2]._replace(outcome="duplicate", events=())
    changed = type(source)(**{name: getattr(source, name) for name in source.__slots__} | {"turns": tuple(turns)})
    with pytest.raises(BrokerError, match="its turn 3 would go otherwise"):
        plan_retry(changed)
    assert [wanted.step for wanted in plan_fork(changed, "j").taken] == ["a"]


GOOD = {
    "execution_id": 7,
    "turn": 3,
    "total": 2,
    "results": [{"step": "a", "visit": 1, "status": "COMPLETED", "event_id": 9}],
    "visits": {"start": 1, "a": 1},
    "enter": [{"visit": 1, "arc": 2, "step": "r", "result": 1, "sources": ["a"]}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"execution_id": "x"},
        {"results": None},
        {"results": [{"step": "a"}]},
        {"results": [{"step": "a", "visit": 1, "status": "odd", "event_id": 9}]},
        {"results": [{"step": "a", "visit": 1, "status": "COMPLETED", "event_id": 2**70}]},
        {"results": []},
        {"visits": {"nobody": 1}},
        {"visits": {"a": 0}},
        {"visits": [1]},
        {"visits": {"a": 2**40}},
        {"total": -1},
        {"enter": [{"visit": 1, "arc": "2", "step": "r", "result": 1}]},
        {"enter": [{"visit": 1, "arc": 2, "step": ["r"], "result": 1}]},
        {"enter": [{"visit": 1, "arc": 2, "step": "r", "result": 2}]},
        {"enter": [{"visit": 1, "arc": 2, "step": "r", "result": 1, "inputs": [1]}]},
        {"enter": [{"visit": 1, "arc": 2, "step": "r", "result": 1, "sources": [{}]}]},
        {"waiting": {"nobody": []}},
        {"end": {}},
        {"ends": [1]},
    ],
)
def test_a_fork_that_somebody_wrote_wrongly_fails_its_execution(change: dict[str, Any]) -> None:
    """Anybody may insert an execution_start."""
    for document in ({**GOOD, **change}, json.dumps(change)):
        event = Event("execution_start", context={}, meta={"fork": document})
        turn = Turn(2, 1, STORY_START)
        _, decision = take_turn(playbook(DIAMOND), ExecutionState(), event, turn, Known(complete=True))
        assert decision.ended is not None
        assert decision.ended.error is not None
        assert decision.ended.error["message"].startswith("the fork in the meta of execution_start is malformed: ")


def test_a_fork_is_retaken_from_what_it_brought_along() -> None:
    """Nothing of the execution that it comes from is needed."""
    source = history_of(playbook(DIAMOND), WHOLE)
    fork = fork_history(source, plan_fork(source, "c"), '> action_completed c {"v": 5}')
    assert [turn.decision.events for turn in retake(fork)] == [turn.events for turn in fork.turns]

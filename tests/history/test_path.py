"""The path of an execution: taken arcs and outcomes of conditions, read from its events."""

from __future__ import annotations

import pytest

from noetl_broker.history.path import Outcomes
from tests.paths import arcs_taken, path_of
from tests.stories import playbook

LOOP = """
    workflow:
    - {step: start, next: count}
    - step: count
      type: python
      code: x
      next:
      - {when: "count.n < 3", step: count}
      - {else: [end]}
    - {step: end}
"""
LOOP_STORY = """
    > execution_start
    > action_completed count {"n": 1}
    > action_completed count#2 {"n": 2}
    > action_completed count#3 {"n": 3}
"""


def test_arcs_and_foundof_a_loop_are_counted() -> None:
    """The arc back as often as it was taken, its condition as often as it was true and false."""
    trace = path_of(playbook(LOOP), LOOP_STORY).trace
    assert arcs_taken(LOOP, LOOP_STORY) == {"start -> count": 1, "count -> count": 2, "count -> end": 1}
    assert trace.outcomes == {("count", 0): Outcomes(true=2, false=1)}


def test_all_arcs_to_a_join_count_as_taken() -> None:
    """Although the event of its visit names only one of them."""
    body = """
        workflow:
        - {step: start, next: [l, r]}
        - {step: l, type: python, code: x, next: j}
        - {step: r, type: python, code: x, next: j}
        - {step: j, type: python, code: x, next: end}
        - {step: end}
    """
    story = """
        > execution_start
        > action_completed r {}
        > action_completed l {}
    """
    assert arcs_taken(body, story) == {"start -> l": 1, "start -> r": 1, "l -> j": 1, "r -> j": 1, "j -> end": 0}


CHOICE = """
    workflow:
    - {step: start, next: a}
    - step: a
      type: python
      code: x
      next_mode: exclusive
      next:
      - {step: always}
      - {when: "a.n > 2", step: large}
      - {when: "a.n > 1", step: middle, else: [small]}
      - {step: otherwise}
    - {step: always, type: python, code: x}
    - {step: large, type: python, code: x}
    - {step: middle, type: python, code: x}
    - {step: small, type: python, code: x}
    - {step: otherwise, type: python, code: x}
"""


@pytest.mark.parametrize("number,taken", [(3, {"large"}), (2, {"middle"}), (1, {"small", "otherwise"})])
def test_recorded_foundsay_which_entries_fired(number: int, taken: set[str]) -> None:
    """Entries before the first condition always fire; later ones and `else` depend on the outcomes."""
    story = f"""
        > execution_start
        > action_completed a {{"n": {number}}}
    """
    assert {arc for arc, times in arcs_taken(CHOICE, story).items() if times} == {
        "start -> a",
        "a -> always",
        *(f"a -> {step}" for step in taken),
    }


def test_a_condition_that_was_not_evaluated_has_no_outcome() -> None:
    """An exclusive choice ends with the first true condition."""
    story = """
        > execution_start
        > action_completed a {"n": 3}
    """
    assert path_of(playbook(CHOICE), story).trace.outcomes == {("a", 1): Outcomes(true=1)}


FAILURE = """
    workflow:
    - {{step: start, next: a}}
    - {{step: a, type: python, code: x, on_error: {on_error}, next: [{{when: "{condition}", step: b}}]}}
    - {{step: b, type: python, code: x, next: end}}
    - {{step: end}}
"""
FAILED = """
    > execution_start
    > action_failed a {"message": "broken"}
"""


def test_a_failed_step_takes_no_arc() -> None:
    """Its token ends with the execution."""
    body = FAILURE.format(on_error="fail", condition="a.status == 'FAILED'")
    assert arcs_taken(body, FAILED) == {"start -> a": 1, "a -> b": 0, "b -> end": 0}


def test_a_failed_step_with_on_error_continue_takes_arcs() -> None:
    """It is known as a step that went on."""
    body = FAILURE.format(on_error="continue", condition="a.status == 'FAILED'")
    assert arcs_taken(body, FAILED) == {"start -> a": 1, "a -> b": 1, "b -> end": 0}
    trace = path_of(playbook(body), FAILED).trace
    assert (trace.went_on, trace.errors["a"]) == ({"a"}, {"step": "a", "message": "broken"})


def test_a_step_whose_condition_failed_takes_no_arc() -> None:
    """Also with `on_error: continue`."""
    body = FAILURE.format(on_error="continue", condition="a.nothing.here")
    assert arcs_taken(body, FAILED)["a -> b"] == 0
    assert path_of(playbook(body), FAILED).trace.went_on == frozenset()


def test_a_failed_step_with_a_spent_token_takes_no_arc() -> None:
    """The execution continues without it, whatever its `on_error` is."""
    body = """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: j}
        - {step: b, type: python, code: x, on_error: continue, next: [{when: "{{ b.x.y }}", step: j}, {else: [j]}]}
        - {step: j, join: any, type: python, code: x}
    """
    story = "> execution_start\n> action_completed a 1\n> action_completed b {}\n> action_completed j 1"
    trace = path_of(playbook(body), story).trace
    assert (trace.went_on, [*trace.errors]) == (set(), ["b"])
    assert arcs_taken(body, story)["b -> j"] == 0


def test_retries_are_counted() -> None:
    """Each action_retry of a step."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, retry: {max_attempts: 3, jitter: false}, next: end}
        - {step: end}
    """
    story = """
        > execution_start
        > action_failed a {"message": "once"}
        > action_failed a {"message": "twice"}
        > action_completed a {}
    """
    assert path_of(playbook(body), story).trace.retries == {"a": 2}


START = """
    workload: {{kind: {kind}}}
    workflow:
    - step: start
      next:
      - {{when: "workload.kind == 'one'", step: a}}
      - {{when: "workload.kind == 'two'", step: end}}
      - {{else: [b]}}
    - {{step: a, type: python, code: x, next: end}}
    - {{step: b, type: python, code: x, next: end}}
    - {{step: end}}
"""


@pytest.mark.parametrize(
    "kind,taken,outcomes",
    [
        ("one", "start -> a", [Outcomes(true=1), Outcomes(false=1)]),
        ("two", "start -> end", [Outcomes(false=1), Outcomes(true=1)]),
        ("three", "start -> b", [Outcomes(false=1), Outcomes(false=1)]),
    ],
)
def test_foundof_a_start_without_action_follow_from_visits(kind: str, taken: str, outcomes: list[Outcomes]) -> None:
    """It leaves no event."""
    body, story = START.format(kind=kind), "> execution_start"
    assert [arc for arc, times in arcs_taken(body, story).items() if times] == [taken]
    found = path_of(playbook(body), story).trace.outcomes
    assert [found["start", 0], found["start", 1]] == outcomes


def test_an_arc_that_no_event_tells_about_is_unsure() -> None:
    """A join names one arc of several, so an arc from `start` to it may not be known."""
    body = """
        workload: {also: true}
        workflow:
        - {step: start, next: [{step: b}, {when: "workload.also", step: j}]}
        - {step: b, type: python, code: x, next: j}
        - {step: j, type: python, code: x}
    """
    before, after = "> execution_start", "> execution_start\n> action_completed b {}"
    assert arcs_taken(body, before) == {"start -> b": 1, "start -> j": 1, "b -> j": 0}
    assert arcs_taken(body, after) == {"start -> b": 1, "start -> j": None, "b -> j": 1}

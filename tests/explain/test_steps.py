"""Explains why a step ran or did not: its cause, its conditions, and where their values came from."""

from __future__ import annotations

from textwrap import dedent

import pytest

from noetl_broker.errors import OperatorFault
from noetl_broker.explain.explain import explain_step
from noetl_broker.history.fork_plan import plan_fork
from tests.explanations import facts_of, step_lines
from tests.forks import fork_history, history_of
from tests.stories import dedented, playbook

WEATHER = """
workload: {limit: 25, city: Rome}
workflow:
- {step: start, next: get}
- step: get
  type: python
  code: x
  next:
  - {when: "{{ get.temp > limit and get.ok }}", step: alert, args: {t: "{{ get.temp }}"}}
  - {when: "{{ get.temp < 0 }}", step: warm}
  - {else: [log]}
- {step: alert, type: python, code: x, next: page}
- {step: page, type: python, code: x, next: end}
- {step: warm, type: python, code: x, next: end}
- {step: log, type: python, code: x, next: end}
- {step: lonely, type: python, code: x, next: end}
- {step: end}
"""


def after(lines: int, text: str) -> str:
    """Return the text after this many lines, without indentation."""
    return dedent("\n".join(text.splitlines()[lines:]))


COLD = """
> execution_start {"limit": 26}
> action_completed get {"temp": 30, "ok": false}
"""


def test_a_step_that_ran_names_what_led_to_it() -> None:
    """The event, the condition with its values, and the inputs of the transition."""
    history = history_of(playbook(WEATHER), '> execution_start\n> action_completed get {"temp": 30, "ok": 1}')
    assert step_lines(history, "alert", jobs={}) == dedented("""
        alert of execution 1 (story version 1, RUNNING) is running
          alert is running but has no job (noetl-broker replay shows what is wrong)
          alert was entered in turn 2, at 2026-01-01 00:00:00.000Z
            get finished with action_completed (event 102, turn 2)
              the condition {{ get.temp > limit and get.ok }} was true
                get.temp > limit was true: get.temp was 30, limit was 25
                get.ok was true: get.ok was 1
                get was the result of get: action_completed (event 102, turn 2)
                limit came from the workload's defaults
            its transition passed {"t": 30}
    """)


def test_an_unwrapped_envelope_is_named() -> None:
    """At the result itself, and where a template reads it; not at data that the broker or nobody wrapped."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "{{ a.id is defined }}", step: b}]}
        - {step: b, type: python, code: x}
        """
    note = "its `data` was taken out of an envelope"
    unwrapped = history_of(
        playbook(body), '> execution_start\n> action_completed a {"id":1,"status":"error","data":{}}'
    )
    assert note in step_lines(unwrapped, "a")
    assert note in step_lines(unwrapped, "b")
    for data in ('{"id": 1, "status": "paid", "data": {}}', '{"data": {"v": 1}}'):
        plain = history_of(playbook(body), f"> execution_start\n> action_completed a {data}")
        assert "envelope" not in step_lines(plain, "a") + step_lines(plain, "b")


def test_a_step_that_never_ran_names_the_false_part_of_the_condition() -> None:
    """Parts after the false one were not evaluated."""
    history = history_of(playbook(WEATHER), '> execution_start\n> action_completed get {"temp": 3, "ok": 1}')
    assert step_lines(history, "alert") == dedented("""
        alert of execution 1 (story version 1, RUNNING) has not run
          the transition from get (when {{ get.temp > limit and get.ok }}) was not taken when get finished
            the condition {{ get.temp > limit and get.ok }} was false
              get.temp > limit was false: get.temp was 3, limit was 25
              get.ok was not evaluated
              get was the result of get: action_completed (event 102, turn 2)
              limit came from the workload's defaults
    """)


def test_a_step_after_else_names_the_false_conditions() -> None:
    """All of them."""
    history = history_of(playbook(WEATHER), COLD)
    text = step_lines(history, "log")
    assert [line.strip() for line in text.splitlines()[3:]] == [
        "get finished with action_completed (event 102, turn 2)",
        "no condition of the list was true",
        "the condition {{ get.temp > limit and get.ok }} was false",
        "get.temp > limit was true: get.temp was 30, limit was 26",
        "get.ok was false",
        "get was the result of get: action_completed (event 102, turn 2)",
        "limit came from the payload",
        "the condition {{ get.temp < 0 }} was false: get.temp was 30",
        "get was the result of get: action_completed (event 102, turn 2)",
    ]


def test_a_step_after_one_that_never_ran_is_explained_by_that_one() -> None:
    """Back to the first step that ran."""
    history = history_of(playbook(WEATHER), "> execution_start")
    assert step_lines(history, "page") == dedented("""
        page of execution 1 (story version 1, RUNNING) has not run
          the transition from alert was never decided: alert never ran
            the transition from get (when {{ get.temp > limit and get.ok }}) is not decided yet: get is still running
    """)


def test_a_step_without_transitions_to_it_is_reported() -> None:
    """It could never run."""
    history = history_of(playbook(WEATHER), "> execution_start")
    assert step_lines(history, "lonely").splitlines()[1] == "  no transition of the playbook leads to it"


def test_a_step_that_the_end_prevented_is_reported() -> None:
    """Its transition was taken, or its source did not finish."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [x, y]}
        - {step: x, type: python, code: x, args: {w: "{{ a.w }}"}, next: z}
        - {step: y, type: python, code: x}
        - {step: z, type: python, code: x}
        """
    history = history_of(playbook(body), '> execution_start\n> action_completed a {"v": 1}')
    assert step_lines(history, "y").splitlines() == [
        "y of execution 1 (story version 1, FAILED) never ran",
        "  the transition from a was taken, but the execution ended before y was entered",
    ]
    assert step_lines(history, "z").splitlines()[1] == (
        "  the transition from x was never decided: x was entered but did not finish"
    )


def test_a_spent_token_is_explained() -> None:
    """The join had run at the first arrival."""
    history = history_of(
        playbook("""
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: j}
        - {step: b, type: python, code: x, next: j}
        - {step: j, type: python, code: x, join: any}
        """),
        "> execution_start\n> action_completed a 1\n> action_completed b 2",
    )
    assert after(1, step_lines(history, "j")) == dedented("""
        j is running but has no job (noetl-broker replay shows what is wrong)
        j was entered in turn 2, at 2026-01-01 00:00:00.000Z
          a finished with action_completed (event 102, turn 2)
    """)
    assert after(5, step_lines(history, "b")) == dedented("""
        it led to j
          its token ended: join j had already run
    """)


def test_routers_before_a_step_are_explained() -> None:
    """Each with its condition, back to the action before them."""
    history = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: r}
        - {step: r, type: route, args: {n: 3}, next: [{when: "{{ result.v == 1 and n > 2 }}", step: b}]}
        - {step: b, type: python, code: x}
        """),
        '> execution_start\n> action_completed a {"v": 1}',
    )
    assert after(2, step_lines(history, "b")) == dedented("""
          b was entered in turn 2, at 2026-01-01 00:00:00.000Z
            r was passed in turn 2
              the condition {{ result.v == 1 and n > 2 }} was true
                result.v == 1 was true: result.v was 1
                n > 2 was true: n was 3
                n was an input of r
                result was the result of a: action_completed (event 102, turn 2)
              a finished with action_completed (event 102, turn 2)
    """)


def test_a_condition_that_was_not_evaluated_is_explained() -> None:
    """`exclusive` ends with the first true one; `else` needs all to be false."""
    history = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - step: a
          type: python
          code: x
          next_mode: exclusive
          next: [{when: "{{ a == 1 }}", step: b}, {when: "{{ a > 0 }}", step: c}, d]
        - {step: b, type: python, code: x}
        - {step: c, type: python, code: x}
        - {step: d, type: python, code: x}
        """),
        "> execution_start\n> action_completed a 1",
    )
    assert after(2, step_lines(history, "c")) == dedented("""
            its condition {{ a > 0 }} was not evaluated: next_mode is exclusive and an earlier condition was true
              the condition {{ a == 1 }} was true: a was 1
                a was the result of a: action_completed (event 102, turn 2)
    """)
    assert step_lines(history, "d").splitlines()[2].strip() == ("it is taken only if no condition of the list is true")


def test_a_failed_condition_names_the_undefined_value() -> None:
    """The execution failed because of it."""
    history = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "{{ b.n > 1 or a }}", step: b}]}
        - {step: b, type: python, code: x}
        """),
        "> execution_start\n> action_completed a 1",
    )
    complaint = "`b` is undefined: no input, step with a result or workload key has that name"
    assert step_lines(history, "b") == dedented(f"""
        b of execution 1 (story version 1, FAILED) never ran
          the transition from a (when {{{{ b.n > 1 or a }}}}) was not taken when a finished
            the condition {{{{ b.n > 1 or a }}}} could not be evaluated: {complaint}
              b.n > 1 could not be evaluated: {complaint}
              a was not evaluated
              b is a step without a result
    """)


def test_the_latest_visit_is_explained_and_any_other_on_request() -> None:
    """Each with the values of its own turn."""
    history = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "{{ a.n < 3 }}", step: a}]}
        """),
        '> execution_start\n> action_completed a {"n": 1}\n> action_completed a#2 {"n": 2}',
    )
    last = step_lines(history, "a").splitlines()
    assert last[0] == (
        "a#3 of execution 1 (story version 1, RUNNING) is running; it was entered 3 times (a#1 explains the first)"
    )
    assert last[4] == "      the condition {{ a.n < 3 }} was true: a.n was 2"
    assert after(1, step_lines(history, "a", 2)) == dedented("""
          a#2 was entered in turn 2, at 2026-01-01 00:00:00.000Z
            a finished with action_completed (event 102, turn 2)
              the condition {{ a.n < 3 }} was true: a.n was 1
                a was the result of a: action_completed (event 102, turn 2)
            its result is {"n": 2}, from action_completed (event 103, turn 3)
            it led to a
              the condition {{ a.n < 3 }} was true: a.n was 2
                a was the result of a#2: action_completed (event 103, turn 3)
    """)


def test_a_visit_reads_its_own_result_although_a_later_one_has_ended() -> None:
    """As its decision did."""
    history = history_of(
        playbook("""
        workflow:
        - {step: start, next: [p, q]}
        - {step: p, type: python, code: x, next: a}
        - {step: q, type: python, code: x, next: a}
        - {step: a, type: python, code: x, join: each, next: [{when: "{{ a > 5 }}", step: b}]}
        - {step: b, type: python, code: x}
        """),
        """
        > execution_start
        > action_completed p 1
        > action_completed q 2
        > action_completed a#2 7
        > action_completed a 3
        """,
    )
    assert step_lines(history, "a", 1).splitlines()[-2:] == [
        "      the condition {{ a > 5 }} was false: a was 3",
        "        a was the result of a: action_completed (event 105, turn 5)",
    ]


@pytest.mark.parametrize(
    "name, number, complaint",
    [
        ("gett", None, "playbook story has no step gett; did you mean `get`"),
        ("get", 2, "step get has no visit 2: it was visited 1 times"),
        ("warm", 1, "step warm has no visit 1: it was never visited"),
    ],
)
def test_an_unknown_step_or_visit_is_refused(name: str, number: int | None, complaint: str) -> None:
    """An unknown step or visit is refused."""
    history = history_of(playbook(WEATHER), "> execution_start")
    with pytest.raises(OperatorFault, match=complaint):
        explain_step(history, facts_of(history), name, number)


def test_a_step_that_a_fork_took_over_names_its_result() -> None:
    """And the execution that it was forked from."""
    source = history_of(playbook(WEATHER), COLD)
    fork = fork_history(source, plan_fork(source, "log"))
    assert step_lines(fork, "get", forked_from=1).splitlines() == [
        "get of execution 2 (story version 1, RUNNING) was done before the fork, in execution 1",
        "  the result of get: taken over by this fork (event 101)",
    ]
    assert step_lines(fork, "log", forked_from=1).splitlines()[3] == (
        "    this execution continues 1, where get led to it"
    )
    assert step_lines(fork, "alert", forked_from=1).splitlines()[1].endswith("get was done before the fork")


def test_a_turn_that_this_version_decides_differently_is_reported() -> None:
    """The turns before it are explained."""
    source = history_of(playbook(WEATHER), COLD)
    turns = (*source.turns[:1], source.turns[1]._replace(outcome="duplicate", events=()))
    changed = type(source)(**{name: getattr(source, name) for name in source.__slots__} | {"turns": turns})
    assert step_lines(changed, "get").splitlines()[-1] == (
        "  this version decides turn 2 differently (noetl-broker replay shows how)"
    )


def test_an_explanation_is_one_json_object() -> None:
    """Each sentence with its kind and its facts."""
    history = history_of(playbook(WEATHER), COLD)
    document = explain_step(history, facts_of(history), "warm").as_json()
    assert (document["kind"], document["facts"]["step"], document["facts"]["status"]) == ("step", "warm", "RUNNING")
    (arc,) = document["because"]
    assert (arc["kind"], arc["facts"]["from"], arc["facts"]["condition"]) == ("not_taken", "get", "{{ get.temp < 0 }}")
    (condition,) = arc["because"]
    assert (condition["kind"], condition["facts"]["outcome"]) == ("condition", False)
    assert condition["facts"]["reads"] == [{"text": "get.temp", "value": 30}]
    (result,) = condition["because"]
    assert (result["kind"], result["facts"]["event_id"], result["facts"]["turn"]) == ("result", 102, 2)

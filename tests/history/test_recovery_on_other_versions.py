"""A retry on another version of the playbook: where that version decides the same up to the failure."""

from __future__ import annotations

import pytest

from noetl_broker.history.recovery_plan import OtherWay, plan_recovery
from tests.forks import DIAMOND, fork_history, fork_story, history_of
from tests.stories import dedented, playbook

LINE = """
workflow:
- {step: start, next: fetch}
- {step: fetch, type: python, code: x, next: [{when: "{{ fetch.n > 1 }}", step: load, args: {m: "{{ fetch.n }}"}}]}
- {step: load, type: python, code: x, next: end}
- {step: end}
"""
FAILED_LOAD = """
> execution_start
> action_completed fetch {"n": 3}
> action_failed load {"message": "boom"}
"""


def on_version(before: str, story: str, *changes: tuple[str, str], then: str = "") -> str:
    """The story of the retry on a version with these changes, or why there is none."""
    source, text = history_of(playbook(before), story), before
    for was, instead in changes:
        assert was in text
        text = text.replace(was, instead)
    onto = playbook(text)
    try:
        plan = plan_recovery(source, onto=onto)
    except OtherWay as fault:
        return str(fault)
    return fork_story(source, plan, then, playbook=onto)


def test_it_continues_with_the_inputs_of_the_other_version() -> None:
    """The corrected transition gives the failed step other inputs; the results so far stay."""
    assert on_version(
        LINE,
        FAILED_LOAD,
        ('{m: "{{ fetch.n }}"}', '{m: "{{ fetch.n + 1 }}", why: fixed}'),
        then='> action_completed load {"ok": true}',
    ) == dedented("""
        > fork
            event step_started load
            job   load {"m": 4, "why": "fixed"}
        > action_completed load {"ok": true}
            event step_completed load
            event execution_complete {"ok": true}
    """)


def test_it_restores_joins_and_open_steps() -> None:
    """Branch c failed, b is done and waits at the join; the new version inserts a step after the join."""
    assert on_version(
        DIAMOND,
        """
        > execution_start
        > action_completed a {"ok": true, "v": 1}
        > action_completed b {"v": 2}
        > action_failed c {"message": "boom"}
        """,
        ("next: end}\n", "next: more}\n- {step: more, type: python, code: x, next: end}\n"),
        ('args: {v: "{{ a.v }}", ', 'args: {v: "{{ a.v * 10 }}", '),
        then='> action_completed c {"v": 3}\n> action_completed j {"v": 4}',
    ) == dedented("""
        > fork
            event step_started c
            job   c {"mine": 1, "v": 10, "handed": 1}
        > action_completed c {"v": 3}
            event step_completed c
            event step_started j
            job   j {"b": 2, "c": 3}
        > action_completed j {"v": 4}
            event step_completed j
            event step_started more
            job   more
    """)


def test_a_template_error_of_the_failed_turn_may_be_mended() -> None:
    """The step could not be entered; tokens on arcs that were not delivered are delivered."""
    assert on_version(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{step: x, args: {v: 1}}, y]}
        - {step: x, type: python, code: x, args: {w: "{{ a.w }}"}}
        - {step: y, type: python, code: x}
        """,
        """
        > execution_start
        > action_completed a {"v": 1}
        """,
        ("{{ a.w }}", "{{ a.v }}"),
    ) == dedented("""
        > fork
            event step_started x
            event step_started y
            job   x {"w": 1, "v": 1}
            job   y
    """)


@pytest.mark.parametrize(
    "was, instead, why",
    [
        ("fetch.n > 1", "fetch.n > 5", "turn 2, step fetch: starts load → ends COMPLETED, because"),
        ("step: start, next: fetch", "step: start, next: load", "turn 1, step start: starts fetch → starts load"),
        ("{step: load, type: python", "{step: load, type: python, args: {k: '{{ no.where }}'}", "turn 2, step load: "),
    ],
    ids=["another condition", "another step", "an error before"],
)
def test_another_way_before_the_failure_is_named(was: str, instead: str, why: str) -> None:
    """With the turn, the step and what differs."""
    assert why in on_version(LINE, FAILED_LOAD, (was, instead))


def test_another_way_in_the_failed_turn_is_named() -> None:
    """The transition to the step that could not be entered is gone."""
    found = on_version(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "{{ a.v }}", step: x}, y]}
        - {step: x, type: python, code: x, args: {w: "{{ a.w }}"}}
        - {step: y, type: python, code: x}
        """,
        """
        > execution_start
        > action_completed a {"v": 1}
        """,
        ('when: "{{ a.v }}"', 'when: "{{ a.v > 1 }}"'),
    )
    assert found == (
        "turn 2, step x: starts x → does not come to it, because {{ a.v > 1 }} is false, {{ a.v }} was true"
    )


def test_a_handled_failure_is_retried() -> None:
    """The new version goes on after the failure; the retry runs the failed step again."""
    assert on_version(
        LINE, FAILED_LOAD, ("step: load, type: python", "step: load, type: python, on_error: continue")
    ) == (
        dedented("""
        > fork
            event step_started load
            job   load {"m": 3}
        """)
    )


def test_a_handled_failure_is_retried_beside_open_visits() -> None:
    """The new version would go on with the others; the retry runs all of them again."""
    source = history_of(playbook(DIAMOND), '> execution_start\n> action_failed a {"message": "boom"}')
    onto = playbook(DIAMOND.replace("step: a, type: python", "step: a, type: python, on_error: continue"))
    assert plan_recovery(source, onto=onto).steps == ("b", "a")


def test_a_step_whose_mended_failure_completes_the_execution_is_begun_again() -> None:
    """The turn that failed would complete on the new version; what came after the step has not happened."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: r}
        - {step: r, type: route, next: [{when: "{{ a.w }}", step: end}]}
        - {step: end}
        """
    source, onto = history_of(playbook(body), "> execution_start\n> action_completed a 1"), body.replace("a.w", "a")
    plan = plan_recovery(source, onto=playbook(onto))
    assert (plan.steps, plan.document["visits"], plan.document["state"]["total"]) == (("r",), {"start": 1, "a": 1}, 2)


def test_a_retry_of_a_retry_continues_on_another_version() -> None:
    """What the first retry took over keeps its inputs: the visits that it came from are in the other history."""
    source = history_of(playbook(LINE), FAILED_LOAD)
    again = fork_history(source, plan_recovery(source), '> action_failed load {"message": "again"}')
    onto = playbook(LINE.replace("step: load, type: python, code: x", "step: load, type: python, code: y"))
    assert fork_story(again, plan_recovery(again, onto=onto), playbook=onto) == dedented("""
        > fork
            event step_started load
            job   load {"m": 3}
    """)


ROUTED = """
workflow:
- {step: start, next: first}
- {step: first, type: route, next: fetch}
- {step: fetch, type: python, code: x, next: load}
- {step: load, type: python, code: x, args: {k: "{{ nothing }}"}}
"""


@pytest.mark.parametrize(
    "was, instead, lacks",
    [
        ("code: x, next: load", "code: x, next: first", "the playbook has no transition from fetch to load"),
        ("first", "other", "the playbook has no step first"),
    ],
)
def test_a_retry_needs_the_steps_and_transitions_of_what_it_took_over(was: str, instead: str, lacks: str) -> None:
    """The first retry fails in its first turn, so no turn before it could differ."""
    source = history_of(playbook(ROUTED), '> execution_start\n> action_completed fetch {"n": 3}')
    again = fork_history(source, plan_recovery(source))
    with pytest.raises(OtherWay, match=f"turn 1: on the other version, {lacks}"):
        plan_recovery(again, onto=playbook(ROUTED.replace(was, instead)))


def test_a_retry_on_another_version_finds_its_arcs_by_name() -> None:
    """What the first retry took over waits at a join, for an arc that has another number."""
    failed = '> execution_start\n> action_completed a {"ok": true, "v": 1}\n> action_completed b {"v": 2}\n'
    source = history_of(playbook(DIAMOND), failed + '> action_failed c {"message": "boom"}')
    again = fork_history(source, plan_recovery(source), '> action_failed c {"message": "boom"}')
    onto = playbook(DIAMOND.replace("- {step: start, next: [a, b]}", "- {step: start, next: [b, a]}\n- {step: more}"))
    plan = plan_recovery(again, onto=onto)
    assert plan.document["state"]["waiting"]["j"][0]["arc"] == ["b", 0, False]
    story = fork_story(again, plan, '> action_completed c {"v": 3}', playbook=onto)
    assert story.splitlines()[-1].strip() == 'job   j {"b": 2, "c": 3}'


def test_a_start_that_failed_starts_on_the_other_version() -> None:
    """Its workload could not be made."""
    source = history_of(playbook('workload: {n: "{{ workload.x }}"}' + LINE), '> execution_start {"k": 1}')
    onto = playbook(LINE)
    assert fork_story(source, plan_recovery(source, onto=onto), playbook=onto) == dedented("""
        > fork
            event step_started fetch
            job   fetch
    """)

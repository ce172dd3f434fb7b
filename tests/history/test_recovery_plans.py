"""A retry of a failed execution: open visits, tokens on arcs and tokens at joins are restored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from noetl_broker.broker.model.rules import Rules
from noetl_broker.history.recovery_plan import plan_recovery
from tests.forks import DIAMOND, fork_history, fork_story, history_of
from tests.stories import dedented, playbook


def test_a_retry_continues_from_the_failed_step_with_earlier_results() -> None:
    """With the tokens at the join, the carried result and the workload."""
    source = history_of(
        playbook(DIAMOND),
        """
        > execution_start {"n": 7}
        > action_completed a {"ok": true, "v": 1}
        > action_completed b {"v": 2}
        > action_failed c {"message": "boom"}
        """,
    )
    assert fork_story(
        source,
        plan_recovery(source),
        """
        > action_completed c {"v": 3}
        > action_completed j {"v": 4}
        """,
    ) == dedented("""
        > fork
            event step_started c
            job   c {"mine": 7, "v": 1, "handed": 1}
        > action_completed c {"v": 3}
            event step_completed c
            event step_started j
            job   j {"b": 2, "c": 3}
        > action_completed j {"v": 4}
            event step_completed j
            event execution_complete {"v": 4}
    """)


def test_a_retry_of_a_retry_keeps_tokens_that_were_on_arcs() -> None:
    """The first retry fails at once with the same error."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [x, y]}
        - {step: x, type: python, code: x, args: {w: "{{ a.w }}"}}
        - {step: y, type: python, code: x}
        """),
        """
        > execution_start
        > action_completed a {"v": 1}
        """,
    )
    again = fork_history(source, plan_recovery(source))
    assert again.ended is not None
    assert again.ended.status == "FAILED"
    plan = plan_recovery(again)
    assert plan.steps == ("x",)
    assert [arrival["step"] for arrival in plan.document["state"]["hold"]["kept"]] == ["x", "y"]
    assert [result["name"] for result in plan.document["results"]] == [-101]


def test_a_retry_after_a_deadline_restarts_all_open_visits() -> None:
    """No step has failed."""
    source = history_of(
        playbook(DIAMOND, metadata="deadline: 5"),
        """
        > execution_start
        > action_completed a {"ok": true, "v": 1}
        > execution_deadline
        """,
    )
    assert plan_recovery(source).steps == ("b", "c")


def test_an_execution_without_a_workload_starts_again() -> None:
    """It failed before its workload was made."""
    source = history_of(playbook("workload: {a: '{{ nothing }}'}\nworkflow: [{step: start, next: end}, {step: end}]"),
                        "> execution_start")  # fmt: skip
    plan = plan_recovery(source)
    assert (plan.steps, plan.taken) == (("start",), ())


@pytest.mark.parametrize("z, handed", [("z, type: python", ""), ("z, join: each, type: python", "#2")])
def test_a_retry_after_max_fan_out_takes_every_transition(z: str, handed: str) -> None:
    """No visit failed, so an earlier visit of the same step stays done."""
    before = "z" if handed else "a"
    body = f"""
    workflow:
    - {{step: start, next: {before}}}
    - {{step: a, type: python, code: x, next: [x, y, z]}}
    - {{step: x, type: python, code: x}}
    - {{step: y, type: python, code: x}}
    - {{step: {z}, code: x, next: [{{when: "{{{{ z == 1 }}}}", step: a}}]}}
    """
    answers = "".join(f"> action_completed {step} 1\n" for step in dict.fromkeys((before, "a")))
    source = history_of(playbook(body), f"> execution_start\n{answers}", rules=Rules(max_fan_out=2))
    assert source.ended is not None
    assert (source.ended.error or {}).get("type") == "max_fan_out"
    assert fork_story(replace(source, rules=Rules()), plan_recovery(source), "") == dedented(f"""
        > fork
            event step_started x
            event step_started y
            event step_started z{handed}
            job   x
            job   y
            job   z{handed}
    """)


def test_visits_that_are_begun_again_are_no_fan_out() -> None:
    """There may be more of them than one turn may start."""
    body = """
    workflow:
    - {step: start, next: [a, b]}
    - {step: a, type: python, code: x, next: [c, d]}
    - {step: b, type: python, code: x}
    - {step: c, type: python, code: x}
    - {step: d, type: python, code: x}
    """
    story = '> execution_start\n> action_completed a 1\n> action_failed d {"message": "no"}'
    source = history_of(playbook(body), story, rules=Rules(max_fan_out=2))
    fork = fork_history(source, plan_recovery(source))
    assert (fork.ended, [event.step for event in fork.turns[0].events]) == (None, ["b", "c", "d"])


def test_an_end_that_failed_is_not_reached() -> None:
    """It was reached before, and its second visit failed."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: end}
        - {step: b, type: python, code: x, next: end}
        - {step: end, join: each, args: {y: "{{ 1 / result }}"}}
        """),
        "> execution_start\n> action_completed a 1\n> action_completed b 0",
    )
    plan = plan_recovery(source)
    assert (plan.steps, "end_reached" in plan.document["state"]) == (("end",), False)


def test_an_action_may_fail_like_a_join_that_got_too_few() -> None:
    """It is run again: the error of a worker may have any type."""
    source = history_of(
        playbook(DIAMOND), '> execution_start\n> action_failed a {"message": "no", "type": "need_not_met"}'
    )
    assert plan_recovery(source).steps == ("b", "a")


@pytest.mark.parametrize("rules", [Rules(max_fan_out=2), Rules(max_turns=2)])
def test_a_handled_failure_in_the_turn_that_broke_a_limit_is_not_retried(rules: Rules) -> None:
    """The tokens that it produced are taken over once."""
    body = """
    workflow:
    - {step: start, next: a}
    - {step: a, type: python, code: x, on_error: continue, next: [x, y, z]}
    - {step: x, type: python, code: x}
    - {step: y, type: python, code: x}
    - {step: z, type: python, code: x}
    """
    failure = '> action_failed a {"message": "boom"}'
    source = history_of(playbook(body), f"> execution_start\n{failure}", rules=rules)
    story = fork_story(replace(source, rules=Rules()), plan_recovery(source), "")
    assert [line.strip() for line in story.splitlines() if "step_started" in line] == [
        "event step_started x",
        "event step_started y",
        "event step_started z",
    ]


WAITS = """
    workflow:
    - {step: start, next: [late, open]}
    - {step: late, type: wait, signal: go, timeout: 1d}
    - {step: open, type: wait, for: 3d}
    """


@pytest.mark.parametrize("edit, due", [("72h", "2026-01-04T00:00:00.000001Z"), ("5d", None)])
def test_an_open_wait_keeps_its_moment_and_a_failed_one_does_not(edit: str, due: str | None) -> None:
    """The one that timed out begins anew; so does one to which the other version gives another moment."""
    timeout = '> timer_due late {"purpose": "timeout", "due_at": "2026-01-02T00:00:00.000001Z"}'
    source = history_of(playbook(WAITS), f"> execution_start\n{timeout}")
    for onto in (None, playbook(WAITS.replace("3d", edit))):
        kept = plan_recovery(source, onto=onto).document["state"]["hold"]["kept"]
        moments = {arrival["step"]: arrival.get("due") for arrival in kept}
        assert moments == {"open": due if onto is not None else "2026-01-04T00:00:00.000001Z", "late": None}


def test_a_retry_gets_the_signal_again_that_failed_its_wait() -> None:
    """The new visit may take it."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: go}
        - {step: go, type: wait, signal: go, next: {step: last, args: {half: "{{ 1 / go }}"}}}
        - {step: last, type: python, code: x}
        """),
        """
        > execution_start
        > execution_signal go {"name": "go", "key": "1", "payload": 0, "at": "now"}
        """,
    )
    assert plan_recovery(source).document["signals"] == [2]

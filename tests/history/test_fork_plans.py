"""Forks: what a new execution takes over from another one, and how it continues."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.known import Found
from noetl_broker.broker.draft.wants import want_step, want_turn
from noetl_broker.broker.model.event import Event
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.recovery_plan import plan_recovery
from noetl_broker.history.replay import replay_history
from noetl_broker.history.story import STORY_START
from noetl_broker.template import StepResult
from tests.forks import DIAMOND, fork_history, fork_story, history_of
from tests.stories import dedented, playbook

WHOLE = """
    > execution_start
    > action_completed a {"ok": true, "v": 1}
    > action_completed b {"v": 2}
    > action_completed c {"v": 3}
    > action_completed j {"v": 4}
    """


def test_a_fork_enters_only_its_step() -> None:
    """Parallel branches are not taken over, and the join after the step does not wait for them."""
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
    assert [*plan.taken] == ["a"]
    assert (
        fork_story(source, plan, '> action_completed c {"v": 5}').splitlines()[:7]
        == dedented("""
        > fork
            event step_started c
            job   c {"mine": 1, "v": 1, "handed": 1}
        > action_completed c {"v": 5}
            event step_completed c
            event step_started j
            event step_failed j "`b` is undefined: no input, step with a result or workload key has that name"
    """).splitlines()
    )


def test_a_fork_has_no_token_at_a_join() -> None:
    """Branch b waited there when the step was entered."""
    story = '> execution_start\n> action_completed b {"v": 2}\n> action_completed a {"ok": true, "v": 1}'
    plan = plan_fork(history_of(playbook(DIAMOND), story), "c")
    assert (plan.document["state"]["waiting"], [*plan.taken]) == ({}, ["a", "b"])


def test_a_fork_from_a_wait_keeps_its_moment_unless_it_is_changed() -> None:
    """Another playbook or given results begin the wait anew."""
    source = history_of(
        playbook("workflow:\n- {step: start, next: cool}\n- {step: cool, type: wait, for: 3d}"), "> execution_start"
    )
    [kept] = plan_fork(source, "cool").document["state"]["hold"]["kept"]
    [changed] = plan_fork(source, "cool", values={"start": 1}).document["state"]["hold"]["kept"]
    assert (kept["due"], "due" in changed) == ("2026-01-04T00:00:00.000001Z", False)


def test_a_fork_from_a_join_gets_the_merged_inputs_of_the_join() -> None:
    """With all results from before the join."""
    source = history_of(playbook(DIAMOND), WHOLE)
    assert fork_story(source, plan_fork(source, "j")) == dedented("""
        > fork
            event step_started j
            job   j {"b": 2, "c": 3}
    """)


@pytest.mark.parametrize("join, inputs", [("all", '{"a": 1, "b": 2}'), ("{need: 1}", '{"b": 2}')])
def test_a_fork_from_a_join_that_was_not_entered_gets_the_tokens_that_it_needs(join: str, inputs: str) -> None:
    """Of one arrival, the latest."""
    source = history_of(
        playbook(f"""
        workflow:
        - {{step: start, next: [a, b]}}
        - {{step: a, type: python, code: x, next: [{{when: "{{{{ a > 9 }}}}", step: j, args: {{a: "{{{{ a }}}}"}}}}]}}
        - {{step: b, type: python, code: x, next: [{{when: "{{{{ b > 9 }}}}", step: j, args: {{b: "{{{{ b }}}}"}}}}]}}
        - {{step: j, join: {join}, type: python, code: x}}
        """),
        "> execution_start\n> action_completed a 1\n> action_completed b 2",
    )
    assert fork_story(source, plan_fork(source, "j")).splitlines()[-1].strip() == f"job   j {inputs}"


def test_inputs_are_rendered_again_for_a_result_set_by_hand() -> None:
    """Through transitions and routers."""
    source = history_of(playbook(DIAMOND), WHOLE)
    assert fork_story(source, plan_fork(source, "c", values={"a": {"v": 99}})) == dedented("""
        > fork
            event step_started c
            job   c {"mine": 1, "v": 99, "handed": 99}
    """)


def test_a_fork_of_a_fork_renders_inputs_for_a_result_set_by_hand() -> None:
    """The second fork knows only what the first one took over."""
    source = history_of(playbook(DIAMOND), WHOLE)
    fork = fork_history(source, plan_fork(source, "c"))
    assert fork_story(fork, plan_fork(fork, "c", values={"a": {"v": 99}})) == dedented("""
        > fork
            event step_started c
            job   c {"mine": 1, "v": 99, "handed": 99}
    """)


def test_a_fork_can_skip_a_failing_step_with_a_result_set_by_hand() -> None:
    """The transition of the failing step gives the inputs."""
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
    plan = plan_fork(source, "c", values={"b": {"rows": 3}})
    assert fork_story(source, plan, "> action_completed c 5") == dedented("""
        > fork
            event step_started c
            job   c {"a": 1, "rows": 3}
        > action_completed c 5
            event step_completed c
            event execution_complete 5
    """)


def test_the_source_of_a_fork_s_step_is_no_branch_end() -> None:
    """The branch had ended there because its condition was false; the result comes from where the fork ends."""
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


def test_a_fork_continues_the_visit_counts() -> None:
    """Of its step and in total: the limits are those of the source execution."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: a}
        """),
        "> execution_start\n> action_completed a 1\n> action_completed a#2 2",
    )
    plan = plan_fork(source, "a")
    assert (plan.document["state"]["total"], plan.document["visits"]) == (3, {"start": 1, "a": 2})
    assert fork_story(source, plan) == dedented("""
        > fork
            event step_started a#3
            job   a#3
    """)


def test_a_fork_can_continue_on_another_playbook() -> None:
    """Its transitions give the inputs; results of steps that it does not have are left out."""
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
    assert (plan.left_out, [*plan.taken]) == ((), ["a"])
    assert plan_fork(source, "end", playbook=other).left_out == ("b", "j")
    assert fork_story(
        source, plan_fork(source, "c", playbook=other), '> action_completed c {"v": 6}', playbook=other
    ) == dedented("""
        > fork
            event step_started c
            job   c {"twice": 2, "more": 2}
        > action_completed c {"v": 6}
            event step_completed c
            event execution_complete {"a": 1, "c": 6}
    """)


def test_a_fork_takes_the_last_of_fewer_transitions() -> None:
    """The token had come by the second one, and the other playbook has one."""
    body = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{step: b, args: {v: 1}}, {step: b, args: {v: 2}}]}
        - {step: b, type: python, code: x, join: each}
        """
    source = history_of(playbook(body), "> execution_start\n> action_completed a 1")
    other = playbook(body.replace("[{step: b, args: {v: 1}}, {step: b, args: {v: 2}}]", "{step: b, args: {v: 3}}"))
    plan = plan_fork(source, "b", playbook=other)
    assert fork_story(source, plan, playbook=other).splitlines()[-1].strip() == 'job   b#2 {"v": 3}'


def test_a_fork_does_not_name_results_of_steps_that_its_playbook_lacks() -> None:
    """Such a name made the fork fail at its start."""
    source = history_of(playbook(DIAMOND), WHOLE)
    other = playbook("workflow:\n- {step: start, next: c}\n- {step: c, type: python, code: x}")
    plan = plan_fork(source, "c", playbook=other)
    assert (plan.left_out, plan.taken) == (("a",), ())
    assert fork_story(source, plan, playbook=other).splitlines()[1].strip() == "event step_started c"


def test_a_fork_from_start_takes_over_only_the_workload() -> None:
    """Unchanged, even if the defaults have changed."""
    source = history_of(playbook(DIAMOND), WHOLE.replace("execution_start", 'execution_start {"n": 5}'))
    plan = plan_fork(source, "start")
    assert plan.taken == ()
    assert fork_story(source, plan, '> action_completed a {"ok": true, "v": 1}').splitlines()[-1].strip() == (
        'job   c {"mine": 5, "v": 1, "handed": 1}'
    )


def test_a_fork_from_end_ends_at_once() -> None:
    """With the same result."""
    source = history_of(playbook(DIAMOND), WHOLE)
    assert fork_story(source, plan_fork(source, "end")) == dedented("""
        > fork
            event execution_complete {"v": 4}
    """)


def test_a_running_execution_can_be_forked() -> None:
    """The execution itself is not changed."""
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
def test_an_impossible_fork_is_refused(step: str, values: dict[str, Any], complaint: str) -> None:
    """With the reason, before anything is written."""
    source = history_of(playbook(DIAMOND), WHOLE)
    with pytest.raises(OperatorFault, match=complaint):
        plan_fork(source, step, values=values)


def test_a_fork_takes_only_turns_that_this_version_decides_the_same() -> None:
    """A retry refuses such a history."""
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
    with pytest.raises(BrokerError, match="this version decides turn 3 differently"):
        plan_recovery(changed)
    assert [*plan_fork(changed, "j").taken] == ["a"]


ARRIVAL = {"repeats": 1, "arc": ["a", 0, False], "step": "r", "result": 2, "sources": ["a"]}
GOOD = {
    "execution_id": 7,
    "turn": 3,
    "results": [{"step": "a", "visit": 1, "status": "COMPLETED", "event_id": 9, "name": 2}],
    "visits": {"start": 1, "a": 1},
    "state": {"total": 2, "hold": {"kept": [ARRIVAL]}},
}


def test_a_well_formed_fork_begins() -> None:
    """The cases of the next test differ from it in one thing each."""
    event = Event("execution_start", context={}, meta={"fork": GOOD})
    answers: dict[tuple[object, ...], object]
    answers = {want_step("a"): Found(1, StepResult({"ok": 1, "v": 2})), want_turn(-9): StepResult({"v": 2})}
    decision = Session(playbook(DIAMOND), answers=answers).apply(event, STORY_START)
    assert (decision.ended, [job.action["args"] for job in decision.jobs]) == (None, [{"mine": 1, "v": 2, "handed": 2}])


@pytest.mark.parametrize(
    "change",
    [
        {"execution_id": "x"},
        {"turn": -1},
        {"results": None},
        {"results": [{"step": "a"}]},
        {"results": [{"step": "a", "visit": 1, "status": "odd", "event_id": 9}]},
        {"results": [{"step": "a", "visit": 1, "status": "COMPLETED", "event_id": 2**70}]},
        {"results": [{"step": "nobody", "visit": 1, "status": "COMPLETED", "event_id": 9}]},
        {"visits": {"nobody": 1}},
        {"visits": {"a": 0}},
        {"visits": {"a": 1.5}},
        {"visits": [1]},
        {"visits": {"a": 2**40}},
        {"state": None},
        {"state": {}},
        {"state": {"total": -1}},
        {"state": {"total": 2, "waiting": {"nobody": []}}},
        {"state": {"total": 2, "end_reached": True, "end_inputs": [1]}},
        {"state": {"total": 2, "ends": [1]}},
        {"arrival": {"arc": 2}},
        {"arrival": {"arc": ["a", "x", False]}},
        {"arrival": {"arc": ["a", -5, False]}},
        {"arrival": {"arc": ["b", 0, False]}},
        {"arrival": {"step": ["r"]}},
        {"arrival": {"step": "nobody", "arc": None}},
        {"arrival": {"repeats": -1}},
        {"arrival": {"result": [1]}},
        {"arrival": {"inputs": [1]}},
        {"arrival": {"sources": [{}]}},
        {"arrival": {"spent": [1]}},
        {"arrival": {"due": "soon"}},
        {"arrival": {"items": {"total": 1, "again": "2"}}},
    ],
)
def test_a_malformed_fork_fails_its_execution(change: dict[str, Any]) -> None:
    """Any program may insert an execution_start."""
    if "arrival" in change:
        change = {"state": {"total": 2, "hold": {"kept": [ARRIVAL | change["arrival"]]}}}
    for document in ({**GOOD, **change}, json.dumps(change)):
        event = Event("execution_start", context={}, meta={"fork": document})
        decision = Session(playbook(DIAMOND)).apply(event, STORY_START)
        assert decision.ended is not None
        assert decision.ended.error is not None
        assert decision.ended.error["message"].startswith("the fork in the meta of execution_start is malformed: ")


def test_the_row_of_a_failed_step_says_so_in_a_fork() -> None:
    """Its `on_error` had continued."""
    source = history_of(
        playbook("""
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, on_error: continue, next: b}
        - {step: b, type: python, code: x}
        """),
        '> execution_start\n> action_failed a {"message": "no"}',
    )
    fork = fork_history(source, plan_fork(source, "b"))
    [turn], _ = replay_history(fork)
    assert {row.step: row.status for row in turn.decision.rows} == {
        "start": "COMPLETED", "a": "FAILED", "b": "RUNNING",
    }  # fmt: skip


def test_a_fork_is_replayed_without_its_source_execution() -> None:
    """From the results that it took over."""
    source = history_of(playbook(DIAMOND), WHOLE)
    fork = fork_history(source, plan_fork(source, "c"), '> action_completed c {"v": 5}')
    assert [turn.decision.events for turn in replay_history(fork)[0]] == [turn.events for turn in fork.turns]


def test_a_fork_keeps_the_signals_that_came_before_the_end() -> None:
    """An event that comes after the end changes nothing. The step was never entered, so all of the execution counts."""
    source = history_of(
        playbook("""
            workflow:
            - {step: start, next: [a, b]}
            - {step: a, type: python, code: x, next: paid}
            - {step: b, type: python, code: x}
            - {step: paid, type: wait, signal: payment}
            """),
        """
        > execution_start
        > execution_signal {"name": "payment", "key": "1", "payload": 5, "at": "now"}
        > action_failed a {"message": "no"}
        > action_completed b 1
        """,
    )
    assert plan_fork(source, "paid").document["signals"] == [2]


def test_a_fork_gets_the_signal_again_that_its_wait_took_at_once() -> None:
    """It was kept before, and the wait took it in the turn of its entry."""
    source = history_of(
        playbook("""
            workflow:
            - {step: start, next: a}
            - {step: a, type: python, code: x, next: paid}
            - {step: paid, type: wait, signal: payment, next: b}
            - {step: b, type: python, code: x}
            """),
        """
        > execution_start
        > execution_signal {"name": "payment", "key": "1", "payload": 5, "at": "now"}
        > action_completed a 1
        """,
    )
    assert plan_fork(source, "paid").document["signals"] == [2]


def test_a_fork_reads_the_result_of_the_last_turn() -> None:
    """The transition that was not taken hands it on."""
    body = "workflow:\n- {step: start, next: a}\n- {step: b, type: python, code: x}\n"
    body += "- {step: a, type: python, code: x, next: [{when: '{{ a > 1 }}', step: b, args: {v: '{{ result }}'}}]}\n"
    source = history_of(playbook(body), "> execution_start\n> action_completed a 1")
    assert fork_story(source, plan_fork(source, "b")).splitlines()[-1].strip() == 'job   b {"v": 1}'


def test_given_results_have_names_of_their_own() -> None:
    """The result of step a has the name of its turn."""
    body = "workflow:\n- {step: start, next: [a, x, y]}\n- {step: j, type: python, code: x}\n"
    body += "".join(f"- {{step: {step}, type: python, code: x, next: j}}\n" for step in "axy")
    source = history_of(playbook(body), "> execution_start\n> action_completed a 1")
    plan = plan_fork(source, "j", values={"x": 2, "y": 3})
    assert {one["step"]: one["name"] for one in plan.document["results"]} == {"a": 2, "x": 3, "y": 4}

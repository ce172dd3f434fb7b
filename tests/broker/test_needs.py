"""Joins that need a number of arrivals, and joins that cancel their losers."""

from __future__ import annotations

import pytest

from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.recovery_plan import plan_recovery
from tests.forks import fork_story, history_of
from tests.stories import assert_story, last_turn, lines_of, playbook

OFFERS = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x, on_error: ON, next: [{when: "{{ a.ok }}", step: best, args: {a: "{{ a.v }}"}}]}
- {step: b, type: python, code: x, next: [{when: "{{ b.ok }}", step: best, args: {b: "{{ b.v }}"}}]}
- {step: c, type: python, code: x, next: [{step: best, args: {c: "{{ c.v }}"}}]}
- {step: best, join: {need: 2, losers: LOSERS}, type: python, code: x, next: end}
- {step: end}
"""


def offers(losers: str = "run", on_error: str = "fail") -> str:
    """Return a playbook that takes the first two of three offers."""
    return OFFERS.replace("LOSERS", losers).replace("ON", on_error)


def test_a_join_runs_at_the_arrival_that_it_needs() -> None:
    """It sees the results of those that came; the third token is spent."""
    assert_story(
        offers(),
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            job   a
            job   b
            job   c
        > action_completed c {"v": 3}
            event step_completed c
        > action_completed a {"ok": true, "v": 1}
            event step_completed a
            event step_started best
            job   best {"a": 1, "c": 3}
        > action_completed best 5
            event step_completed best
        > action_completed b {"ok": true, "v": 2}
            event step_completed b
            event execution_complete 5
        """,
    )


def test_a_join_that_cancels_its_losers_cancels_their_visits() -> None:
    """The execution does not wait for them. A late answer changes nothing."""
    assert_story(
        offers("cancel"),
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            job   a
            job   b
            job   c
        > action_completed c {"v": 3}
            event step_completed c
        > action_completed a {"ok": true, "v": 1}
            event step_completed a
            event step_cancelled b
            event step_started best
            job   best {"a": 1, "c": 3}
            cancel b
        > action_completed b {"ok": true, "v": 2}  (duplicate)
        > action_completed best 5
            event step_completed best
            event execution_complete 5
        """,
    )


def test_a_join_with_too_few_arrivals_fails() -> None:
    """When no other token can reach it. The step did not start."""
    assert_story(
        offers(),
        """
        > execution_start
            event step_started a
            event step_started b
            event step_started c
            job   a
            job   b
            job   c
        > action_completed c {"v": 3}
            event step_completed c
        > action_completed a {"ok": false}
            event step_completed a
        > action_completed b {"ok": false}
            event step_completed b
            event step_failed best "join best needs 2 arrivals; 1 came, and no other token can reach it"
            event execution_failed "join best needs 2 arrivals; 1 came, and no other token can reach it"
            cancel all work
        """,
    )


def test_a_join_that_nothing_reached_does_not_fail() -> None:
    """Its step is not run, as a step of a branch that was not taken."""
    body = """
        workflow:
        - {step: start, next: [{when: "{{ workload.race }}", then: [a, b]}, {else: [c]}]}
        - {step: a, type: python, code: x, next: j}
        - {step: b, type: python, code: x, next: j}
        - {step: c, type: python, code: x}
        - {step: j, join: {need: 2}, type: python, code: x}
        """
    ended = history_of(playbook(body), '> execution_start {"race": false}\n> action_completed c 1').ended
    assert ended is not None
    assert (ended.status, ended.result) == ("COMPLETED", 1)


def test_counting_begins_anew_after_a_release() -> None:
    """Of four visits of `a`, the first two make one visit of `j`, and the others the next."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, a, a, a]}
        - {step: a, join: each, type: python, code: x, next: [{when: "{{ a != 3 }}", step: j}]}
        - {step: j, join: {need: 2}, next: b}
        - {step: b, join: each, type: python, code: x, next: [{when: "{{ b == 1 }}", then: [a, a]}]}
        """,
        """
        > execution_start
            event step_started a
            event step_started a#2
            event step_started a#3
            event step_started a#4
            job   a
            job   a#2
            job   a#3
            job   a#4
        > action_completed a 1
            event step_completed a
        > action_completed a#2 2
            event step_completed a#2
            event step_started j
            event step_completed j
            event step_started b
            job   b
        > action_completed b 1
            event step_completed b
            event step_started a#5
            event step_started a#6
            job   a#5
            job   a#6
        > action_completed a#3 3
            event step_completed a#3
        > action_completed a#5 5
            event step_completed a#5
        > action_completed a#4 4
            event step_completed a#4
        > action_completed a#6 6
            event step_completed a#6
            event step_started j#2
            event step_completed j#2
            event step_started b#2
            job   b#2
        > action_completed b#2 2
            event step_completed b#2
            event execution_complete {"b": 2}
        """.replace('{"b": 2}', "2"),
    )


def test_a_spent_token_does_not_keep_a_new_count_waiting() -> None:
    """It ends at the join, so it cannot make up the number."""
    body = """
        workflow:
        - {step: start, next: [a, b, c]}
        - {step: a, type: python, code: x, next: j}
        - {step: b, type: python, code: x, next: j}
        - {step: c, type: python, code: x, next: j}
        - {step: j, join: {need: 2}, next: d}
        - {step: d, type: python, code: x, next: j}
        """
    story = "> execution_start" + "".join(f"\n> action_completed {step} 1" for step in ("a", "b", "d"))
    ended = history_of(playbook(body), story).ended
    assert ended is not None
    assert (ended.status, ended.error["message"] if ended.error else None) == (
        "FAILED", "join j needs 2 arrivals; 1 came, and no other token can reach it",
    )  # fmt: skip


# The workflow, the events after the start, and what the last one decides.
DECIDED = {
    "an all join is released before a join with too few arrivals fails, whose number its token may make up": (
        """
        - {step: start, next: [a, b, c]}
        - {step: two, join: {need: 2}, type: python, code: x, next: [{when: "{{ two == 0 }}", step: all}]}
        - {step: a, type: python, code: x, next: two}
        - {step: b, type: python, code: x, next: all}
        - {step: c, type: python, code: x, next: all}
        - {step: all, type: python, code: x, next: two}
        """,
        "> action_completed a 1\n> action_completed b 1\n> action_completed c 1",
        """
        event step_completed c
        event step_started all
        job   all
        """,
    ),
    "the failure of a join whose tokens are spent is only recorded": (
        """
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: [race, two]}
        - {step: b, type: python, code: x, next: both}
        - {step: two, join: {need: 2}, next: [both, race]}
        - {step: both, type: python, code: x, next: [{when: "{{ both == 0 }}", step: two}]}
        - {step: race, join: any, type: python, code: x}
        """,
        "> action_completed b 1\n> action_completed a 1\n> action_completed both 1",
        """
        event step_completed both
        event step_failed two "join two needs 2 arrivals; 1 came, and no other token can reach it"
        """,
    ),
    "an end cancels all tokens, also those that cannot reach it and those that wait at joins": (
        """
        - {step: start, next: [a, b, c, d]}
        - {step: a, type: python, code: x, next: end}
        - {step: b, type: python, code: x, next: both}
        - {step: c, type: playbook, path: child, next: both}
        - {step: d, type: python, code: x}
        - {step: both, type: python, code: x}
        - {step: end, join: {need: 1, losers: cancel}, result: "{{ a }}"}
        """,
        "> action_completed b 1\n> action_completed a 2",
        """
        event step_completed a
        event step_cancelled c
        event step_cancelled d
        event execution_complete 2
        cancel c
        cancel d
        """,
    ),
    "a token on its way to the join is cancelled, and one that cannot reach it goes on": (
        """
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [b, first, c, d]}
        - {step: b, type: python, code: x, next: first}
        - {step: first, join: {need: 1, losers: cancel}, type: python, code: x}
        - {step: c, type: python, code: x, next: first}
        - {step: d, type: python, code: x}
        """,
        "> action_completed a 1",
        """
        event step_completed a
        event step_started b
        event step_cancelled b
        event step_started first
        event step_started d
        job   b
        job   first
        job   d
        cancel b
        """,
    ),
    "a cancelled iterator is cancelled with its items": (
        """
        - {step: start, next: [a, each]}
        - {step: a, type: python, code: x, next: first}
        - step: each
          type: iterator
          collection: [1, 2]
          element: one
          distribute: true
          task: {type: python, code: x}
          next: first
        - {step: first, join: {need: 1, losers: cancel}, type: python, code: x}
        """,
        "> action_completed a 1",
        """
        event step_completed a
        event step_cancelled each
        event step_started first
        job   first
        cancel each
        """,
    ),
    "waits whose ways are all spent are cancelled, also through further steps and loops": (
        """
        - {step: start, next: [a, days, poll, other]}
        - {step: a, type: python, code: x, next: first}
        - {step: days, type: wait, for: 3d, next: remind}
        - {step: remind, type: python, code: x, next: first}
        - {step: poll, join: each, type: wait, for: 1h, next: [{when: "{{ again }}", step: poll}, {else: [first]}]}
        - {step: other, type: wait, for: 1h, next: [first, log]}
        - {step: log, type: python, code: x}
        - {step: first, join: any, next: end}
        - {step: end, result: "{{ a }}"}
        """,
        "> action_completed a 2",
        """
        event step_completed a
        event step_cancelled days
        event step_cancelled poll
        event step_started first
        event step_completed first
        cancel days
        cancel poll
        """,
    ),
    "a spent wait is cancelled when it begins": (
        """
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: first}
        - {step: b, type: python, code: x, next: days}
        - {step: days, type: wait, for: 3d, next: first}
        - {step: first, join: any, next: end}
        - {step: end, result: "{{ a }}"}
        """,
        "> action_completed a 2\n> action_completed b 2",
        """
        event step_completed b
        event step_started days
        event step_cancelled days
        event execution_complete 2
        cancel days
        """,
    ),
}


@pytest.mark.parametrize("what", DECIDED)
def test_a_join_decides_about_other_tokens(what: str) -> None:
    """It cancels its losers and spent waits, and fails only if nobody else can reach it."""
    steps, events, decided = DECIDED[what]
    assert last_turn(f"workflow:\n{steps}", f"> execution_start\n{events}") == lines_of(decided)


WON = '> execution_start\n> action_completed c {"v": 3}\n> action_completed a {"ok": true, "v": 1}\n'
SHORT = (
    '> execution_start\n> action_completed a {"ok": true, "v": 1}\n> action_completed b {"ok": false}\n'
    '> action_failed c {"message": "no"}'
)


def test_a_retry_keeps_the_count() -> None:
    """The token that came first waits again."""
    history = history_of(playbook(offers()), SHORT)
    assert lines_of(fork_story(history, plan_recovery(history), '> action_completed c {"v": 3}')) == [
        "> fork",
        "event step_started c",
        "job   c",
        '> action_completed c {"v": 3}',
        "event step_completed c",
        "event step_started best",
        'job   best {"a": 1, "c": 3}',
    ]


def test_a_retry_does_not_run_a_step_that_has_too_few_arrivals() -> None:
    """Nothing more can come, so it fails again."""
    story = '> execution_start\n> action_completed a {"ok": false}\n> action_completed b {"ok": false}'
    history = history_of(playbook(offers()), story + '\n> action_completed c {"v": 3}')
    assert lines_of(fork_story(history, plan_recovery(history), "")) == [
        "> fork",
        'event step_failed best "join best needs 2 arrivals; 1 came, and no other token can reach it"',
        'event execution_failed "join best needs 2 arrivals; 1 came, and no other token can reach it"',
        "cancel all work",
    ]


def test_a_fork_from_the_join_has_what_it_gathered() -> None:
    """It enters the step at once, with the results of both."""
    history = history_of(playbook(offers("cancel")), WON)
    assert lines_of(fork_story(history, plan_fork(history, "best"), "")) == [
        "> fork",
        "event step_started best",
        'job   best {"a": 1, "c": 3}',
    ]


def test_a_fork_from_a_cancelled_visit_runs_it_again() -> None:
    """Its token is the only one of the fork, so the join gets too few."""
    history = history_of(playbook(offers("cancel")), WON)
    story = fork_story(history, plan_fork(history, "b"), '> action_completed b {"ok": true, "v": 2}')
    assert lines_of(story)[-3:-1] == [
        'event step_failed best "join best needs 2 arrivals; 1 came, and no other token can reach it"',
        'event execution_failed "join best needs 2 arrivals; 1 came, and no other token can reach it"',
    ]


def test_a_join_with_too_few_arrivals_goes_on_with_on_error_continue() -> None:
    """Its `next` sees the error, and what the transitions gave."""
    assert_story(
        """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: [{when: "{{ a > 1 }}", step: j, args: {a: "{{ a }}"}}]}
        - {step: b, type: python, code: x, next: [{when: "{{ b > 1 }}", step: j, args: {b: "{{ b }}"}}]}
        - step: j
          join: {need: 2}
          type: python
          code: x
          on_error: continue
          next:
          - when: "{{ j.status == 'FAILED' }}"
            step: k
            args: {error: "{{ j.error.type }}", a: "{{ a }}", was: "{{ result }}"}
        - {step: k, type: python, code: x, args: {again: "{{ j.error.type }}"}}
        """,
        """
        > execution_start
            event step_started a
            event step_started b
            job   a
            job   b
        > action_completed a 2
            event step_completed a
        > action_completed b 1
            event step_completed b
            event step_failed j "join j needs 2 arrivals; 1 came, and no other token can reach it"
            event step_started k
            job   k {"again": "need_not_met", "error": "need_not_met", "a": 2, "was": null}
        > action_completed k 3
            event step_completed k
            event execution_complete {"b": 1, "k": 3}
        """,
    )


def test_a_wait_before_a_join_with_other_tokens_stays_open() -> None:
    """The merged token may not be spent."""
    body = """
        workflow:
        - {step: start, next: [a, b, days]}
        - {step: a, type: python, code: x, next: first}
        - {step: b, type: python, code: x, next: both}
        - {step: days, type: wait, for: 3d, next: both}
        - {step: both, next: first}
        - {step: first, join: any, next: end}
        - {step: end}
        """
    state = history_of(playbook(body), "> execution_start\n> action_completed a 1").state
    assert isinstance(state, dict)
    assert [(token["step"], token["spent"]) for token in state["tokens"]] == [("b", ["first"]), ("days", ["first"])]


def test_the_start_of_a_visit_names_all_transitions_that_led_to_it() -> None:
    """In the order of arrival: `verify` checks that none is counted twice."""
    turns = history_of(playbook(offers()), WON).turns
    [started] = [event for turn in turns for event in turn.events if event.step == "best"]
    assert started.meta == {"turn": 3, "arcs": [5, 3]}


def test_a_retry_leaves_cancelled_visits_cancelled() -> None:
    """They lost, whatever became of the winners."""
    history = history_of(playbook(offers("cancel")), WON + '> action_failed best {"message": "no"}')
    assert lines_of(fork_story(history, plan_recovery(history), "> action_completed best 5")) == [
        "> fork",
        "event step_started best",
        'job   best {"a": 1, "c": 3}',
        "> action_completed best 5",
        "event step_completed best",
        "event execution_complete 5",
    ]


def test_a_pause_keeps_the_count() -> None:
    """What arrives while it is paused counts at the resume."""
    story = (
        '> execution_start\n> action_completed c {"v": 3}\n> execution_pause\n'
        '> action_completed a {"ok": true, "v": 1}\n> execution_resume'
    )
    turns = history_of(playbook(offers("cancel")), story).turns
    assert [[event.type for event in turn.events if event.step] for turn in turns[3:]] == [
        ["step_completed"], ["step_cancelled", "step_started"],
    ]  # fmt: skip

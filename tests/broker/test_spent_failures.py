"""The failure of a spent token is recorded and does not fail the execution."""

from __future__ import annotations

from textwrap import dedent

import pytest

from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.recovery_plan import plan_recovery
from tests.explanations import execution_lines, facts_of, step_lines
from tests.forks import fork_story, history_of
from tests.stories import assert_story, playbook

RACE = """
workflow:
- {step: start, next: [quick, slow]}
- {step: quick, type: python, code: x, next: first}
- {step: slow, type: python, code: x, SLOW}
- {step: first, join: any, type: python, code: x, next: end}
- {step: end, result: "{{ [first, slow.status | default(none), slow.error.message | default(none)] }}"}
MORE"""
WON = "> execution_start\n> action_completed quick 1\n> action_completed first 3\n"
ENTERED = "> execution_start\n> action_completed quick 1\n> action_completed slow 2\n"


def race(slow: str = "next: first", more: str = "") -> str:
    """Return a playbook whose race `quick` wins. `slow` has these keys, and `more` has further steps."""
    return RACE.replace("SLOW", slow).replace("MORE", dedent(more))


def last_events(body: str, story: str) -> list[str]:
    """Return the events of the last turn of a story."""
    turns = history_of(playbook(body), story).turns
    return [f"{event.type} {event.step or ''}".strip() for event in turns[-1].events]


def test_the_failure_of_a_spent_token_does_not_fail_the_execution() -> None:
    """Its token ends and `end` runs."""
    assert_story(
        race(),
        """
        > execution_start
            event step_started quick
            event step_started slow
            job   quick
            job   slow
        > action_completed quick 1
            event step_completed quick
            event step_started first
            job   first
        > action_failed slow {"message": "too late"}
            event step_failed slow "too late"
            dead  slow
        > action_completed first 3
            event step_completed first
            event execution_complete [3, "FAILED", "too late"]
        > action_failed slow {"message": "too late"}  (after_end)
        """,
    )


def test_the_event_of_a_spent_failure_names_the_join() -> None:
    """The log shows why the execution went on."""
    history = history_of(playbook(race()), WON + '> action_failed slow {"message": "no"}')
    failed = history.turns[-1].events[0]
    assert (failed.type, failed.status, failed.meta) == ("step_failed", "FAILED", {"turn": 4, "spent": ["first"]})


def running(action: str) -> str:
    """Return the race, and how `slow` fails."""
    return race().replace(
        "type: python, code: x, next: first}\n- {step: first", f"{action}, next: first}}\n- {{step: first"
    )


ITEMS = 'type: iterator, element: row, collection: "{{ [[1], []] }}", task: {type: playbook, path: p, args: {v: ARG}}'
NO = '{"message": "no"}'
WAYS = {
    "its worker gives it up": (race(), f"action_failed slow {NO}; not retryable", ""),
    "its result is no json": (race(), "action_completed slow 1; broken", ""),
    "its result is too large": (race(), "action_completed slow 1; bytes 3000000", ""),
    "a condition of its next": (race('next: [{when: "{{ slow.x.y }}", step: first}]'), "action_completed slow {}", ""),
    "an input of its transition": (
        race('next: [{step: first, args: {v: "{{ slow.x }}"}}]'), "action_completed slow {}", "",
    ),
    "its next although its failure goes on": (
        race('on_error: continue, next: [{when: "{{ slow.x }}", step: first}]'), f"action_failed slow {NO}", "",
    ),
    "its child": (running("type: playbook, path: p"), f"action_failed slow {NO}", ""),
    "its item": (
        running(ITEMS.replace("ARG", "1")), f"execution_failed slow[0] {NO}", "iteration_failed slow, ",
    ),
    "an item that cannot be started": (
        running(ITEMS.replace("ARG", '"{{ row[0] }}"')), "execution_complete slow[0] 1", "iteration_completed slow, ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_failure_of_a_spent_visit_is_only_recorded(way: str) -> None:
    """The execution completes with the data of the winner."""
    body, event, before = WAYS[way]
    assert ", ".join(last_events(body, f"{WON}> {event}")) == f"{before}step_failed slow, execution_complete"


AFTER = {
    "the inputs of a step": (
        '- {step: more, type: python, code: x, args: {v: "{{ slow.x }}"}, next: first}',
        "step_started more, step_failed more",
    ),
    "the next of a router": (
        '- {step: more, next: [{when: "{{ slow.x }}", step: first}, {else: [first]}]}',
        "step_started more, step_failed more",
    ),
    "a cycle of routers": (
        '- {step: more, join: each, next: [{when: "{{ slow.x is defined }}", step: first}, {else: [more]}]}',
        "step_started more, step_completed more, step_started more, step_failed more",
    ),
    "the items of an iterator": (
        f"- {{step: more, {ITEMS.replace('[[1], []]', 'slow.x')}, next: first}}",
        "step_started more, step_failed more",
    ),
    "the path of a playbook": (
        '- {step: more, type: playbook, path: "{{ slow.x }}", next: first}', "step_started more, step_failed more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", AFTER)
def test_steps_after_a_spent_token_do_not_fail_the_execution(way: str) -> None:
    """The next step fails by a template or by a loop of routers."""
    more, events = AFTER[way]
    body, story = race("next: more", more), "> execution_start\n> action_completed quick 1\n> action_completed slow {}"
    assert ", ".join(last_events(body, story)) == f"step_completed slow, {events}"
    ended = history_of(playbook(body), story + "\n> action_completed first 3").ended
    assert ended is not None
    assert ended.status == "COMPLETED"


def test_a_spent_iterator_that_fails_cancels_its_items() -> None:
    """The first item has a child when the second cannot start."""
    more = """
        - step: more
          type: iterator
          collection: "{{ slow }}"
          element: row
          mode: async
          task: {type: playbook, path: p, args: {v: "{{ row[0] }}"}}
          next: first
        """
    assert_story(
        race("next: more", more),
        """
        > execution_start
            event step_started quick
            event step_started slow
            job   quick
            job   slow
        > action_completed quick 1
            event step_completed quick
            event step_started first
            job   first
        > action_completed slow [[1], []]
            event step_completed slow
            event step_started more
            event iterator_started more {"total": 2}
            event iteration_started more {"index": 0}
            event step_failed more "`row[0]` is undefined: there is no such key in a list"
            child more[0] p {"v": 1}
            dead  more
            cancel items of more
        > action_completed first 3
            event step_completed first
            event execution_complete [3, "COMPLETED", null]
        """,
    )


def test_a_spent_token_past_max_nesting_does_not_fail_the_execution() -> None:
    """Its visit keeps its number."""
    body = race("next: [more, more]", "- {step: more, join: each, type: playbook, path: p, next: first}")
    story = ENTERED.replace("start\n", "start; depth 32\n") + "> action_completed first 3"
    history = history_of(playbook(body), story)
    failed = [(event.step, event.visit) for event in history.turns[2].events if event.type == "step_failed"]
    assert failed == [("more", 1), ("more", 2)]
    assert history.ended is not None
    assert history.ended.status == "COMPLETED"


def test_a_spent_token_past_max_visits_fails_the_execution() -> None:
    """Visits of spent tokens count as all visits."""
    body = race("next: [{when: \"{{ slow == 'again' }}\", step: slow}, {else: [first]}], join: each")
    story = "> execution_start\n> action_completed quick 1" + "".join(
        f'\n> action_completed slow{"" if visit == 1 else f"#{visit}"} "again"' for visit in range(1, 4)
    )
    ended = history_of(playbook(body, metadata="max_visits: 6"), story).ended
    assert ended is not None
    assert (ended.status, ended.error["type"]) == ("FAILED", "max_visits")  # type: ignore[index]


BESIDE = """
workflow:
- {step: start, next: [quick, slow]}
- {step: quick, type: python, code: x, next: first}
- {step: slow, type: python, code: x, next: [first, audit]}
- {step: audit, type: python, code: x, next: end}
- {step: first, join: any, type: python, code: x, next: end}
- {step: end}
"""


def test_a_token_that_could_also_go_elsewhere_is_spent() -> None:
    """It is spent while its step may still lead to the join."""
    assert last_events(BESIDE, f"{WON}> action_failed slow {NO}") == ["step_failed slow", "execution_complete"]


@pytest.mark.parametrize("order", [("quick", "slow"), ("slow", "quick")])
def test_a_failure_after_the_join_fails_the_execution(order: tuple[str, str]) -> None:
    """The token can no longer reach the join."""
    story = "> execution_start" + "".join(f"\n> action_completed {step} 1" for step in order)
    story += '\n> action_completed first 3\n> action_failed audit {"message": "no"}'
    assert last_events(BESIDE, story) == ["step_failed audit", "execution_failed"]


def test_a_merged_token_that_is_not_wholly_spent_fails_the_execution() -> None:
    """A merged token is spent only if all its parts are spent."""
    body = """
        workflow:
        - {step: start, next: [quick, slow]}
        - {step: quick, type: python, code: x, next: [first, late]}
        - {step: late, type: python, code: x, next: both}
        - {step: slow, type: python, code: x, next: [{when: "{{ slow == 0 }}", step: first}, {else: [both]}]}
        - {step: both, type: python, code: x, next: [{when: "{{ both == 0 }}", step: first}]}
        - {step: first, join: any, type: python, code: x}
        """
    lost = ENTERED + '> action_completed late 1\n> action_failed both {"message": "no"}'
    assert last_events(body, lost) == ["step_failed both"]  # the token of `late` is spent too
    mixed = body.replace("next: [first, late]", "next: first").replace("[quick, slow]", "[quick, slow, late]")
    mixed = mixed.replace('next: [{when: "{{ both == 0 }}", step: first}]', "next: []")
    assert last_events(mixed, lost) == ["step_failed both", "execution_failed"]


def test_an_all_join_is_released_when_the_spent_token_before_it_has_failed() -> None:
    """The token could have reached it by another path."""
    body = """
        workflow:
        - {step: start, next: [quick, slow, third]}
        - {step: quick, type: python, code: x, next: first}
        - {step: slow, type: python, code: x, next: [first, both]}
        - {step: third, type: python, code: x, next: both}
        - {step: both, type: python, code: x}
        - {step: first, join: any, type: python, code: x}
        """
    story = ENTERED.replace("slow 2", "third 1") + f"> action_failed slow {NO}"
    assert last_events(body, story) == ["step_failed slow", "step_started both"]


def test_if_all_remaining_tokens_are_spent_and_fail_there_is_no_result() -> None:
    """Each token lost a race. The execution completes."""
    cycle = """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, join: any, type: python, code: x, next: b}
        - {step: b, join: any, type: python, code: x, next: a}
        """
    ended = history_of(
        playbook(cycle), '> execution_start\n> action_failed a {"message": "no"}\n> action_failed b {"message": "no"}'
    ).ended
    assert ended is not None
    assert (ended.status, ended.result) == ("COMPLETED", None)


def test_a_retry_keeps_the_recorded_failure_of_a_spent_token() -> None:
    """Another step failed the execution. The loser does not run again."""
    history = history_of(
        playbook(race()),
        '> execution_start\n> action_completed quick 1\n> action_failed slow {"message": "late"}\n'
        '> action_failed first {"message": "no"}',
    )
    lines = fork_story(history, plan_recovery(history), "> action_completed first 3").splitlines()
    assert [line.strip() for line in lines] == [
        "> fork",
        "event step_started first",
        "job   first",
        "> action_completed first 3",
        "event step_completed first",
        'event execution_complete [3, "FAILED", "late"]',
    ]


def test_a_fork_from_a_spent_step_runs_it_again() -> None:
    """Its token is the only one of the fork, so it cannot lose."""
    history = history_of(playbook(race()), WON + '> action_failed slow {"message": "late"}')
    lines = fork_story(history, plan_fork(history, "slow"), '> action_failed slow {"message": "again"}').splitlines()
    assert [line.strip() for line in lines][-5:] == [
        '> action_failed slow {"message": "again"}',
        'event step_failed slow "again"',
        'event execution_failed "again"',
        "dead  slow",
        "cancel all work",
    ]


def test_explain_says_that_a_spent_failure_has_no_effect() -> None:
    """For the step, and for the transition that its token did not take."""
    history = history_of(playbook(race()), WON + '> action_failed slow {"message": "late"}')
    lines = [line.strip() for line in step_lines(history, "slow").splitlines()]
    assert lines[0] == "slow of execution 1 (story version 1, COMPLETED) failed"
    at = lines.index("it failed on action_failed (event 104, turn 4): late")
    assert lines[at + 1] == "the execution continued: join first had already run, so the token was spent"
    assert (
        "it completed when the broker read action_failed (event 104, turn 4): no step was left to run"
        in execution_lines(history, facts_of(history))
    )


def test_explain_says_why_a_step_behind_a_spent_failure_never_ran() -> None:
    """The token ended at the step before it."""
    history = history_of(playbook(BESIDE), WON + '> action_failed slow {"message": "late"}')
    lines = [line.strip() for line in step_lines(history, "audit").splitlines()]
    assert "the transition from slow was never taken: slow failed" in lines


def test_a_step_that_a_token_cannot_enter_has_a_status_too() -> None:
    """And what it made in that turn stays: here the signal that it sent."""
    assert_story(
        """
        workflow:
          - {step: start, next: [quick, slow]}
          - {step: quick, type: python, code: x, next: first}
          - {step: slow, type: python, code: x, next: [more, tell]}
          - {step: more, type: python, code: x, args: {v: "{{ slow.x }}"}, next: first}
          - {step: tell, type: signal, signal: news, payload: "{{ more.status }}",
             next: {when: "{{ tell.x }}", step: first}}
          - {step: first, join: any, type: python, code: x, next: last}
          - {step: last, type: python, code: x, args: {more: "{{ more.status }}", told: "{{ tell.name }}"}}
        """,
        """
        > execution_start
            event step_started quick
            event step_started slow
            job   quick
            job   slow
        > action_completed quick
            event step_completed quick
            event step_started first
            job   first
        > action_completed slow {}
            event step_completed slow
            event step_started more
            event step_failed more "`slow.x` is undefined: there is no such key in a mapping"
            event step_started tell
            event step_failed tell "`tell.x` is undefined: there is no such key in a mapping"
            send  tell news 1 "FAILED"
        > action_completed first
            event step_completed first
            event step_started last
            job   last {"more": "FAILED", "told": "news"}
        """,
    )

"""Which entries of `next` fire: the four rules, aliases, `next_mode` and routers."""

from __future__ import annotations

import pytest

from tests.stories import assert_story, last_turn

STEPS = "abcde"
FIRES = {
    "entries before the first condition fire with it, and those after it do not": (
        '[a, {when: "{{ s.ok }}", step: b}, c]', '{"ok": true}', "a b",
    ),
    "without a true condition else and later entries fire": (
        '[a, {when: "{{ s.ok }}", step: b}, c, {else: [d]}]', '{"ok": "no"}', "a c d",
    ),
    "every true condition fires with all its targets, in the order of the document": (
        '[{when: "s.n > 1", then: [b, c]}, {condition: "s.n > 2", step: d}, {pass: "s.n > 100", then: b, else: e}]',
        '{"n": 3}',
        "c d e b",
    ),
    "an exclusive step stops at its first true condition": (
        '[a, {when: "s.n > 1", step: b}, {when: "s.missing.deep + 1", step: c}, {else: [d]}], next_mode: exclusive',
        '{"n": 3}',
        "a b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FIRES)
def test_entries_of_next_fire(what: str) -> None:
    """Each entry that fires starts its steps."""
    entries, result, fired = FIRES[what]
    body = f"workflow:\n- {{step: start, next: s}}\n- {{step: s, type: python, code: x, next: {entries}}}\n"
    body += "".join(f"- {{step: {step}, type: python, code: x}}\n" for step in STEPS)
    assert last_turn(body, f"> execution_start\n> action_completed s {result}") == [
        "event step_completed s",
        *(f"event step_started {step}" for step in fired.split()),
        *(f"job   {step}" for step in fired.split()),
    ]


def test_a_token_ends_if_no_entry_fires() -> None:
    """The data of the branch are the result."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "a.n > 1", step: b}]}
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"n": 0}
            event step_completed a
            event execution_complete {"n": 0}
        """,
    )


def test_a_start_without_an_action_is_a_router() -> None:
    """It evaluates conditions and writes no event of its own."""
    assert_story(
        """
        workload: {mode: fast}
        workflow:
        - {step: start, next: [{when: "workload.mode == 'fast'", step: fast}, {else: [slow]}]}
        - {step: fast, type: python, code: x}
        - {step: slow, type: python, code: x}
        """,
        """
        > execution_start {"mode": "slow"}
            event step_started slow
            job   slow
        """,
    )


def test_routers_are_passed_in_the_same_turn_and_pass_the_result_on() -> None:
    """A router reads `result` and its inputs, and has no result."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: route}
        - {step: route, next: [{when: "{{ result.n > 1 }}", step: second, args: {n: "{{ result.n }}"}}]}
        - {step: second, type: router, next: [{step: b, args: {m: "{{ n }}", r: "{{ result.n }}"}}]}
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {"n": 2}
            event step_completed a
            event step_started route
            event step_completed route
            event step_started second
            event step_completed second
            event step_started b
            job   b {"m": 2, "r": 2}
        > action_completed b {"done": true}
            event step_completed b
            event execution_complete {"done": true}
        """,
    )


def test_a_loop_of_routers_fails_the_execution() -> None:
    """One token enters a router twice in a turn."""
    assert_story(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: r1}
        - {step: r1, next: r2}
        - {step: r2, next: r1}
        """,
        """
        > execution_start
            event step_started a
            job   a
        > action_completed a {}
            event step_completed a
            event step_started r1
            event step_completed r1
            event step_started r2
            event step_completed r2
            event step_started r1#2
            event step_failed r1#2 "a cycle of routers that no step leaves: r1 → r2"
            event execution_failed "a cycle of routers that no step leaves: r1 → r2"
            cancel all work
        """,
    )

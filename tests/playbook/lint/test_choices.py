"""Warnings of a `catch` that can never be taken, and of a choice without an `else`."""

from __future__ import annotations

import pytest

from tests.playbook.documents import findings_of, findings_of_programs

NEVER = "this catch can never be taken: "
CHOICE = """
    workflow:
      - {step: start, next: ask}
      - {step: ask, type: http, url: x, next: %s}
      - {step: a, type: http, url: x}
      - {step: b, type: http, url: x}
    """


@pytest.mark.parametrize(
    "step, reason",
    [
        ("type: http, url: x, catch: [{step: a}, {step: b}]", "entry 1 has no `when`, so it is always taken"),
        (
            'type: http, url: x, catch: [{when: "error.x", step: a}, {when: "error.x", step: b}]',
            "entry 1 has the same condition",
        ),
        ('type: http, url: x, catch: {when: "false", step: a}', "its condition is always false"),
        (
            'type: http, url: x, catch: [{when: "error.n < 2", step: a}, {when: "error.n >= 2", step: b}, {step: a}]',
            "one of the conditions before it is always true",
        ),
        ("next: b, catch: a", "the step cannot fail: it has no action and no template"),
        ("type: wait, for: 3d, next: b, catch: a", "the step cannot fail: it has no action and no template"),
    ],
)
def test_a_catch_that_can_never_be_taken_is_warned_of(step: str, reason: str) -> None:
    """With the reason."""
    source = f"""
    workflow:
      - {{step: start, next: c}}
      - {{step: c, {step}}}
      - {{step: a, type: http, url: x}}
      - {{step: b, type: http, url: x}}
    """
    found = [line for line in findings_of(source) if "dead-catch" in line]
    assert [reason in line and NEVER in line for line in found] == [True]


@pytest.mark.parametrize(
    "choice, is_open",
    [
        ('{when: "{{ ask.x }}", step: a}', True),
        ('[{when: "{{ ask.x == 1 }}", step: a}, {when: "{{ ask.x == 2 }}", step: b}]', True),
        ('[{when: "{{ ask.x }}", step: a}, {else: [b]}]', False),
        ('[{when: "{{ ask.x }}", step: a}, b]', False),
        ('[{when: "{{ ask.x }}", step: a}, {when: "{{ not ask.x }}", step: b}]', False),
        ('[{when: "{{ ask.x > 3 }}", step: a}, {when: "{{ ask.x <= 3 }}", step: b}]', False),
        ('{when: "{{ ask.x }}", then: [a], else: [b]}', False),
    ],
)
def test_a_choice_without_an_else_is_warned_of(choice: str, *, is_open: bool) -> None:
    """Its branch would end without a word; not where one of the conditions is true in any case."""
    assert any("no-else" in line for line in findings_of_programs(CHOICE % choice)) == is_open


@pytest.mark.parametrize("more, is_dead", [("", True), ("on_error: continue, ", False)])
def test_the_next_of_a_step_that_always_fails_is_warned_of(more: str, *, is_dead: bool) -> None:
    """What follows a failure stands under `catch`."""
    source = f"""
    workflow:
      - {{step: start, next: a}}
      - {{step: a, type: fail, {more}next: b}}
      - {{step: b, type: http, url: x}}
    """
    assert any("is never taken" in line for line in findings_of(source)) == is_dead

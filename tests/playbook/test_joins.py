"""How `join` is read: a word, or a number of arrivals with what becomes of the losers."""

from __future__ import annotations

import pytest

from tests.playbook.documents import findings_of
from tests.stories import playbook

RACE = """
workflow:
  - {step: start, next: [a, b]}
  - {step: a, type: python, code: x, next: j}
  - {step: b, type: python, code: x, next: j}
  - {step: j, join: JOIN}
"""


@pytest.mark.parametrize(
    "written, expected",
    [
        ("all", ("all", 1, "run")),
        ("any", ("any", 1, "run")),
        ("each", ("each", 1, "run")),
        ("{need: 1}", ("any", 1, "run")),
        ("{need: 2, losers: cancel}", ("any", 2, "cancel")),
        ("{need: 2, losers: null}", ("any", 2, "run")),
    ],
)
def test_a_join_is_a_word_or_a_number_of_arrivals(written: str, expected: tuple[object, ...]) -> None:
    """`any` needs one arrival and lets the losers run."""
    step = playbook(RACE.replace("JOIN", written)).steps["j"]
    assert (step.join, step.need, step.losers) == expected


@pytest.mark.parametrize(
    "written, expected",
    [
        ("{losers: cancel}", "bad-join workflow[3].join: `join` has no `need`"),
        ("{}", "bad-join workflow[3].join: `join` has no `need`"),
        ("{need: 0}", "bad-join workflow[3].join.need: `need` is 0, not an integer from 1 to 10000"),
        ("{need: '{{ 2 }}'}", "bad-join workflow[3].join.need: `need` is '{{ 2 }}', not an integer from 1 to 10000"),
        ("{need: 1, losers: stop}", "bad-join workflow[3].join.losers: `losers` is 'stop', not one of run, cancel"),
        ("{need: 1, loser: run}", "bad-join workflow[3].join.loser: unknown key `loser` in `join`"),
        (
            "{need: 3}",
            "bad-join workflow[3].join.need: the join `j` needs 3 arrivals, and only 2 transitions lead to it",
        ),
        ("[a, b]", "bad-value workflow[3].join: `join` is a list, not one of all, any, each"),
    ],
)
def test_a_wrong_join_is_refused(written: str, expected: str) -> None:
    """Each error names the place and says what to write."""
    [found] = findings_of(RACE.replace("JOIN", written))
    assert found.partition(" error ")[2].startswith(f"{expected} (")


@pytest.mark.parametrize(
    "written, key, remedy",
    [
        ("any, losers: cancel", "losers", "write join: {need: 1, losers: cancel}"),
        ("all, losers: run", "losers", "write join: {need: 1, losers: run}"),
        ("any, need: 2", "need", "write join: {need: 2}"),
        ("{need: 2}, losers: cancel", "losers", "write join: {need: 2, losers: cancel}"),
        ("{need: 2}, losers: [x]", "losers", "write join: {need: 2, losers: cancel}"),
        ("any, need: 2, losers: cancel", "losers", "write join: {need: 2, losers: cancel}"),
    ],
)
def test_keys_of_a_join_beside_it_are_refused(written: str, key: str, remedy: str) -> None:
    """The losers would run on. A version that is registered still runs."""
    found = findings_of(RACE.replace("JOIN", written))[-1]
    assert " error unknown-key " in found
    assert f"workflow[3].{key}: `{key}` is a key of `join`, and stands beside it on step `j` ({remedy})" in found
    assert playbook(RACE.replace("JOIN", written)).steps["j"].losers == "run"


@pytest.mark.parametrize(
    "workflow",
    [
        # a loop before the join, a loop through it, several arrivals of one transition, and further on
        "[{step: start, next: a}, {step: a, type: python, code: x, next: [{when: a, step: a}, j]}, JOIN]",
        "[{step: start, next: [j, j]}, {step: j, join: {need: 3}, next: j}]",
        "[{step: start, next: [a, a]}, {step: a, join: each, next: b}, {step: b, next: j}, JOIN]",
        "[{step: start, next: [a, a]}, {step: a, join: each, next: b}, {step: b, next: c}, {step: c, next: j}, JOIN]",
    ],
)
def test_a_join_may_need_more_arrivals_than_it_has_transitions(workflow: str) -> None:
    """If one of them can be taken several times."""
    step = playbook(f"workflow: {workflow.replace('JOIN', '{step: j, join: {need: 3}}')}").steps["j"]
    assert step.need == 3


def test_arrivals_do_not_repeat_behind_a_join_that_waits_for_all() -> None:
    """It runs once, however often its transitions are taken."""
    workflow = "[{step: start, next: [a, a]}, {step: a, join: each, next: [b, b]}, {step: b, next: j}, JOIN]"
    found = findings_of(f"workflow: {workflow.replace('JOIN', '{step: j, join: {need: 2}}')}")
    assert [line.partition(": ")[2] for line in found if "bad-join" in line] == [
        "the join `j` needs 2 arrivals, and only 1 transition leads to it (write a `need` of at most 1)"
    ]


def test_two_transitions_that_give_a_join_the_same_input_are_a_warning() -> None:
    """As for a join that waits for all: the arrivals are merged."""
    body = RACE.replace("next: j", "next: {step: j, args: {v: 1}}")
    found = [findings_of(body.replace("JOIN", f"{{need: {need}}}")) for need in (1, 2)]
    assert [sum("join-input" in finding for finding in findings) for findings in found] == [0, 1]

"""A recorded history and an edited playbook: where they diverge, and why."""

from __future__ import annotations

import pytest

from noetl_broker.errors import HistoryFault
from noetl_broker.history.compare import Comparison
from noetl_broker.history.decision_diff import Divergence, Note
from tests.forks import history_of
from tests.stories import playbook

OWN = """
workload: {limit: 10, words: [a, b]}
workflow:
- {step: start, next: fetch}
- step: fetch
  type: http
  url: "https://{{ workload.limit }}.example"
  retry: {max_attempts: 2, initial_delay: 1, jitter: false}
  next:
  - {when: "{{ fetch.n > workload.limit }}", step: alert, args: {n: "{{ fetch.n }}"}}
  - else: [{step: log}]
- {step: alert, type: python, code: "def main(n): ...", next: both}
- {step: log, type: python, code: "def main(): ...", next: both}
- {step: both, type: route, next: [child, each]}
- {step: child, type: playbook, path: other, args: {n: 1}, next: end}
- step: each
  type: iterator
  collection: "{{ workload.words }}"
  element: word
  mode: async
  distribute: true
  task: {type: python, code: x, args: {word: "{{ word }}"}}
  next: end
- {step: end, result: {n: "{{ fetch.n }}"}}
"""
STORY = """
> execution_start
> action_failed fetch {"message": "no"}
> action_completed fetch {"n": 12}
> action_completed alert {"sent": true}
> action_completed child 1
> action_completed each[0] 1
> action_completed each[1] 2
> iterator_completed each [1, 2]
> action_completed alert {"sent": true}
"""


def compare(
    edited: str, story: str = STORY, *, ways_only: bool = False
) -> tuple[tuple[int, Divergence] | None, list[Note]]:
    """The turn and the divergence of an edited playbook on the history of OWN, and the notes."""
    history = history_of(playbook(OWN), story)
    comparison = Comparison(history, playbook(edited), ways_only=ways_only)
    found = next(
        ((turn.turn.number, one) for turn in history.turns if (one := comparison.apply(turn)) is not None), None
    )
    return found, [*comparison.notes]


def edit(old: str, new: str) -> str:
    """OWN with one thing changed."""
    assert old in OWN
    return OWN.replace(old, new, 1)


@pytest.mark.parametrize(
    "old,new",
    [
        ("- {step: alert,", "- {step: alert, desc: Tells somebody,"),
        ("- {step: log, type: python", "- {step: log, type: noop"),  # not on the way
        ("> workload.limit }}", "> 11 }}"),
        ("{n: 1}, next: end}", "{n: 1}, priority: 7, next: end}"),
        ("max_attempts: 2", "max_attempts: 3"),
        ("- {step: both, type: route, next: [child, each]}", "- {step: both, type: noop, next: [child, each]}"),
        ("[child, each]", "[{step: child}, {when: 'true', step: each}]"),
        ('code: "def main(n): ..."', 'code: "def main(n): return n"'),
    ],
)
def test_a_change_without_effect_on_decisions_is_no_divergence(old: str, new: str) -> None:
    """Descriptions, steps that were not reached, conditions with the same outcome, limits, code."""
    assert compare(edit(old, new))[0] is None


OTHERWISE = "{{ fetch.n > 20 }} is false, {{ fetch.n > workload.limit }} was true"
NOTES = [
    ('code: "def main(n): ..."', 'code: "def main(n): return n"', Note("alert", "its job has another code_b64")),
    ("max_attempts: 2", "max_attempts: 3", Note("fetch", "its job has another max_attempts")),
    ("initial_delay: 1", "initial_delay: 2", Note("fetch", "another delay before the next attempt")),
    ("limit: 10, words", "limit: 10, more: 1, words", Note("start", "the workload has another more")),
    (
        '{when: "{{ fetch.n > workload.limit }}", step: alert, args: {n: "{{ fetch.n }}"}}\n  - else: [{step: log}]',
        '{when: "{{ fetch.n > 20 }}", step: log, else: [{step: alert, args: {n: "{{ fetch.n }}"}}]}',
        Note("fetch", f"decides the same, although {OTHERWISE}"),
    ),
    (
        "next: both}\n- {step: log",
        "next: via}\n- {step: via, type: route, next: both}\n- {step: log",
        Note("via", "an additional router is passed"),
    ),
]


@pytest.mark.parametrize("old,new,note", NOTES, ids=[note.what for *_, note in NOTES])
def test_a_difference_that_changes_no_decision_is_noted(old: str, new: str, note: Note) -> None:
    """Once per execution, with its step."""
    found, notes = compare(edit(old, new))
    assert (found, notes.count(note)) == (None, 1)


DIVERGENCES = [
    (
        3, "> workload.limit }}", "> 20 }}",
        Divergence(
            "another step", "fetch", OTHERWISE,
            "starts alert", "starts log", {},
        ),
    ),
    (
        3, "step: alert, args: {n", "then: [alert, log], args: {n",
        Divergence(
            "an additional step", "fetch",
            "{{ fetch.n > workload.limit }} is true and leads to alert, log, not to alert",
            "starts nothing", "starts log", {},
        ),
    ),
    (
        3, "  - else: [{step: log}]", '  - {when: "{{ fetch.n }}", step: log}',
        Divergence("an additional step", "fetch", "{{ fetch.n }} is new and true", "starts nothing", "starts log", {}),
    ),
    (
        4, 'code: "def main(n): ...", next: both}', 'code: "def main(n): ...", next: end}',
        Divergence("a missing step", "alert", "", "starts child, each", "ends COMPLETED", {}),
    ),
    (
        2, "retry: {max_attempts: 2", "retry: {max_attempts: 1",
        Divergence("another outcome", "fetch", "", "tries again fetch", "fails fetch, ends FAILED", {}),
    ),
    (
        1, "{{ workload.limit }}.example", "{{ workload.limit }}.test",
        Divergence(
            "another job", "fetch", "", "runs fetch", "gets another url",
            {"url": ["https://10.example", "https://10.test"]},
        ),
    ),
    (
        3, 'args: {n: "{{ fetch.n }}"}', 'args: {n: "{{ fetch.n + 1 }}"}',
        Divergence("another job", "alert", "", "runs alert", "gets another args.n", {"args.n": [12, 13]}),
    ),
    (
        3, 'workload.limit }}", step: alert, args: {n: "{{ fetch.n }}"}}',
        '20 }}", step: log, else: [{step: alert, args: {n: 0}}]}',
        Divergence("an additional step", "fetch", OTHERWISE, "starts nothing", "starts log", {}),
    ),
    (
        3, 'workload.limit }}", step: alert, args: {n: "{{ fetch.n }}"}}\n  - else: [{step: log}]',
        '20 }}", step: log, else: [{step: alert, args: {n: 0}}]}',
        Divergence(
            "another job", "alert", f"fetch: {OTHERWISE}", "runs alert", "gets another args.n", {"args.n": [12, 0]}
        ),
    ),
    (
        1, "workload: {limit: 10", 'workload: {limit: "{{ 1 / 0 }}"',
        Divergence("it does not start", "start", "it divides by zero", "starts", "ends FAILED", {}),
    ),
    (
        3, "> workload.limit }}", "> workload.limits }}",
        Divergence(
            "a template fails", "fetch",
            "{{ fetch.n > workload.limits }}: `workload.limits` is undefined: there is no such key in a mapping",
            "starts alert", "ends FAILED", {},
        ),
    ),
    (
        4, "path: other, args: {n: 1}", "path: other, args: {n: 2}",
        Divergence("another job", "child", "", "runs child", "gets another args.n", {"args.n": [1, 2]}),
    ),
    (
        4, "path: other", "path: another",
        Divergence("another job", "child", "", "runs child", "gets another path", {"path": ["other", "another"]}),
    ),
    (
        4, 'collection: "{{ workload.words }}"', "collection: [a, b, c]",
        Divergence("an additional step", "alert", "", "starts nothing", "starts each", {}),
    ),
    (
        4, 'collection: "{{ workload.words }}"', "collection: [a, c]",
        Divergence("another job", "each", "", "runs each", "gets another args.word", {"args.word": ["b", "c"]}),
    ),
    (
        8, 'result: {n: "{{ fetch.n }}"}', 'result: {n: "{{ fetch.n }}", m: 1}',
        Divergence("another result", "end", "", "ends COMPLETED", "gets another result.m", {"result.m": [None, 1]}),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "turn,old,new,divergence", DIVERGENCES, ids=[f"{one.what} at {one.step}" for *_, one in DIVERGENCES]
)
def test_a_divergence_names_turn_step_and_condition(turn: int, old: str, new: str, divergence: Divergence) -> None:
    """And what was done and what would be done instead."""
    assert compare(edit(old, new))[0] == (turn, divergence)


MENDED = [
    (
        "> workload.limit }}", "> workload.limits }}", '> action_completed fetch {"n": 12}',
        "{{ fetch.n > workload.limits }}: `workload.limits` is undefined: there is no such key in a mapping",
        "fails fetch, ends FAILED", "starts alert",
    ),
    (
        "max_attempts: 2", "max_attempts: 1", '> action_failed fetch {"message": "no"}',
        "", "fails fetch, ends FAILED", "tries again fetch",
    ),
    ("limit: 10", "limit: '{{ 1 / 0 }}'", "", "{{ 1 / 0 }}: it divides by zero", "ends FAILED", "starts fetch"),
]  # fmt: skip


@pytest.mark.parametrize("mended,broken,story,because,was,instead", MENDED, ids=["template", "retry", "workload"])
def test_an_edit_that_mends_a_failure_says_that_it_is_gone(
    mended: str, broken: str, story: str, because: str, was: str, instead: str
) -> None:
    """With the template that failed."""
    history = history_of(playbook(edit(mended, broken)), f"> execution_start\n{story}")
    comparison = Comparison(history, playbook(OWN))
    [found] = [one for turn in history.turns if (one := comparison.apply(turn)) is not None]
    where = "start" if not story else "fetch"
    assert found == Divergence("the failure is gone", where, because, was, instead, {})


def test_another_failure_is_not_gone() -> None:
    """Both versions fail in the same turn."""
    story = '> execution_start\n> action_completed fetch {"n": 12}'
    history = history_of(playbook(edit("> workload.limit }}", "> workload.limits }}")), story)
    comparison = Comparison(history, playbook(edit("> workload.limit }}", "> workload.most }}")))
    assert [one and one.what for one in map(comparison.apply, history.turns)] == [None, "another result"]


def test_a_failure_that_is_undone_may_be_gone() -> None:
    """The execution has not ended in the turn that failed: it undoes what it did."""
    own = OWN.replace("  type: http", "  type: http\n  compensate: {type: http}")
    broken = own.replace("> workload.limit }}", "> workload.limits }}")
    history = history_of(playbook(broken), '> execution_start\n> action_completed fetch {"n": 12}')
    comparison = Comparison(history, playbook(own))
    assert [one and one.what for one in map(comparison.apply, history.turns)] == [None, "the failure is gone"]


def test_a_join_that_would_still_wait_is_a_divergence() -> None:
    """In the edited playbook another branch leads to the join, and the history ends before it."""
    own = "workflow:\n- {step: start, next: [a, b]}\n- {step: a, type: python, code: x, next: j}\n"
    own += "- {step: b, type: python, code: x}\n- {step: j, type: python, code: x}\n"
    edited = own.replace("step: b, type: python, code: x", "step: b, type: python, code: x, next: j")
    start, answer = history_of(playbook(own), "> execution_start\n> action_completed a").turns
    comparison = Comparison(history_of(playbook(own), ""), playbook(edited))
    assert comparison.apply(start) is None
    assert comparison.apply(answer) == Divergence("a missing step", "a", "", "starts j", "waits at j", {})


def test_with_ways_only_other_inputs_of_a_job_are_a_note() -> None:
    """The comparison continues to the end of the history."""
    found, notes = compare(edit('args: {n: "{{ fetch.n }}"}', 'args: {n: "{{ fetch.n + 1 }}"}'), ways_only=True)
    assert (found, notes) == (None, [Note("alert", "another job: gets another args.n")])


def test_a_running_execution_is_compared_up_to_its_last_turn() -> None:
    """Nothing is assumed about later turns."""
    story = '> execution_start\n> action_completed fetch {"n": 1}'
    assert compare(edit("step: alert, type: python", "step: alert, type: noop"), story) == (None, [])


def test_a_history_that_its_own_playbook_decides_differently_is_not_compared() -> None:
    """Its difference would look like one of the edit."""
    *before, third = history_of(playbook(OWN), STORY).turns[:3]
    comparison = Comparison(history_of(playbook(edit("> workload.limit }}", "> 20 }}")), ""), playbook(OWN))
    assert [comparison.apply(turn) for turn in before] == [None, None]
    with pytest.raises(HistoryFault, match="its own playbook decides turn 3 differently than it was written"):
        comparison.apply(third)


COOL = """
workflow:
- {step: start, next: cool}
- {step: cool, type: wait, for: 3d, next: end}
- {step: end}
"""
UNTIL = "2026-01-04T00:00:00.000001Z"


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ("for: 3d", "for: 72h", None),
        (
            "for: 3d",
            "for: 1h",
            Divergence(
                "another wait",
                "cool",
                "",
                "waits at cool",
                "gets another until",
                {"until": [UNTIL, "2026-01-01T01:00:00.000001Z"]},
            ),
        ),
        (
            "for: 3d",
            "for: 0",
            Divergence("a missing step", "start", "", "starts cool", "completes cool, ends COMPLETED", {}),
        ),
        (
            "type: wait, for: 3d",
            "type: python, code: x",
            Divergence("another job", "cool", "", "waits at cool", "runs cool", {}),
        ),
    ],
)
def test_another_wait_is_a_divergence(old: str, new: str, expected: Divergence | None) -> None:
    """Another moment, none at all, or a job in place of the wait."""
    comparison = Comparison(history_of(playbook(COOL), "> execution_start"), playbook(COOL.replace(old, new)))
    found = [comparison.apply(turn) for turn in history_of(playbook(COOL), "> execution_start").turns]
    assert found == [expected]

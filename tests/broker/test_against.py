"""A recorded history against an edited playbook: where the ways part, because of what, and what would be instead."""

from __future__ import annotations

import pytest

from noetl_broker.broker.against import Comparing, Found
from noetl_broker.broker.contrast import Note, Parting
from noetl_broker.errors import HistoryFault
from tests.histories import recorded
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


def compare(edited: str, story: str = STORY, *, ways_only: bool = False) -> tuple[Found | None, list[Note]]:
    """Take the history of the story on OWN against an edited playbook."""
    history = recorded(OWN, story)
    comparing = Comparing(history, playbook(edited), ways_only=ways_only)
    found = next((found for turn in history.turns if (found := comparing.take(turn)) is not None), None)
    return found, [*comparing.notes]


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
def test_what_leads_the_same_way_is_no_parting(old: str, new: str) -> None:
    """Descriptions, steps that were not reached, conditions that come out the same, limits, the text of code."""
    assert compare(edit(old, new))[0] is None


OTHERWISE = "{{ fetch.n > 20 }} is false, {{ fetch.n > workload.limit }} was true"
NOTES = [
    ('code: "def main(n): ..."', 'code: "def main(n): return n"', Note("alert", "its job has another code_b64")),
    ("max_attempts: 2", "max_attempts: 3", Note("fetch", "its job has another max_attempts")),
    ("initial_delay: 1", "initial_delay: 2", Note("fetch", "another pause before the next attempt")),
    ("limit: 10, words", "limit: 10, more: 1, words", Note("start", "the workload has another more")),
    (
        '{when: "{{ fetch.n > workload.limit }}", step: alert, args: {n: "{{ fetch.n }}"}}\n  - else: [{step: log}]',
        '{when: "{{ fetch.n > 20 }}", step: log, else: [{step: alert, args: {n: "{{ fetch.n }}"}}]}',
        Note("fetch", f"leads the same way, though {OTHERWISE}"),
    ),
    (
        "next: both}\n- {step: log",
        "next: via}\n- {step: via, type: route, next: both}\n- {step: log",
        Note("via", "a router more is passed"),
    ),
]


@pytest.mark.parametrize("old,new,note", NOTES, ids=[note.what for *_, note in NOTES])
def test_what_may_matter_of_it_is_noted(old: str, new: str, note: Note) -> None:
    """Once for an execution, with the step."""
    found, notes = compare(edit(old, new))
    assert (found, notes.count(note)) == (None, 1)


PARTINGS = [
    (
        3, "> workload.limit }}", "> 20 }}",
        Parting(
            "another step", "fetch", OTHERWISE,
            "starts alert", "starts log", {},
        ),
    ),
    (
        3, "step: alert, args: {n", "then: [alert, log], args: {n",
        Parting(
            "a step more", "fetch", "{{ fetch.n > workload.limit }} is true and leads to alert, log, not to alert",
            "starts nothing", "starts log", {},
        ),
    ),
    (
        3, "  - else: [{step: log}]", '  - {when: "{{ fetch.n }}", step: log}',
        Parting("a step more", "fetch", "{{ fetch.n }} is true, and is new", "starts nothing", "starts log", {}),
    ),
    (
        4, 'code: "def main(n): ...", next: both}', 'code: "def main(n): ...", next: end}',
        Parting("a step less", "alert", "", "starts child, each", "ends COMPLETED", {}),
    ),
    (
        2, "retry: {max_attempts: 2", "retry: {max_attempts: 1",
        Parting("another outcome", "fetch", "", "tries again fetch", "fails fetch, ends FAILED", {}),
    ),
    (
        1, "{{ workload.limit }}.example", "{{ workload.limit }}.test",
        Parting(
            "another job", "fetch", "", "runs fetch", "gets another url",
            {"url": ["https://10.example", "https://10.test"]},
        ),
    ),
    (
        3, 'args: {n: "{{ fetch.n }}"}', 'args: {n: "{{ fetch.n + 1 }}"}',
        Parting("another job", "alert", "", "runs alert", "gets another args.n", {"args.n": [12, 13]}),
    ),
    (
        3, 'workload.limit }}", step: alert, args: {n: "{{ fetch.n }}"}}',
        '20 }}", step: log, else: [{step: alert, args: {n: 0}}]}',
        Parting("a step more", "fetch", OTHERWISE, "starts nothing", "starts log", {}),
    ),
    (
        3, 'workload.limit }}", step: alert, args: {n: "{{ fetch.n }}"}}\n  - else: [{step: log}]',
        '20 }}", step: log, else: [{step: alert, args: {n: 0}}]}',
        Parting(
            "another job", "alert", f"fetch: {OTHERWISE}", "runs alert", "gets another args.n", {"args.n": [12, 0]}
        ),
    ),
    (
        1, "workload: {limit: 10", 'workload: {limit: "{{ 1 / 0 }}"',
        Parting("it does not start", "start", "it divides by zero", "starts", "ends FAILED", {}),
    ),
    (
        3, "> workload.limit }}", "> workload.limits }}",
        Parting(
            "a template fails", "fetch",
            "{{ fetch.n > workload.limits }}: `workload.limits` is undefined: there is no such key in a mapping",
            "starts alert", "ends FAILED", {},
        ),
    ),
    (
        4, "path: other, args: {n: 1}", "path: other, args: {n: 2}",
        Parting("another job", "child", "", "runs child", "gets another args.n", {"args.n": [1, 2]}),
    ),
    (
        4, "path: other", "path: another",
        Parting("another job", "child", "", "runs child", "gets another path", {"path": ["other", "another"]}),
    ),
    (
        4, 'collection: "{{ workload.words }}"', "collection: [a, b, c]",
        Parting("a step more", "alert", "", "starts nothing", "starts each", {}),
    ),
    (
        4, 'collection: "{{ workload.words }}"', "collection: [a, c]",
        Parting("another job", "each", "", "runs each", "gets another args.word", {"args.word": ["b", "c"]}),
    ),
    (
        8, 'result: {n: "{{ fetch.n }}"}', 'result: {n: "{{ fetch.n }}", m: 1}',
        Parting("another result", "end", "", "ends COMPLETED", "gets another result.m", {"result.m": [None, 1]}),
    ),
]  # fmt: skip


@pytest.mark.parametrize("turn,old,new,parting", PARTINGS, ids=[f"{one.what} at {one.step}" for *_, one in PARTINGS])
def test_the_parting_is_told(turn: int, old: str, new: str, parting: Parting) -> None:
    """In which turn, what is other, because of which condition, what was done and what would be done instead."""
    assert compare(edit(old, new))[0] == Found(turn, 100 + turn, parting)


def test_a_join_that_would_still_wait_is_told() -> None:
    """Its other branch has become one that leads to it, and the history has not got so far."""
    own = "workflow:\n- {step: start, next: [a, b]}\n- {step: a, type: python, code: x, next: j}\n"
    own += "- {step: b, type: python, code: x}\n- {step: j, type: python, code: x}\n"
    edited = own.replace("step: b, type: python, code: x", "step: b, type: python, code: x, next: j")
    start, answer = recorded(own, "> execution_start\n> action_completed a").turns
    comparing = Comparing(recorded(own, ""), playbook(edited))
    assert comparing.take(start) is None
    assert comparing.take(answer) == Found(2, 102, Parting("a step less", "a", "", "starts j", "waits at j", {}))


def test_with_ways_only_a_job_that_is_told_otherwise_is_noted() -> None:
    """And the history goes on: here to its end."""
    found, notes = compare(edit('args: {n: "{{ fetch.n }}"}', 'args: {n: "{{ fetch.n + 1 }}"}'), ways_only=True)
    assert (found, notes) == (None, [Note("alert", "another job: gets another args.n")])


def test_a_running_execution_is_compared_as_far_as_it_goes() -> None:
    """What its history does not tell yet is not guessed."""
    story = '> execution_start\n> action_completed fetch {"n": 1}'
    assert compare(edit("step: alert, type: python", "step: alert, type: noop"), story) == (None, [])


def test_a_history_that_its_own_playbook_did_not_write_is_not_compared() -> None:
    """Else the difference would be taken for one of the edit."""
    *before, third = recorded(OWN, STORY).turns[:3]
    comparing = Comparing(recorded(edit("> workload.limit }}", "> 20 }}"), ""), playbook(OWN))
    assert [comparing.take(turn) for turn in before] == [None, None]
    with pytest.raises(HistoryFault, match="in turn 3 its own playbook decides otherwise than was written"):
        comparing.take(third)

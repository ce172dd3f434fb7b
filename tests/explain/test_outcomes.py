"""Explains how an execution ended: its result, the step and event that failed it, who cancelled it."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.broker.model.event import Emitted
from noetl_broker.explain.facts import ForkFact, ScheduleFact, SignalFact
from tests.explanations import execution_lines, facts_of, step_lines
from tests.forks import history_of
from tests.stories import dedented, playbook

PAIR = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, retry: 2, next: j}
- {step: b, type: python, code: x, next: j}
- {step: j, type: python, code: x, args: {n: "{{ a.n }}"}, next: end}
- {step: end}
"""


def explained(body: str, story: str, **more: object) -> str:
    """The explanation of the execution of a story."""
    history = history_of(playbook(body), story)
    return execution_lines(history, facts_of(history, **more))


def test_a_completed_execution_names_the_source_of_its_result() -> None:
    """Branch ends, `end.result`, or none."""
    story = '> execution_start\n> action_completed a {"n": 1}\n> action_completed b 2\n> action_completed j 3'
    assert explained(PAIR, story) == dedented("""
        execution 1 (story version 1) completed after 1 min 30 s, with the result 3
          it completed when the broker read action_completed (event 104, turn 4): no step was left to run
            its result is the data of j
          it went through start, a, b, j and end
    """)
    said = explained(PAIR.replace("{step: end}", "{step: end, result: 7}"), story)
    assert "its result was rendered from `result` of the step end" in said
    two = """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x}
        - {step: b, type: python, code: x}
        """
    assert "its result is the data of a and b, where branches ended" in explained(
        two, "> execution_start\n> action_completed a 1\n> action_completed b 2"
    )
    none = "workflow:\n- {step: start, next: end}\n- {step: end}"
    assert "it has no result: no branch ended with data" in explained(none, "> execution_start")


def test_a_failed_execution_names_the_failure_and_what_was_still_open() -> None:
    """With earlier attempts, the message, and the command for a retry."""
    story = """
        > execution_start
        > action_failed a {"message": "busy"}
        > action_failed a {"message": "no network"}
        """
    assert explained(PAIR, story) == dedented("""
        execution 1 (story version 1) failed after 1 min 30 s, in step a: no network
          a failed on action_failed (event 103, turn 3)
            attempt 1 of 2 failed before: busy
            b was still running and was cancelled
          it went through start, a and b
          noetl-broker retry 1 continues it from the failure
    """)


def test_a_payload_that_does_not_fit_is_to_be_corrected() -> None:
    """A retry keeps the payload, and does not check it."""
    body = "workload_schema: {required: [order]}\nworkflow: [{step: start, next: end}, {step: end}]"
    said = explained(body, "> execution_start").splitlines()
    assert (
        said[-1]
        == "  noetl-broker start story --payload … starts it with a payload that fits; a retry keeps the payload"
    )


CHILDREN = """
workflow:
- {step: start, next: c}
- {step: c, type: playbook, path: child}
"""
ITEMS = """
workflow:
- {step: start, next: c}
- {step: c, type: iterator, collection: [1, 2], element: n, mode: async, task: {type: playbook, path: child}}
"""


def test_a_failure_names_the_failed_child_or_item() -> None:
    """With the command that explains the child."""
    told_child = '{"message": "no", "child_execution_id": 77, "child_step": "s"}'
    child = history_of(playbook(CHILDREN), f"> execution_start\n> action_failed c {told_child}")
    says = "that was execution 77, in its step s: noetl-broker explain 77"
    assert execution_lines(child, facts_of(child)).splitlines()[2] == f"    {says}"
    assert step_lines(child, "c").splitlines()[-1] == f"      {says}"
    item = history_of(playbook(ITEMS), '> execution_start\n> execution_failed c[1] {"message": "no"}')
    assert execution_lines(item, facts_of(item)).splitlines()[2] == "    that was item 1"


def test_a_result_names_the_child_execution_that_it_came_from() -> None:
    """A result names the child execution that it came from."""
    source = history_of(playbook(CHILDREN), "> execution_start\n> action_completed c 5")
    first, letter = source.turns
    turns = (first, letter._replace(event=letter.event._replace(meta={"child_execution_id": 77})))
    history = type(source)(**{name: getattr(source, name) for name in source.__slots__} | {"turns": turns})
    said = "    its result is 5, from action_completed (event 102, turn 2) of execution 77"
    assert said in step_lines(history, "c").splitlines()


def test_a_step_that_was_open_at_the_end_names_the_reason_of_the_end() -> None:
    """It has no end of its own."""
    failed = history_of(playbook(PAIR), '> execution_start\n> action_failed a {"message": "no"}; not retryable')
    assert step_lines(failed, "b").splitlines()[0] == (
        "b of execution 1 (story version 1, FAILED) was still running when the execution failed, in step a: no"
    )
    cancelled = history_of(playbook(PAIR), '> execution_start\n> execution_cancel {"reason": "too late"}')
    assert step_lines(cancelled, "b").splitlines()[0] == (
        "b of execution 1 (story version 1, CANCELLED) was still running when the execution was cancelled: too late"
    )


def test_a_failed_template_is_explained_with_the_values_that_it_read() -> None:
    """Of a `when`, of inputs, of a field: the text, its place, the values and their sources."""
    story = '> execution_start\n> action_completed a {"v": 1}\n> action_completed b 2'
    complaint = "`a.n` is undefined: there is no such key in a mapping"
    assert explained(PAIR, story).replace(complaint, "COMPLAINT") == dedented("""
        execution 1 (story version 1) failed after 1 min 30 s, in step j: COMPLAINT (at workflow[3].args.n)
          j failed on action_completed (event 103, turn 3)
            the template was {{ a.n }} at workflow[3].args.n
              a.n was undefined
              a was the result of a: action_completed (event 102, turn 2)
          it went through start, a, b and j
          mend the template, register it, then noetl-broker retry 1 --version latest continues it
    """)
    field = """
        workflow:
        - {step: start, next: a}
        - {step: a, type: http, args: {city: Rome}, url: "{{ city }}/{{ nothing }}"}
        """
    assert [line.strip() for line in explained(field, "> execution_start").splitlines()[2:7]] == [
        "the template was {{ city }}/{{ nothing }} at workflow[1].url",
        'city was "Rome"',
        "nothing was undefined",
        "city was an input of a",
        "nothing is no input, step or workload key",
    ]


def test_a_join_that_waited_when_the_execution_failed_is_named() -> None:
    """A join that waited when the execution failed is named."""
    story = "> execution_start\n> action_completed b 2" + 2 * '\n> action_failed a {"message": "x"}'
    assert "    j was still waiting" in explained(PAIR, story).splitlines()


def test_a_retried_execution_names_its_retry() -> None:
    """Instead of the command."""
    story = '> execution_start\n> action_failed b {"message": "no"}'
    said = explained(PAIR, story, forks=(ForkFact(9, "COMPLETED", retry=False), ForkFact(8, "RUNNING", retry=True)))
    assert said.splitlines()[-1] == "  it is continued as execution 8, which is RUNNING"


def test_a_cancelled_execution_names_the_event_that_cancelled_it() -> None:
    """With its reason and what was still open."""
    said = explained(PAIR, '> execution_start\n> execution_cancel {"reason": "wrong city"}')
    assert said == dedented("""
        execution 1 (story version 1) was cancelled after 1 min 30 s: wrong city
          it was cancelled on execution_cancel (event 102, turn 2)
            a and b were still running and were cancelled
          it went through start, a and b
    """)


def test_a_deadline_is_no_failure_of_a_step() -> None:
    """The execution itself failed."""
    history = history_of(playbook(PAIR, metadata="deadline: 5"), "> execution_start\n> execution_deadline")
    assert execution_lines(history, facts_of(history)).splitlines()[:2] == [
        "execution 1 (story version 1) failed after 1 min 30 s: the deadline of 5 s passed",
        "  it failed on execution_deadline (event 102, turn 2)",
    ]


def test_an_end_that_this_version_decides_differently_is_reported() -> None:
    """Steps that only this version would start are not part of the path."""
    error = {"message": "playbook story does not compile: the type `dbt` is not known"}
    refused = Emitted("execution_failed", "FAILED", error=error, meta={"turn": 1})
    source = history_of(playbook(PAIR), "> execution_start")
    turns = (source.turns[0]._replace(events=(refused,)),)
    changed = type(source)(**{name: getattr(source, name) for name in source.__slots__} | {"turns": turns})
    assert execution_lines(changed, facts_of(changed, status="FAILED")).splitlines()[1:] == [
        "  it failed on execution_start (event 101, turn 1)",
        "    this version decides turn 1 differently (noetl-broker replay shows how)",
        "  noetl-broker retry 1 continues it from the failure",
    ]


TYPO = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: [{when: "{{ a.more }}", step: b}]}
- {step: b, type: python, code: x, args: {n: "{{ a.n.m }}"}, next: a}
"""
TO_B = '> execution_start\n> action_completed a {"more": true}'
MENDED = "register it, then noetl-broker retry 1 --version latest continues it"


@pytest.mark.parametrize(
    "metadata, story, more, says",
    [
        ("", TO_B, {}, f"mend the template, {MENDED}"),
        ("max_visits: 1", "> execution_start", {}, f"raise `max_visits`, {MENDED}"),
        ("", "> execution_start\n> action_completed a 1", {}, "noetl-broker retry 1 continues it from the failure"),
        (
            "",
            TO_B,
            {"parent": 5},
            "its parent 5 does not wait for a retry of it: noetl-broker explain 5 says what helps",
        ),
    ],
)
def test_a_retry_is_advised_where_it_can_help(metadata: str, story: str, more: dict[str, Any], says: str) -> None:
    """The same version fails again at its limit, and in a template that reads what a retry keeps."""
    history = history_of(playbook(TYPO, metadata=metadata), story)
    said = execution_lines(history, facts_of(history, **more)).splitlines()[-1].strip()
    assert said == says


def test_an_end_that_no_turn_wrote_is_reported() -> None:
    """Turns are missing, or another broker ran it."""
    history = history_of(playbook(PAIR), "> execution_start")
    said = execution_lines(history, facts_of(history, status="FAILED"))
    assert "no turn wrote its end" in said


@pytest.mark.parametrize(
    "fact, says",
    [
        ({"parent": 5}, "a child of 5"),
        ({"forked_from": 5}, "it continues 5"),
        (
            {"schedule": ScheduleFact("nightly", "2026-11-28T02:00:00Z")},
            "started by the schedule nightly for 2026-11-28T02:00:00Z",
        ),
        (
            {"signal": SignalFact("asked", "7", "2026-11-28T02:00:00Z")},
            "started by the signal asked of 7, sent at 2026-11-28T02:00:00Z",
        ),
    ],
)
def test_the_headline_names_what_started_it(fact: dict[str, Any], says: str) -> None:
    """The parent, the source of a fork, the schedule, or the signal."""
    assert explained(PAIR, "> execution_start", **fact).splitlines()[0].endswith(f"; {says}")

"""The clock of a simulation jumps to what comes next: timers, delays, late answers, pauses, signals and decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noetl_broker import JobFailed, SimulationFault, Story, delayed, in_turn, simulate
from noetl_broker.history.story import STORY_START
from tests.stories import document


def ends(story: Story) -> dict[str, tuple[str, datetime | None]]:
    """Return the status and the end of each step."""
    return {visit.step: (visit.status, visit.ended_at) for visit in story.steps}


def test_three_days_pass_in_no_time() -> None:
    """The result of the wait is its moment."""
    story = simulate(
        document("""
workflow:
- {step: start, next: cool}
- {step: cool, type: wait, for: 3d, next: remind}
- {step: remind, type: python, code: "def main(): return 1", next: end}
- {step: end, result: "{{ cool }}"}
"""),
        {"remind": 1},
    )
    assert (story.result, story.waited) == ({"waited_until": "2026-01-04T00:00:01.000000Z"}, timedelta(days=3))
    assert ends(story)["cool"] == ("COMPLETED", datetime(2026, 1, 4, 0, 0, 1, tzinfo=UTC))
    assert story.visits("cool")[0].result == {"waited_until": "2026-01-04T00:00:01.000000Z"}


BRANCHES = document("""
workflow:
- {step: start, next: [cool, work]}
- {step: cool, type: wait, for: 1h, next: first}
- {step: work, type: python, timeout: 7200, code: "def main(): return 1", next: first}
- {step: first, join: any, next: end}
- {step: end}
""")


@pytest.mark.parametrize(
    "after, cool, work, minutes",
    [
        ("30m", "CANCELLED", "COMPLETED", 30),
        (timedelta(hours=1.5), "COMPLETED", "COMPLETED", 90),
        (86_400, "COMPLETED", "FAILED", 120),
    ],
)
def test_an_answer_may_take_time(after: str | float | timedelta, cool: str, work: str, minutes: int) -> None:
    """The first of both wins. `end` waits for the work, until its timeout at most."""
    story = simulate(BRANCHES, {"work": delayed(5, after=after)})
    statuses = {step: status for step, (status, _) in ends(story).items()}
    assert (story.status, statuses["cool"], statuses["work"]) == ("COMPLETED", cool, work)
    assert round(story.waited.total_seconds() / 60) == minutes


def test_a_retry_comes_after_its_delay() -> None:
    """30, then 60 seconds."""
    story = simulate(
        document("""
workflow:
- {step: start, next: a}
- step: a
  type: python
  retry: {max_attempts: 3, initial_delay: 30, backoff_multiplier: 2, jitter: false}
  code: "def main(): return 1"
"""),
        {"a": in_turn(JobFailed("no"), JobFailed("no"), 7)},
    )
    assert (story.result, story.waited) == (7, timedelta(seconds=90))


@pytest.mark.parametrize("deadline", ["60", '"{{ limit }}m"'])
def test_a_deadline_ends_what_takes_longer(deadline: str) -> None:
    """Nothing else is left on the agenda."""
    story = simulate(
        document(
            "workload: {limit: 1}\nworkflow: [{step: start, next: cool}, {step: cool, type: wait, for: 3d}]\n",
            metadata=f"deadline: {deadline}",
        )
    )
    assert (story.status, story.error["type"], story.waited) == ("FAILED", "deadline", timedelta(seconds=60))


def test_a_step_that_calls_a_playbook_times_out() -> None:
    """The child waits longer; it is cancelled."""
    child = document("workflow: [{step: start, next: c}, {step: c, type: wait, for: 2d}]", path="child")
    body = "workflow:\n- {step: start, next: call}\n- {step: call, type: playbook, path: child, timeout: 3600}\n"
    story = simulate(document(body), playbooks=[child])
    assert (story.status, story.error["type"], story.waited) == ("FAILED", "timeout", timedelta(hours=1))
    assert [one.status for one in story.children] == ["CANCELLED"]


def test_the_late_end_of_a_block_that_timed_out_leaves_its_next_attempt_alone() -> None:
    """The block waits for the action that it undoes; meanwhile the next attempt runs, and times out too."""
    body = """
workflow:
- {step: start, next: block}
- step: block
  type: playbook
  timeout: 10
  retry: {max_attempts: 3, initial_delay: 1, jitter: false}
  workflow:
  - {step: start, next: slow}
  - {step: slow, type: python, code: "def main(): return 1", compensate: {type: python, code: "def main(): return 1"}}
"""
    story = simulate(document(body), {"block.slow": delayed(1, after=12), "block.slow!undo": None})
    assert (story.status, story.error["type"], len(story.children)) == ("FAILED", "timeout", 3)


def test_a_bad_duration_is_refused() -> None:
    """The fault names the value and the forms."""
    with pytest.raises(SimulationFault, match="after='soon' is no duration: a duration is a number of seconds"):
        delayed(1, after="soon")


TWO = document("""
workflow:
- {step: start, next: a}
- {step: a, type: python, code: "def main(): ...", next: b}
- {step: b, type: python, code: "def main(): ...", next: end}
- {step: end}
""")


def test_a_paused_execution_goes_on_when_it_is_resumed() -> None:
    """What a worker has begun ends meanwhile."""
    story = simulate(
        TWO, {"a": delayed(1, after="2h"), "b": 2}, pauses=[{"after": "1h", "for": "1d", "reason": "count"}]
    )
    assert (story.status, story.result, story.waited.days) == ("COMPLETED", 2, 1)
    assert [visit.began_at for visit in story.visits("b")] == [STORY_START + timedelta(hours=25)]
    assert '> execution_pause {"reason": "count"}' in story.text.splitlines()


def test_a_job_of_a_paused_execution_is_held() -> None:
    """Without a resume it stays; the deadline counts all the same."""
    story = simulate(TWO, {"a": 1, "b": 2}, pauses=[{}])
    assert (story.status, story.jobs) == ("PAUSED", ())
    late = simulate(TWO.replace("path: story}", "path: story, deadline: 60}"), {"a": 1, "b": 2}, pauses=[{"for": "2m"}])
    assert (late.status, late.error["type"]) == ("FAILED", "deadline")


def test_a_child_is_paused_with_its_parent() -> None:
    """And resumed with it."""
    body = "workflow:\n- {step: start, next: call}\n- {step: call, type: playbook, path: child}\n"
    story = simulate(
        document(body),
        {"a": 1, "b": 2},
        playbooks=[TWO.replace("story", "child")],
        pauses=[{"for": "1h", "reason": "count"}],
    )
    assert (story.status, story.result) == ("COMPLETED", 2)
    assert [line for line in story.children[0].text.splitlines() if "parent_execution_id" in line] == [
        '> execution_pause {"parent_execution_id": 1, "reason": "count"}',
        '    event execution_paused {"reason": "count", "parent_execution_id": 1}',
        '> execution_resume {"parent_execution_id": 1}',
    ]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("1h", "pauses[0] is '1h'; write a mapping with some of after, for, reason"),
        ({"until": "1h"}, "pauses[0] is {'until': '1h'}; write a mapping with some of after, for, reason"),
        ({"for": "soon"}, "pauses[0]: for is 'soon', not a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H"),
    ],
)
def test_a_wrong_pause_is_refused(wrong: Any, message: str) -> None:
    """With what to write."""
    with pytest.raises(SimulationFault) as caught:
        simulate(TWO, {"a": 1, "b": 2}, pauses=[wrong])
    assert str(caught.value) == message


PAID = document("""
workload: {order: 42}
workflow:
- {step: start, next: paid}
- {step: paid, type: wait, signal: payment, key: "{{ order }}", when: "{{ signal.payload.amount > 9 }}", timeout: 1d}
""")


def test_a_wait_takes_the_first_signal_that_fits() -> None:
    """The clock jumps to its moment."""
    signals = [
        {"name": "payment", "key": 42, "payload": {"amount": 20}, "after": "3h"},
        {"name": "payment", "key": 42, "payload": {"amount": 5}, "after": "1h"},
        {"name": "payment", "key": 43, "payload": {"amount": 30}},
    ]
    story = simulate(PAID, signals=signals)
    assert (story.result, story.status) == ({"amount": 20}, "COMPLETED")
    assert timedelta(hours=2) < story.waited <= timedelta(hours=3)
    assert "    reopen paid" in story.text.splitlines()
    assert [line for line in story.text.splitlines() if line.startswith("#")] == [
        '# no wait took signal payment 43 {"amount": 30}',
        '# no wait took signal payment 42 {"amount": 5}',
    ]


def test_the_timeout_of_a_wait_that_is_over_is_forgotten() -> None:
    """The clock does not stop at it."""
    body = PAID.replace("timeout: 1d", "timeout: 1d, next: cool") + "- {step: cool, type: wait, for: 2d}\n"
    story = simulate(body, signals=[{"name": "payment", "key": 42, "payload": {"amount": 20}}])
    assert story.status == "COMPLETED"
    assert [line for line in story.text.splitlines() if line.startswith("> timer_due paid")] == []


def test_a_signal_that_comes_too_late_does_not_count() -> None:
    """The timeout was first."""
    story = simulate(PAID, signals=[{"name": "payment", "key": "42", "payload": {"amount": 20}, "after": "25h"}])
    assert (story.status, story.error["type"]) == ("FAILED", "timeout")


def test_a_signal_to_the_execution_misses_a_wait_with_a_key() -> None:
    """The story says so; one that a later wait takes is not named."""
    story = simulate(PAID, signals=[{"name": "payment", "payload": {"amount": 20}}])
    assert (story.status, story.text.splitlines()[-1]) == ("FAILED", '# no wait took signal payment 1 {"amount": 20}')
    later = document("""
workflow:
- {step: start, next: first}
- {step: first, type: wait, signal: go, when: "{{ signal.payload == 2 }}", next: second}
- {step: second, type: wait, signal: go}
""")
    story = simulate(later, signals=[{"name": "go", "payload": number} for number in (1, 2)])
    assert (story.result, "#" in story.text) == (1, False)


def test_a_signal_before_the_start_counts_for_a_wait_with_since() -> None:
    """Without it only later ones do."""
    signals = [{"name": "go", "payload": 1, "before": "1h"}]
    body = document("workflow: [{step: start, next: go}, {step: go, type: wait, signal: go, timeout: 1d}]")
    assert simulate(body, signals=signals).status == "FAILED"
    assert simulate(body.replace("timeout", "since: 2h, timeout"), signals=signals).result == 1


def test_a_child_signals_its_parent() -> None:
    """By a key that both know."""
    parent = document("""
workflow:
- {step: start, next: [call, told]}
- {step: call, type: playbook, path: child}
- {step: told, type: wait, signal: done, key: k}
""")
    child = document(
        """
workflow:
- {step: start, next: tell}
- {step: tell, type: signal, signal: done, key: k, payload: {n: 7}}
""",
        path="child",
    )
    assert simulate(parent, playbooks=[child]).visits("told")[0].result == {"n": 7}


def test_a_wrong_signal_is_refused() -> None:
    """With its place and the forms."""
    with pytest.raises(SimulationFault, match=r"signals\[0\]: after is 'soon', not a number of seconds"):
        simulate(PAID, signals=[{"name": "payment", "after": "soon"}])


ORDER = document("""
workflow:
- {step: start, next: ask}
- step: ask
  type: approval
  title: "Order {{ workload.order }}"
  form: {discount: {type: number, maximum: 30, default: 0}}
  timeout: 3d
  next: [{when: "{{ ask.approved }}", step: end}, {else: [{step: change}]}]
- {step: change, type: python, code: result = 1, next: ask}
- {step: end, result: {by: "{{ ask.by }}", discount: "{{ ask.discount }}"}}
""")
YES = {"approved": True}


def test_an_approval_is_decided_at_once() -> None:
    """By `tester`; fields that are left out have their defaults. Nobody decides: it times out."""
    story = simulate(ORDER, payload={"order": 7}, approvals={"ask": True})
    assert (story.status, story.result) == ("COMPLETED", {"by": "login:tester", "discount": 0})
    story = simulate(ORDER, payload={"order": 7}, approvals={"ask": {"approved": True, "by": "ann", "discount": 5}})
    assert story.result == {"by": "ann", "discount": 5}
    assert simulate(ORDER, payload={"order": 7}, approvals={"ask": None}).error["type"] == "timeout"


def test_each_visit_has_its_decision() -> None:
    """A function sees what is asked."""
    story = simulate(
        ORDER,
        {"change": 1},
        payload={"order": 7},
        approvals={"ask": in_turn({"approved": False}, lambda shown: {"approved": True, "by": shown["title"]})},
    )
    assert story.result == {"by": "Order 7", "discount": 0}


def test_a_decision_comes_later() -> None:
    """The clock jumps to it, or to the timeout."""
    story = simulate(ORDER, payload={"order": 7}, approvals={"ask": delayed(YES, after="2d")})
    assert (story.status, story.waited.days) == ("COMPLETED", 2)
    story = simulate(ORDER, payload={"order": 7}, approvals={"ask": delayed(YES, after="4d")})
    assert (story.status, story.error["message"], story.waited.days) == ("FAILED", "nobody decided in time", 3)


@pytest.mark.parametrize(
    "approvals, complaint",
    [
        ({}, r"step ask of story waits for a person; decide in simulate: approvals=\{'ask': True\}"),
        ({"asc": True}, r'approvals\[.asc.\]: there is no such step; did you mean "ask"\?'),
        ({"ask": "yes"}, r"approvals\['ask'\] is 'yes'; write True, False, None"),
        ({"ask": {"approved": True, "discount": 40}}, "does not fit the form: discount is 40, the most is 30"),
        ({"ask": in_turn()}, "needs one more decision than the 0"),
    ],
)
def test_a_wrong_decision_is_named(approvals: dict[str, object], complaint: str) -> None:
    """With what to write instead."""
    with pytest.raises(SimulationFault, match=complaint):
        simulate(ORDER, payload={"order": 7}, approvals=approvals)

"""`late_after`: an event says that an execution or a visit is late, and nothing fails."""

from __future__ import annotations

from noetl_broker.broker.model.effects import LateTimerEnded, ReportedLate, StatusChanged, TimerSet
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.state.state import decode, encode
from noetl_broker.history.story import play_turns, read_events
from tests.stories import assert_story, playbook

WORK = """
workload: {team: shop}
workflow:
- {step: start, next: a}
- {step: a, type: http, url: x, late_after: 2h, next: b}
- {step: b, type: http, url: y}
"""
BOTH = 'late_after: 60, on_late: {path: ops/alarm, args: {team: "{{ workload.team }}"}}'
LATE = '> timer_due {"purpose": "late", "due_at": "2026-01-01T00:01:01.000000Z"}'
LATE_STEP = '> timer_due a {"purpose": "late", "due_at": "2026-01-01T02:00:01.000000Z"}'


def test_a_late_execution_or_visit_is_reported_once() -> None:
    """By an event each. `on_late` starts its playbook each time; a second event says nothing new."""
    assert_story(
        WORK,
        f"""
        > execution_start
            event step_started a
            job   a
            timer a late 2026-01-01T02:00:01.000000Z
        {LATE}
            event execution_late {{"since": "2026-01-01T00:01:01.000000Z"}}
            start ops/alarm {{"team": "shop", "execution_id": 1, "path": "story", "step": null, "since": "2026-01-01T00:01:01.000000Z"}}
        {LATE}  (recorded)
        {LATE_STEP}
            event step_late a {{"since": "2026-01-01T02:00:01.000000Z"}}
            start ops/alarm {{"team": "shop", "execution_id": 1, "path": "story", "step": "a", "since": "2026-01-01T02:00:01.000000Z", "visit": 1}}
        {LATE_STEP}  (not_open)
        > action_completed a {{}}
            event step_completed a
            event step_started b
            job   b
            timer a late ends
        {LATE_STEP}  (duplicate)
        > action_completed b {{}}
            event step_completed b
            event execution_complete {{}}
        {LATE}  (after_end)
        """,  # noqa: E501 - one line of a story
        metadata=BOTH,
    )


def test_the_time_counts_from_the_admission_and_also_during_a_pause() -> None:
    """A queued execution has no timer. A paused one is reported."""
    turns = list(
        play_turns(
            playbook(WORK, metadata=BOTH),
            read_events(
                f"> execution_start; path paused\n{LATE}\n> place_free\n> execution_pause\n{LATE}\n{LATE_STEP}"
            ),
        )
    )
    [(_, queued, _), (_, early, _), (_, admitted, _), _, (_, late, _), (_, late_step, state)] = turns
    assert (queued.of(TimerSet), early.outcome) == ([], "recorded")
    assert [change.late_after for change in admitted.of(StatusChanged)] == [60.0]
    assert [event.type for decision in (late, late_step) for event in decision.events] == [
        "execution_late",
        "step_late",
    ]
    assert decode(encode(state)) == state


def test_every_end_of_a_visit_ends_its_timer() -> None:
    """Such as a failure that `on_error` handles, and a cancel by a join. The end of an execution deletes all timers."""
    body = """
    workflow:
    - {step: start, next: [a, b]}
    - {step: a, type: http, url: x, late_after: "{{ workload.limit }}", on_error: continue, next: c}
    - {step: b, type: wait, for: 1h, late_after: 5, next: c}
    - {step: c, type: http, url: y, join: {need: 1, losers: cancel}, late_after: 1}
    """
    start = Event("execution_start", context={"workload": {"limit": "3m"}})
    events = [start, *read_events("> action_failed a {}")]
    begun, failed = (decision for _, decision, _ in play_turns(playbook(body), events))
    assert [(timer.step, timer.purpose) for timer in begun.of(TimerSet)] == [
        ("a", "late"),
        ("b", "wait"),
        ("b", "late"),
    ]
    assert [timer.step for timer in failed.of(LateTimerEnded)] == ["a", "b"]
    [wrong] = (decision for _, decision, _ in play_turns(playbook(body), read_events("> execution_start")))
    assert wrong.ended is not None


def test_a_visit_that_ends_in_the_turn_of_its_beginning_has_no_timer() -> None:
    """Such as a wait whose moment has passed."""
    body = "workflow:\n- {step: start, next: a}\n- {step: a, type: wait, until: '2020-01-01T00:00:00Z', late_after: 5}"
    [begun] = (decision for _, decision, _ in play_turns(playbook(body), read_events("> execution_start")))
    assert (begun.of(TimerSet), begun.ended is not None) == ([], True)


def test_an_alarm_that_is_late_raises_no_alarm() -> None:
    """What `on_failure` or `on_late` started is reported late, and starts nothing."""
    for key in ("on_failure", "on_late"):
        events = [Event("execution_start", meta={key: 7}), *read_events(LATE)]
        [_, (_, decision, state)] = play_turns(playbook(WORK, metadata=BOTH), events)
        assert [late.starts for late in decision.of(ReportedLate)] == [None]
        assert state.failed_before == 7

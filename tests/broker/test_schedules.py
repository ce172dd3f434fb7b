"""What becomes of a schedule's moments: started, skipped, made up, pulled back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noetl_broker.broker.holds.schedules import Move, Schedule, jitter_share, plan_move
from noetl_broker.playbook.cron import read_cron, read_every

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def hourly(**given: Any) -> Schedule:
    """A schedule of each full hour, whose last moment was noon."""
    return Schedule(name="hourly", timing=read_cron("@hourly"), since_at=NOON, **given)


def at(hours: float) -> datetime:
    """A moment so many hours after noon."""
    return NOON + timedelta(hours=hours)


SHARE, NEXT_SHARE = jitter_share("hourly", at(1)), jitter_share("hourly", at(2))
FIRST = Move(since_at=at(1), next_at=at(2), due_at=at(2), start=at(1))
MOVES = {
    "before the next moment nothing starts": (hourly(), 0.5, Move(since_at=NOON, next_at=at(1), due_at=at(1))),
    "a due moment starts": (hourly(), 1, FIRST),
    "of missed moments within catch_up the last starts": (
        hourly(catch_up=3 * HOUR), 4.5,
        Move(since_at=at(4), next_at=at(5), due_at=at(5), start=at(4), skipped=3),
    ),
    "moments late by more than catch_up are skipped": (
        hourly(catch_up=HOUR / 4), 4.5, Move(since_at=at(4), next_at=at(5), due_at=at(5), skipped=4),
    ),
    "a moment late by exactly catch_up starts": (hourly(catch_up=HOUR / 4), 1.25, FIRST),
    "the moments of a paused schedule are skipped": (
        hourly(is_paused=True, paused_at=at(0.5)), 2, Move(since_at=at(2), next_at=at(3), due_at=at(3), skipped=2),
    ),
    "jitter delays a moment by its share": (
        hourly(jitter=9 * HOUR), 1, Move(since_at=NOON, next_at=at(1), due_at=at(1 + SHARE)),
    ),
    "jitter does not delay past the following moment": (
        hourly(jitter=9 * HOUR), 1 + SHARE, replace(FIRST, due_at=at(2 + NEXT_SHARE)),
    ),
    "lateness does not count jitter": (
        hourly(jitter=HOUR, catch_up=timedelta(0)), 1 + SHARE, replace(FIRST, due_at=at(2 + NEXT_SHARE)),
    ),
    "after a step back of the clock an earlier moment is next": (
        hourly(next_at=at(1), moved_at=NOON), -30.5,
        Move(since_at=at(-30.5), next_at=at(-30), due_at=at(-30), pulled_back=True),
    ),
    "a step back that gives no earlier moment changes nothing": (
        hourly(next_at=at(1), moved_at=at(0.5)), 0.2, Move(since_at=NOON, next_at=at(1), due_at=at(1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MOVES)
def test_a_schedule_moves(what: str) -> None:
    """From its last moment to now: what starts, what is skipped, and what is next."""
    schedule, hours, move = MOVES[what]
    assert plan_move(schedule, at(hours)) == move


@pytest.mark.parametrize(
    "watched_since, move",
    [
        (0.5, Move(since_at=at(4), next_at=at(5), due_at=at(5), start=at(4), skipped=3)),
        (3.5, Move(since_at=at(4), next_at=at(5), due_at=at(5), start=at(4), skipped=3)),
        (4, Move(since_at=at(4), next_at=at(5), due_at=at(5), skipped=4)),
    ],
)
def test_what_becomes_due_while_a_broker_watches_is_not_missed(watched_since: float, move: Move) -> None:
    """However late it polls, and with `catch_up: 0`, which makes up nothing."""
    schedule = hourly(catch_up=timedelta(0))
    assert plan_move(schedule, at(4.5), watched_since=at(watched_since)) == move


def test_moments_of_a_pause_that_no_broker_saw_are_skipped() -> None:
    """Moments of a pause that no broker saw are skipped."""
    schedule = hourly(catch_up=9 * HOUR, paused_at=at(1.5), resumed_at=at(3))
    assert plan_move(schedule, at(2.9)) == Move(since_at=at(2), next_at=at(3), due_at=at(3), start=at(1), skipped=1)
    assert plan_move(schedule, at(3)).start == at(3)


def test_a_span_counts_from_the_last_moment() -> None:
    """A span counts from the last moment."""
    schedule = Schedule(name="often", timing=read_every(7 * MINUTE, NOON), since_at=NOON)
    move = plan_move(schedule, NOON + 17 * MINUTE)
    assert (move.start, move.next_at, move.skipped) == (NOON + 14 * MINUTE, NOON + 21 * MINUTE, 1)


def test_one_move_passes_a_bounded_number_of_moments_and_the_next_goes_on() -> None:
    """One move passes a bounded number of moments and the next goes on."""
    schedule = hourly(catch_up=99 * HOUR)
    first = plan_move(schedule, at(10.5), most=7)
    assert first == Move(since_at=at(7), next_at=at(8), due_at=at(8), skipped=7, is_partial=True)
    rest = plan_move(replace(schedule, since_at=first.since_at), at(10.5), most=7)
    assert (rest.start, rest.skipped) == (at(10), 2)


@given(st.text(max_size=20), st.datetimes(timezones=st.just(UTC)))
def test_the_share_of_jitter_is_from_0_to_1_and_always_the_same(name: str, moment: datetime) -> None:
    """The share of jitter is from 0 to 1 and always the same."""
    assert 0 <= jitter_share(name, moment) < 1
    assert jitter_share(name, moment) == jitter_share(name, moment)


def test_the_shares_of_jitter_spread() -> None:
    """The shares of jitter spread."""
    shares = [jitter_share(f"schedule {number}", NOON) for number in range(1000)]
    assert [sum(tenth / 10 <= share < (tenth + 1) / 10 for share in shares) > 60 for tenth in range(10)] == [True] * 10


def test_after_a_step_back_a_span_keeps_its_moments() -> None:
    """After a step back a span keeps its moments."""
    timing = read_every(7 * MINUTE, NOON)
    schedule = Schedule(name="often", timing=timing, since_at=NOON, next_at=NOON + 7 * MINUTE, moved_at=NOON)
    move = plan_move(schedule, NOON - 10 * MINUTE)
    assert (move.since_at, move.next_at) == (NOON - 14 * MINUTE, NOON - 7 * MINUTE)


def test_a_bounded_move_that_reaches_the_last_moment_starts_it() -> None:
    """A bounded move that reaches the last moment starts it."""
    assert plan_move(hourly(catch_up=99 * HOUR), at(7.5), most=7).start == at(7)


def test_a_timing_without_a_further_moment_ends() -> None:
    """A timing without a further moment ends."""
    ended = Schedule(name="ended", timing=read_cron("@yearly"), since_at=datetime(9999, 6, 1, tzinfo=UTC))
    assert plan_move(ended, datetime(9999, 7, 1, tzinfo=UTC)).next_at is None


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[timedelta, str]]:
    """What happens to a schedule, each so long after the one before: polls of brokers, pauses, resumes."""
    steps = st.tuples(st.integers(1, 20_000), st.sampled_from(["poll", "poll", "poll", "pause", "resume"]))
    return [(timedelta(seconds=seconds), what) for seconds, what in draw(st.lists(steps, max_size=25))]


@given(operations(), st.integers(0, 10_000), st.integers(0, 7200), st.integers(1, 5))
def test_each_moment_is_started_or_skipped_once(
    steps: list[tuple[timedelta, str]], catch_up: int, jitter: int, most: int
) -> None:
    """Whatever happens between the polls: a started one is within catch_up and in no pause, and the last such one."""
    timing = read_every(timedelta(minutes=10), NOON)
    schedule = Schedule(
        name="often", timing=timing, since_at=NOON,
        catch_up=timedelta(seconds=catch_up), jitter=timedelta(seconds=jitter),
    )  # fmt: skip
    now, skipped, started = NOON, 0, []
    pauses: list[tuple[datetime, datetime]] = []
    for after, what in steps:
        now += after
        if what == "pause" and not schedule.is_paused:
            unseen = schedule.resumed_at is not None and schedule.since_at + timing.span < schedule.resumed_at
            schedule = replace(schedule, is_paused=True, paused_at=schedule.paused_at if unseen else now)
        elif what == "resume" and schedule.is_paused and schedule.paused_at is not None:
            pauses.append((schedule.paused_at, now))
            schedule = replace(schedule, is_paused=False, resumed_at=now)
        elif what == "poll":
            while True:
                move = plan_move(schedule, now, most=most)
                passed = (move.since_at - schedule.since_at) // timing.span
                assert passed == move.skipped + (move.start is not None)
                skipped += move.skipped
                if move.start is not None:
                    assert not schedule.is_paused
                    assert not any(begin <= move.start < end for begin, end in pauses)
                    assert now - move.start <= schedule.catch_up + schedule.jitter
                    started.append(move.start)
                schedule = replace(schedule, since_at=move.since_at, next_at=move.next_at)
                if not move.is_partial:
                    break
            assert move.due_at is not None
            assert move.due_at > now
    assert len(started) == len(set(started))
    assert len(started) + skipped == (schedule.since_at - NOON) // timing.span

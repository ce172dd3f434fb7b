"""The nominal moments of a schedule: cron texts where clocks change, spans, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noetl_broker.playbook.cron import Cron, Timing, TimingError, read_cron, read_every
from tests.playbook import slow_cron

SPRING = datetime(2026, 3, 28, 12, tzinfo=UTC)  # before Berlin's clock skips 02:00 to 03:00
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=UTC)  # before Berlin's clock repeats 02:00 to 03:00


def local_times(timing: Timing, after: datetime, count: int) -> list[str]:
    """The next moments on the clock of their zone."""
    return [f"{timing.local(moment):%d %H:%M:%S %z}" for moment in islice(timing.moments(after), count)]


@pytest.mark.parametrize(
    "text, after, expected",
    [
        ("30 2 * * *", SPRING, ["29 03:00:00 +0200", "30 02:30:00 +0200"]),
        ("0,30 2 * * *", SPRING, ["29 03:00:00 +0200", "30 02:00:00 +0200"]),
        ("30 2 * * *", AUTUMN, ["25 02:30:00 +0200", "26 02:30:00 +0100"]),
        ("30 * * * *", AUTUMN + timedelta(hours=11), ["25 01:30:00 +0200", "25 02:30:00 +0200", "25 02:30:00 +0100"]),
        ("*/30 2 * * *", SPRING, ["30 02:00:00 +0200", "30 02:30:00 +0200"]),
        ("0 30 2 * * *", SPRING, ["30 02:30:00 +0200", "31 02:30:00 +0200"]),
    ],
    ids=[
        "a skipped time is at the end of the gap",
        "two skipped times are one",
        "a repeated time is its first pass",
        "each hour of the clock, also the repeated one",
        "a skipped time of every half hour is left out",
        "six fields follow the clock",
    ],
)
def test_moments_where_the_clock_changes(text: str, after: datetime, expected: list[str]) -> None:
    """Moments where the clock changes."""
    assert local_times(read_cron(text, "Europe/Berlin"), after, len(expected)) == expected


def test_after_the_first_pass_of_a_repeated_time_comes_the_next_day() -> None:
    """After the first pass of a repeated time comes the next day."""
    second_pass = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert local_times(read_cron("30 2 * * *", "Europe/Berlin"), second_pass, 1) == ["26 02:30:00 +0100"]


def test_nicknames_are_texts_of_debian() -> None:
    """Nicknames are texts of debian."""
    assert local_times(read_cron("@Daily"), SPRING, 1) == local_times(read_cron("0 0 * * *"), SPRING, 1)


def test_a_span_counts_from_its_anchor_in_both_directions() -> None:
    """A span counts from its anchor in both directions."""
    timing = read_every(timedelta(minutes=7), SPRING)
    assert local_times(timing, SPRING - timedelta(minutes=8), 3) == [
        "28 11:53:00 +0000",
        "28 12:00:00 +0000",
        "28 12:07:00 +0000",
    ]


@pytest.mark.parametrize("timing", [read_cron("0 0 29 2 *"), read_every(timedelta(days=3660), SPRING)], ids=str)
def test_moments_end_with_the_years(timing: Timing) -> None:
    """Moments end with the years."""
    assert [*timing.moments(datetime(9999, 6, 1, tzinfo=UTC))] == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("61 * * * *", "the cron text '61 * * * *' is wrong: bad minute; write five fields"),
        ("* * *", "is wrong: wrong number of fields"),
        ("", "is wrong: wrong number of fields"),
        ("@reboot", "the cron text '@reboot' is unknown; known are @yearly"),
        ("* " * 150, "the cron text has 299 characters; it may have 200"),
        ("0 0 30 2 *", "bad day-of-month"),
    ],
)
def test_a_wrong_cron_text_is_refused(text: str, message: str) -> None:
    """A wrong cron text is refused."""
    with pytest.raises(TimingError) as refused:
        read_cron(text)
    assert message in str(refused.value)


@pytest.mark.parametrize("zone", ["", "Europe/Nowhere", "../etc/passwd", "Europe", "\0", "x" * 100])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    """An unknown time zone is refused."""
    with pytest.raises(TimingError, match=r"there is no time zone .*; write an IANA name, such as Europe/Berlin"):
        read_cron("@daily", zone)


@pytest.mark.parametrize("seconds", [0, -1, 0.5, 3660 * 86_400 + 1])
def test_a_span_out_of_bounds_is_refused(seconds: float) -> None:
    """A span out of bounds is refused."""
    with pytest.raises(TimingError, match="is not between 1 s and 3660 days"):
        read_every(timedelta(seconds=seconds), SPRING)


@given(st.text(alphabet="0123456789*/,-#LW@ abcSUNMON²", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_cron_text_or_refused(text: str) -> None:
    """The library fails in no other way, also where it describes what it read."""
    try:
        cron = read_cron(text)
    except TimingError:
        return
    assert str(cron)


@st.composite
def fields(draw: st.DrawFn, least: int, most: int) -> str:
    """One field of a cron text."""
    kind = draw(st.sampled_from(["*", "*/n", "n", "a-b", "a-b/n", "list"]))
    low = draw(st.integers(least, most - 1))
    high = draw(st.integers(low + 1, most))  # cronsim reads `5-5/2` as `5/2`, Debian's cron as `5`
    step = draw(st.integers(1, 12))
    written = {"*": "*", "*/n": f"*/{step}", "n": f"{low}", "a-b": f"{low}-{high}", "a-b/n": f"{low}-{high}/{step}"}
    return written.get(kind) or ",".join({f"{low}", f"{high}", f"{draw(st.integers(least, most))}"})


@st.composite
def crons(draw: st.DrawFn) -> str:
    """A cron text of five or six fields, mostly near 02:00."""
    days = draw(st.sampled_from(["* * *", "* 3,10 *", "29 * *", "25-30 * SUN", "*/2 * 0-3", "1-31 * MON,7"]))
    hours = draw(st.one_of(st.sampled_from(["*", "2", "1-3", "*/2"]), fields(0, 23)))
    seconds = draw(st.sampled_from(["", "", "0 ", "*/20 ", "7 "]))
    return f"{seconds}{draw(fields(0, 59))} {hours} {days}"


@given(
    crons(),
    st.sampled_from(["Europe/Berlin", "America/New_York", "UTC", "Asia/Kolkata", "America/Santiago"]),
    st.sampled_from([SPRING, AUTUMN, datetime(2026, 3, 7, 18, tzinfo=UTC), datetime(2026, 10, 31, 18, tzinfo=UTC)]),
    st.integers(0, 1440),
)
@settings(max_examples=80, deadline=None)
def test_moments_are_those_of_a_slow_interpreter(text: str, zone: str, day: datetime, minutes: int) -> None:
    """From any minute on, so that no moment depends on where counting began."""
    begin = day + timedelta(minutes=minutes)
    end = begin + (timedelta(hours=8) if len(text.split()) == 6 else timedelta(days=2))
    cron: Cron = read_cron(text, zone)
    found = [*takewhile(lambda moment: moment <= end, cron.moments(begin))]
    assert found == slow_cron.moments(text, ZoneInfo(zone), begin, end)

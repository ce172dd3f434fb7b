"""The progress of an iterator: how many items have ended, how fast, and why items failed; as numbers and as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

from noetl_broker.text import span

if TYPE_CHECKING:
    from datetime import datetime

    from noetl_broker.broker.model.values import JSON

LONGEST_TYPE = 40  # characters of an error's type in a sentence
MINUTE, HOUR = 60, 3600  # seconds


class ItemErrors(TypedDict):
    """Failed items whose errors have the same type; `first` is the least index.

    The type may be missing. `first` is None while one worker runs all items.
    """

    type: str | None
    count: int
    first: int | None


class FailedItem(NamedTuple):
    """A failed item of an iterator, with its error."""

    item_index: int
    error: JSON


class Progress(TypedDict):
    """One visit of an iterator.

    `started` counts items that began, `ended` completed and failed items, `cancelled` items that its end cancelled.
    `retrying` counts open items that wait for another attempt. `held` counts open items whose job a throttle holds.
    `is_open`: the visit has not ended. `errors` are the most frequent types, `other_errors` the failed items of
    `other_types` more. `pace` (items a second, over the last ones) and `seconds_left` are None if nothing is open or
    nothing has ended. If one worker runs all items, the numbers are what it last reported; it does not tell how many
    began, so `started` is `ended`.
    """

    step: str
    visit: int
    total: int
    started: int
    ended: int
    failed: int
    cancelled: int
    retrying: int
    held: int
    is_open: bool
    errors: list[ItemErrors]
    other_errors: int
    other_types: int
    last_ended_at: datetime | None
    pace: float | None
    seconds_left: float | None


def count_text(progress: Progress) -> str:
    """`1,204 of 5,000, 79 failed, 12 wait for a retry`."""
    failed = f", {progress['failed']:,} failed" if progress["failed"] else ""
    count = progress.get("retrying", 0)  # an iterator that has ended has no number
    retrying = f", {count:,} {'waits' if count == 1 else 'wait'} for a retry" if count else ""
    return f"{progress['ended']:,} of {progress['total']:,}{failed}{retrying}"


def progress_text(progress: Progress) -> str:
    """`1,204 of 5,000, 79 failed, 31/s, about 2 min left`; without pace where none is known."""
    pace = pace_text(progress)
    return f"{count_text(progress)}, {pace}" if pace else count_text(progress)


def pace_text(progress: Progress) -> str:
    """`31/s, about 2 min left`; empty where no pace is known."""
    pace, left = progress["pace"], progress["seconds_left"]
    if not pace or left is None:
        return ""
    return f"{_per_time(pace)}, about {_about(left)} left" if left else _per_time(pace)


def failures_text(progress: Progress) -> str:
    """`1,579 items failed, by type of error: KeyError 1,500, timeout 79`; empty if no item failed."""
    if not progress["failed"]:
        return ""
    parts = [f"{error_type(errors)} {errors['count']:,}" for errors in progress["errors"]]
    if progress["other_types"]:
        parts.append(f"{progress['other_types']:,} other types {progress['other_errors']:,}")
    items = "1 item" if progress["failed"] == 1 else f"{progress['failed']:,} items"
    return f"{items} failed{', by type of error: ' if parts else ''}{', '.join(parts)}"


def error_type(errors: ItemErrors) -> str:
    """The type of errors on one line, shortened."""
    text = " ".join((errors["type"] or "").split()) or "no type"
    return text if len(text) <= LONGEST_TYPE else f"{text[: LONGEST_TYPE - 1]}…"


def _per_time(pace: float) -> str:
    """A pace in the unit that gives at least one: `31/s`, `4.5/s`, `12/min`, `2/h`."""
    for seconds, unit in ((1, "s"), (MINUTE, "min")):
        if pace * seconds >= 1:
            return f"{_short(pace * seconds)}/{unit}"
    return f"{_short(pace * HOUR)}/h"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"  # noqa: PLR2004 - two digits


def _about(seconds: float) -> str:
    """A time span without false precision: `40 s`, `2 min`, `3 h 10 min`."""
    if seconds < MINUTE - 0.5:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / MINUTE)} min" if seconds < HOUR - MINUTE / 2 else span(round(seconds / MINUTE) * MINUTE)

"""The visits of an execution along the time: when each began, was tried and ended, and the children that it had."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from noetl_broker.text import span

OPEN = "RUNNING"


class Attempt(NamedTuple):
    """One attempt of a visit's job; `ended_at` is None while it runs."""

    began_at: datetime
    ended_at: datetime | None
    failed: bool


class VisitSpan(NamedTuple):
    """A visit of a step. `status`: RUNNING, WAITING (for a time, a signal or a person), or the status of its end.

    `has_job`: a worker runs it. `held_until`: until then its job waited for a slot of a throttle.
    """

    visit: int
    began_at: datetime
    ended_at: datetime | None
    status: str
    attempts: tuple[Attempt, ...] = ()
    has_job: bool = False
    held_until: datetime | None = None


class Times(NamedTuple):
    """Until when a visit waited for a throttle, and then for a worker, and the seconds that its attempts ran."""

    held_until: datetime
    queued_until: datetime
    ran: float


class ChildSpan(NamedTuple):
    """A child execution; `item_index` is its index where it is an item of an iterator."""

    execution_id: int
    path: str | None
    visit: int | None
    item_index: int | None
    began_at: datetime
    ended_at: datetime | None
    status: str


class StepLane(NamedTuple):
    """The visits of one step, in their order, and the children that they started."""

    step: str
    type: str
    visits: tuple[VisitSpan, ...]
    children: tuple[ChildSpan, ...] = ()
    note: str = ""  # such as the progress of an iterator


class ExecutionSpans(NamedTuple):
    """An execution along the time, from its start until `until_at`: its end, or when it was read.

    `queued_until`: it was queued until then, before its first step. `left_out`: it has more visits, the earlier ones;
    `children_left_out`: it has more children, the later ones.
    """

    execution_id: int
    path: str | None
    began_at: datetime
    until_at: datetime
    is_live: bool
    lanes: tuple[StepLane, ...]
    queued_until: datetime | None = None
    left_out: bool = False
    children_left_out: bool = False


def lanes_of(
    visits: Iterable[Mapping[str, Any]],
    children: Iterable[Mapping[str, Any]],
    *,
    is_live: bool,
    went_on: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
) -> tuple[StepLane, ...]:
    """The lanes of the rows of visits and children, in the order in which their steps were first visited.

    `went_on`: steps that failed and let the execution go on. `notes` are by step.
    """
    spans: dict[str, list[VisitSpan]] = {}
    types: dict[str, str] = {}
    for row in sorted(visits, key=lambda row: row["began_at"]):
        step = row["step"]
        types[step] = row["type"] or ""
        spans.setdefault(step, []).append(_span(row, is_live=is_live, went_on=went_on))
    own: dict[str, list[ChildSpan]] = {}
    for row in children:
        values = {name: row[name] for name in ChildSpan._fields if name != "item_index"}
        child = ChildSpan(item_index=row["index"], **values)
        own.setdefault(row["step"] or "", []).append(child)
    return tuple(
        StepLane(step, types[step], tuple(found), tuple(own.get(step, ())), (notes or {}).get(step, ""))
        for step, found in spans.items()
    )


def _span(row: Mapping[str, Any], *, is_live: bool, went_on: Collection[str]) -> VisitSpan:
    status, ended_at = row["status"], row["ended_at"]
    if ended_at is None:
        status = ("WAITING" if row["waits_for"] else OPEN) if is_live else "CANCELLED"
    elif status == "FAILED" and row["step"] in went_on:
        status = "CAUGHT"
    attempts = attempts_of(row["started"], row["failed"], ended_at)
    return VisitSpan(row["visit"], row["began_at"], ended_at, status, attempts, row["has_job"], row["held_until"])


def times_of(visit: VisitSpan, until: datetime) -> Times | None:
    """How the time of a visit divides, now or at its end; None if no worker runs it."""
    if not (visit.has_job or visit.attempts):
        return None
    until = visit.ended_at or until
    queued_until = max(visit.attempts[0].began_at, visit.began_at) if visit.attempts else until
    held_until = min(max(visit.held_until or visit.began_at, visit.began_at), queued_until)
    ran = sum(((attempt.ended_at or until) - attempt.began_at).total_seconds() for attempt in visit.attempts)
    return Times(held_until, queued_until, ran)


def times_text(visit: VisitSpan, until: datetime) -> str:
    """How the time of a visit divides, in words; empty if no worker runs it."""
    times = times_of(visit, until)
    if times is None:
        return ""
    held = (times.held_until - visit.began_at).total_seconds()
    queued = (times.queued_until - times.held_until).total_seconds()
    waited = f"{span(held)} for a throttle and " if visit.held_until is not None else ""
    ran = f"; ran {span(times.ran)}" if visit.attempts else ""
    several = f" in {len(visit.attempts)} attempts" if len(visit.attempts) > 1 else ""
    return f"waited {waited}{span(queued)} for a worker{ran}{several}"


def attempts_of(
    started: Iterable[datetime] | None, failed: Iterable[datetime] | None, ended_at: datetime | None
) -> tuple[Attempt, ...]:
    """The attempts that began at these moments; each ends when it failed, at the next one, or with its visit."""
    begins, faults = sorted(started or ()), sorted(failed or ())
    found: list[Attempt] = []
    for number, began_at in enumerate(begins):
        following = begins[number + 1] if number + 1 < len(begins) else None
        fault = next((at for at in faults if at >= began_at and (following is None or at <= following)), None)
        found.append(Attempt(began_at, fault or following or ended_at, fault is not None))
    return tuple(found)

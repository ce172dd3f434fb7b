"""Numbers of executions by hour or day, and by step: counts, types of errors, percentiles of durations and waits."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final

from noetl_broker.broker.state.state import is_live
from noetl_broker.service.action import Caller, Role, action
from noetl_broker.service.length_classes import percentile
from noetl_broker.service.models import stats as models
from noetl_broker.service.spans import parse_since, parse_until
from noetl_broker.service.where import whole
from noetl_broker.store.admin import catalog
from noetl_broker.store.admin.figures import HOUR, Asked, Figures, load_figures
from noetl_broker.store.connect.bucket_connections import Place
from noetl_broker.store.connect.places import in_first, in_turn

LOOK_BACK: Final = timedelta(days=7)  # executions that started so much earlier count for the backlog
MOST_PLAYBOOKS: Final = 50
MOST_ERRORS: Final = 20
LENGTHS: Final = {"hour": HOUR, "day": timedelta(days=1)}

Counts = dict[str, Counter[str]]  # by kind and key


@action(Role.VIEWER, models.StatsView, where=whole)
async def show_stats(connection: Place, _caller: Caller, given: models.StatsRequest) -> Any:
    """Show numbers of executions by the time of their start: ends, errors, durations; of a playbook also its steps.

    Hours that are over come from sums that a broker makes, the rest from the newest 10,000 executions.
    """
    asked = Asked(parse_since(given.since), _moment(given.until), given.path, given.version)
    parts = await in_turn(connection, lambda one: load_figures(one, asked, before=LOOK_BACK))
    since, until = parts[0].since, parts[0].until
    rows = [row for part in parts for row in part.rows]
    if given.path is not None and not rows:
        path = given.path
        await in_first(connection, lambda one: catalog.find(one, path, given.version))
    shown = [row for row in rows if row["hour"] >= since]
    of_executions = [row for row in shown if not row["step"]]
    steps = [row for row in shown if row["step"]]
    total = _sum(of_executions)
    missing = {hour for part in parts for hour in part.missing}
    return {
        **given.model_dump(include={"path", "version", "by"}),
        "since": since,
        "until": until,
        "read_at": parts[0].read_at,
        "total": _numbers(total),
        "errors": _errors(total),
        "times": [*_times(parts, [row for row in rows if not row["step"]], LENGTHS[given.by])],
        "playbooks": [*_playbooks(total)] if given.path is None else [],
        "steps": [*_steps(steps)],
        "sampled": _sampled(steps),
        "missing_hours": len(missing),
        "live": sum(part.live for part in parts),
    }


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    parsed = parse_until(text)
    return parsed if isinstance(parsed, datetime) else datetime.now(UTC) - timedelta(seconds=parsed)


def _sum(rows: Iterable[Mapping[str, Any]]) -> Counts:
    """The counts of rows together; those of a sample stand for all."""
    found: Counts = {}
    for row in rows:
        weight = 1 / row["sampled"]
        for kind, keys in row["counts"].items():
            counter = found.setdefault(kind, Counter())
            for key, number in keys.items():
                counter[key] += number if weight == 1 else number * weight
    return found


def _lengths(counts: Counts, kind: str) -> dict[str, float | None]:
    classes = {int(key): float(number) for key, number in counts.get(kind, {}).items()}
    return {name: percentile(classes, part) for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def _numbers(counts: Counts) -> dict[str, Any]:
    statuses = counts.get("status", Counter())
    return {
        "started": round(sum(statuses.values())),
        **{name.lower(): round(statuses[name]) for name in ("COMPLETED", "FAILED", "CANCELLED")},
        "live": round(sum(number for status, number in statuses.items() if is_live(status))),
        "duration": _lengths(counts, "duration"),
    }


def _errors(counts: Counts) -> list[dict[str, Any]]:
    most = counts.get("error", Counter()).most_common(MOST_ERRORS)
    return [{"type": kind or None, "count": round(number)} for kind, number in most]


def _playbooks(counts: Counts) -> Iterator[dict[str, Any]]:
    failed = counts.get("failed_path", Counter())
    for path, started in counts.get("path", Counter()).most_common(MOST_PLAYBOOKS):
        yield {"path": path, "started": round(started), "failed": round(failed[path])}


def _steps(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The steps, those with most visits first."""
    by_step: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_step.setdefault(row["step"], []).append(row)
    found = {step: _sum(of_step) for step, of_step in by_step.items()}
    for step, counts in sorted(found.items(), key=lambda each: (-each[1].get("visit", Counter())[""], each[0])):
        statuses = counts.get("status", Counter())
        yield {
            "step": step,
            "visits": round(counts.get("visit", Counter())[""]),
            "completed": round(statuses["COMPLETED"]),
            "failed": round(statuses["FAILED"]),
            "retries": round(counts.get("retry", Counter())[""]),
            "duration": _lengths(counts, "duration"),
            "wait": _lengths(counts, "wait"),
            "errors": _errors(counts),
        }


def _sampled(rows: Iterable[Mapping[str, Any]]) -> float:
    """The part of all visits that was read."""
    visits = [(row["counts"].get("visit", {}).get("", 0), row["sampled"]) for row in rows]
    every = sum(number / sampled for number, sampled in visits)
    return sum(number for number, _ in visits) / every if every else 1.0


def _times(parts: list[Figures], rows: list[Mapping[str, Any]], length: timedelta) -> Iterator[dict[str, Any]]:
    """Each hour or day, also those in which nothing started."""
    since, until = parts[0].since, parts[0].until
    by_time: dict[datetime, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_time.setdefault(_begin(row["hour"], length), []).append(row)
    missing = {_begin(hour, length) for part in parts for hour in part.missing}
    backlog = _backlog(rows)
    at = _begin(since, length)
    while at < until:
        counts = _sum(row for row in by_time.get(at, ()) if row["hour"] >= since)
        last = min(at + length - HOUR, _begin(until, HOUR))
        known = bisect_right(backlog, last, key=itemgetter(0))
        yield {
            "at": at,
            **_numbers(counts),
            "backlog": max(backlog[known - 1][1], 0) if known else 0,
            "is_missing": at in missing,
        }
        at += length


def _backlog(rows: Iterable[Mapping[str, Any]]) -> list[tuple[datetime, int]]:
    """Hours in their order, each with the executions that were live at its end."""
    changes: Counter[datetime] = Counter()
    for row in rows:
        changes[row["hour"]] += sum(row["counts"].get("status", {}).values())
        for later, number in row["counts"].get("ended", {}).items():
            changes[row["hour"] + HOUR * int(later)] -= number
    hours = sorted(changes)
    return [*zip(hours, accumulate(changes[hour] for hour in hours), strict=True)]


def _begin(moment: datetime, length: timedelta) -> datetime:
    whole_hour = moment.replace(minute=0, second=0, microsecond=0)
    return whole_hour if length == HOUR else whole_hour.replace(hour=0)

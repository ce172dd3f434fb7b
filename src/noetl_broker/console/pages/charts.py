"""The charts of numbers: executions, durations and backlog over time, each with a table and links to lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Response
from markupsafe import Markup

from noetl_broker.console.pages.playbooks import open_playbook, show_part
from noetl_broker.console.pages.rendering import link, rfc3339
from noetl_broker.console.pages.screen import Shown, picture
from noetl_broker.console.pages.statuses import style_of
from noetl_broker.diagram.number_chart import NARROW, WIDE, Column, NumberChart
from noetl_broker.service import stats as service
from noetl_broker.service.models.stats import StatsView
from noetl_broker.text import span as span_text

router = APIRouter()

SPANS: Final = {"24h": "hour", "7d": "hour", "21d": "day"}  # and the length of a column
USUAL: Final = "24h"
LENGTHS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
STACKED: Final = ("FAILED", "CANCELLED", "COMPENSATING", "RUNNING", "QUEUED", "PAUSED", "COMPLETED")  # from the bottom
COUNTS: Final = {"FAILED": "failed", "CANCELLED": "cancelled", "RUNNING": "live", "COMPLETED": "completed"}
NOT_SUMMED: Final = "not all summed yet"


class Chart(NamedTuple):
    """A chart on a page; `rows` of its table are cells, each a text and where it leads. `key` explains its lines."""

    name: str
    title: str
    drawn: Markup
    key: tuple[tuple[str, str], ...]
    statuses: tuple[str, ...]
    heads: tuple[str, ...]
    rows: list[list[tuple[str, str | None]]]


@router.get("/playbooks/stats")
async def show_stats(screen: Shown) -> Response:
    """The numbers of a playbook: charts, steps, types of errors. `of_version`: only that version."""
    opened = await open_playbook(screen)
    asked = screen.asked("span", "of_version")
    span = asked["span"] if asked["span"] in SPANS else USUAL
    path, version = opened["of"].path, asked["of_version"]
    found = screen.seen(
        StatsView, await screen.ask(service.show_stats, path=path, since=span, by=SPANS[span], version=version)
    )
    return show_part(
        screen,
        opened,
        "stats",
        changes="all",
        found=found,
        charts=charts_of(found),
        spans=SPANS,
        chosen=span,
        of_version=found["version"],
    )


def charts_of(found: Mapping[str, Any]) -> list[Chart]:
    """Give the three charts of an answer of `stats`."""
    times, length = found["times"], LENGTHS[found["by"]]
    where = {"path": found["path"], "of_version": found["version"]}
    hrefs = [list_of(time["at"], length, **where) for time in times]
    return [
        executions_chart(
            [{"at": time["at"], "counts": counts_of(time), "is_missing": time["is_missing"]} for time in times],
            length,
            **where,
        ),
        _durations(times, hrefs, length),
        _backlog(times, hrefs, length),
    ]


def counts_of(time: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of a time by status; QUEUED and other live ones count as running."""
    return {status: time[name] for status, name in COUNTS.items() if time[name]}


def list_of(at: datetime, length: timedelta, **where: Any) -> str:
    """The address of the list of the executions that started in a time."""
    return link("/executions", since=rfc3339(at), until=rfc3339(at + length - timedelta(milliseconds=1)), **where)


def executions_chart(times: Sequence[Mapping[str, Any]], length: timedelta, **where: Any) -> Chart:
    """Give the columns of what started, by status; each time has `at`, `counts` and `is_missing`."""
    statuses = [status for status in STACKED if any(status in time["counts"] for time in times)]
    columns = [
        Column(
            time["at"],
            _tip(
                time,
                length,
                ", ".join(
                    f"{time['counts'][one]:,} {style_of(one).word.lower()}" for one in statuses if one in time["counts"]
                )
                or "none",
            ),
            list_of(time["at"], length, **where),
            tuple((style_of(status).tone, time["counts"].get(status, 0)) for status in statuses),
            is_missing=time["is_missing"],
        )
        for time in times
    ]
    shown = [status for status in reversed(STACKED) if status in statuses or status in {"COMPLETED", "FAILED"}]
    rows = [
        [
            (_label(time["at"], length), list_of(time["at"], length, **where)),
            (f"{sum(time['counts'].values()):,}", None),
            *(
                (
                    f"{time['counts'].get(status, 0):,}",
                    list_of(time["at"], length, status=status, **where) if time["counts"].get(status) else None,
                )
                for status in shown
            ),
        ]
        for time in reversed(times)
    ]
    heads = ("Since", "Started", *(style_of(status).word for status in shown))
    return Chart(
        "started", "Started executions", _draw("Started executions", columns, width=WIDE), (), tuple(shown), heads, rows
    )


def _durations(times: Sequence[Mapping[str, Any]], hrefs: Sequence[str], length: timedelta) -> Chart:
    names = ("p50", "p95")
    columns = [
        Column(
            time["at"],
            _tip(time, length, _spans(time["duration"], names) or "none completed"),
            href,
            values=tuple(time["duration"][name] for name in names),
        )
        for time, href in zip(times, hrefs, strict=True)
    ]
    rows = [
        [(_label(time["at"], length), href), *((_span(time["duration"][name]), None) for name in (*names, "p99"))]
        for time, href in reversed([*zip(times, hrefs, strict=True)])
    ]
    key = (("p50", "half"), ("p95", "95 of 100"))
    title = "Durations of completed executions"
    return Chart("durations", title, _draw(title, columns, names), key, (), ("Since", *names, "p99"), rows)


def _backlog(times: Sequence[Mapping[str, Any]], hrefs: Sequence[str], length: timedelta) -> Chart:
    columns = [
        Column(
            time["at"], _tip(time, length, f"{time['backlog']:,} live at its end"), href, (("run", time["backlog"]),)
        )
        for time, href in zip(times, hrefs, strict=True)
    ]
    rows = [
        [(_label(time["at"], length), href), (f"{time['backlog']:,}", None)]
        for time, href in reversed([*zip(times, hrefs, strict=True)])
    ]
    title = "Backlog: executions that were live"
    return Chart("backlog", title, _draw(title, columns), (), (), ("Since", "Live at the end"), rows)


def _draw(title: str, columns: Sequence[Column], lines: Iterable[str] = (), width: float = NARROW) -> Markup:
    return picture(NumberChart(title, columns, lines=[*lines], width=width).svg(style=False))


def _tip(time: Mapping[str, Any], length: timedelta, text: str) -> str:
    missing = f" ({NOT_SUMMED})" if time["is_missing"] else ""
    return f"{_label(time['at'], length)}: {text}{missing}"


def _label(at: datetime, length: timedelta) -> str:
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%d}" if length >= LENGTHS["day"] else f"{at:%Y-%m-%d %H:%M} UTC"


def _span(seconds: float | None) -> str:
    return "-" if seconds is None else span_text(seconds)


def _spans(lengths: Mapping[str, float | None], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {_span(lengths[name])}" for name in names if lengths[name] is not None)

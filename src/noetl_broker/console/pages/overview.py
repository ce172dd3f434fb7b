"""The first page: what runs, what failed, what waits for a person, and what keeps the broker from working."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from noetl_broker.console.pages.rendering import link, rfc3339
from noetl_broker.console.pages.screen import Shown
from noetl_broker.console.pages.statuses import style_of
from noetl_broker.service import overview as service
from noetl_broker.service.models.base import Role
from noetl_broker.service.models.health import Failures
from noetl_broker.service.overview import LISTED, PARTS
from noetl_broker.text import span as span_text

router = APIRouter()

LATE_SECONDS: Final = 10.0  # from which on unread events and ready jobs are worth a word
WIDTH, HEIGHT, GAP, LEAST = 960.0, 96.0, 4.0, 2.0  # of the chart and its bars, in units of its picture
STACKED: Final = ("FAILED", "CANCELLED", "COMPENSATING", "RUNNING", "QUEUED", "PAUSED", "COMPLETED")  # from the bottom
KEY: Final = ("COMPLETED", "FAILED", "CANCELLED", "RUNNING", "COMPENSATING", "QUEUED", "PAUSED")
USUAL_KEY: Final = KEY[:4]  # shown also where there is none


class Warned(NamedTuple):
    """A problem of the broker: a kind of note, a sentence, a command that mends it, the jobs concerned."""

    kind: str
    words: str
    command: str | None = None
    href: str | None = None


@router.get("/")
async def show_overview(screen: Shown) -> Response:
    """The first page. `span`: a key of SPANS; without it, the shortest span that shows the last day.

    Who may not look gets the page of what it may do.
    """
    if not screen.may(Role.VIEWER):
        return RedirectResponse("/approvals" if screen.may(Role.APPROVER) else "/signals/send", HTTPStatus.SEE_OTHER)
    found = await screen.ask(service.show_overview, **screen.asked("span"))
    present, activity, positions = found["present"], found["activity"], found["positions"]
    bars = list(draw_bars(activity))
    started = {status for bar in bars for status in bar["counts"]}
    failed = sum(bar["counts"].get("FAILED", 0) for bar in bars) - activity["recovered"]
    return screen.render(
        "overview.html",
        title="Overview",
        changes="all",
        now=present["read_at"],
        present=present,
        activity=activity,
        failures=[screen.seen(Failures, one) for one in activity["failures"]],
        failed=failed,
        key=[status for status in KEY if status in USUAL_KEY or status in started],
        oldest=group_oldest(found["oldest"], positions),
        positions=positions,
        bars=bars,
        most=max((sum(bar["counts"].values()) for bar in bars), default=0),
        chosen=found["span"],
        spans=service.SPANS,
        size=(WIDTH, HEIGHT),
        warnings=[*find_warnings(present), *find_unserved(found["unserved"])],
        most_counted=service.MOST_COUNTED,
        is_empty=not (present["live"] or activity["executions"] or present["dead_letters"]),
    )


def group_oldest(
    oldest: Iterable[Mapping[str, Any]], positions: Mapping[int, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The lines of the list, the oldest first. Executions of a playbook that wait for a person share one line."""
    lines: dict[Any, dict[str, Any]] = {}
    for row in oldest:
        waits = positions.get(row["execution_id"], {}).get("waits_for") == "approval"
        line = lines.setdefault((row["path"],) if waits else row["execution_id"], {**row, "waiting": 0})
        line["waiting"] += waits
    return [*lines.values()][:LISTED]


def find_warnings(present: Mapping[str, Any]) -> Iterator[Warned]:
    """The problems that keep the broker from working."""
    if not present["brokers"]:
        yield Warned("bad", "No broker is running, so nothing moves.", "noetl-broker run")
    elif (present["oldest_mail_seconds"] or 0) > LATE_SECONDS:
        yield Warned("warn", "Events wait long for a broker to read them.", "noetl-broker doctor")
    if present["dead_letters"]:
        yield Warned("bad", "A broker could not decide on some events and set them aside.", "noetl-broker dead-letters")
    if present["left_undone"]:
        yield Warned("bad", "Executions have left something undone; Health lists them.", "noetl-broker doctor")


def find_unserved(unserved: Iterable[Mapping[str, Any]]) -> Iterator[Warned]:
    """Types of jobs that no worker takes; each leads to the jobs of the execution that waits longest."""
    for one in unserved:
        if one["seconds"] > LATE_SECONDS:
            wait = f"{one['jobs']:,} jobs wait" if one["jobs"] > 1 else "one job waits"
            words = (
                f"No worker takes jobs of the type {one['type']}: {wait}, the oldest for {span_text(one['seconds'])}."
            )
            yield Warned("warn", words, href=link(f"/executions/{one['execution_id']}", tab="jobs"))


def draw_bars(activity: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The bars of the chart, in order of time: where each stands, what it counts, where it leads."""
    counts: list[dict[str, int]] = [{} for _ in range(PARTS)]
    for index, status, count in activity["parts"]:
        counts[index][status] = count
    most = max(sum(one.values()) for one in counts) or 1
    step = (activity["read_at"] - activity["since"]) / PARTS
    for index, found in enumerate(counts):
        since = activity["since"] + index * step
        until = rfc3339(since + step - timedelta(milliseconds=1))
        yield {
            "x": round(index * WIDTH / PARTS + GAP / 2, 1),
            "width": round(WIDTH / PARTS - GAP, 1),
            "pieces": list(stack(found, HEIGHT / most)),
            "since": since,
            "counts": found,
            "href": link("/executions", since=rfc3339(since), until=until),
        }


def stack(counts: Mapping[str, int], scale: float) -> Iterator[tuple[str, float, float]]:
    """The pieces of a bar from the bottom: colour, place, height. Each can be seen, however small."""
    top = HEIGHT
    for status in STACKED:
        if counts.get(status):
            height = max(counts[status] * scale, LEAST)
            top = max(top - height, 0.0)
            yield style_of(status).tone, round(top, 1), round(height, 1)

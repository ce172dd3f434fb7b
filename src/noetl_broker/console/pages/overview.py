"""The first page: what runs, what failed, what waits for a person, and what keeps the broker from working."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from noetl_broker.console.pages import charts
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Shown
from noetl_broker.explain.unserved import unserved_text
from noetl_broker.service import overview as service
from noetl_broker.service import stats
from noetl_broker.service.models.base import Role
from noetl_broker.service.models.health import Failures
from noetl_broker.service.overview import LISTED, PARTS

router = APIRouter()

LATE_SECONDS: Final = 10.0  # from which on unread events and ready jobs are worth a word


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
    span, missing_hours, started = found["span"], 0, activity["executions"]
    failed = sum(count for _, status, count in activity["parts"] if status == "FAILED") - activity["recovered"]
    if span in charts.SPANS:
        numbers = await screen.ask(stats.show_stats, since=span, by=charts.SPANS[span])
        drawn, missing_hours = charts.charts_of(numbers), numbers["missing_hours"]
        if activity["is_cut"]:
            started, failed = numbers["total"]["started"], numbers["total"]["failed"]
    else:
        drawn = [charts.executions_chart(*times_of(activity))]
    return screen.render(
        "overview.html",
        title="Overview",
        changes="all",
        now=present["read_at"],
        present=present,
        activity=activity,
        failures=[screen.seen(Failures, one) for one in activity["failures"]],
        failed=failed,
        charts=drawn,
        missing_hours=missing_hours,
        started=started,
        oldest=group_oldest(found["oldest"], positions),
        positions=positions,
        chosen=span,
        spans=service.SPANS,
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
    """Types and pools of jobs that no worker serves; each leads to the jobs of the execution that waits longest."""
    for one in unserved:
        words = unserved_text(one)
        href = link(f"/executions/{one['execution_id']}", tab="jobs")
        yield Warned("warn", f"{words[0].upper()}{words[1:]}.", href=href)


def times_of(activity: Mapping[str, Any]) -> tuple[list[dict[str, Any]], timedelta]:
    """Equal times of a short span, each with what it counts, and their length."""
    counts: list[dict[str, int]] = [{} for _ in range(PARTS)]
    for index, status, count in activity["parts"]:
        counts[index][status] = count
    step = (activity["read_at"] - activity["since"]) / PARTS
    times = [
        {"at": activity["since"] + index * step, "counts": found, "is_missing": False}
        for index, found in enumerate(counts)
    ]
    return times, step

"""The three answers about a running broker: whether it gets on, whether it takes turns, and its figures."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from noetl_broker.daemon.exposition import CONTENT_TYPE, expose
from noetl_broker.daemon.figures import Figures
from noetl_broker.daemon.observer import Observer
from noetl_broker.daemon.port import Answer, Route
from noetl_broker.daemon.report import OK, Report

SILENCE_SECONDS = 30.0  # beside what the main loop sleeps: the same as the watchdog of the systemd unit


class Census(NamedTuple):
    """The reports of all processes by name (None: it does not run), and what those counted that have ended."""

    reports: Mapping[str, Report | None]
    ended: Figures


class Health:
    """Answers for all processes of one broker."""

    def __init__(self, ask: Callable[[], Awaitable[Census]], observer: Observer, *, sweep_seconds: float) -> None:
        """`ask` gives the reports of now; `sweep_seconds` is how long a main loop may sleep."""
        self._ask = ask
        self._observer = observer
        self._most_silent = SILENCE_SECONDS + sweep_seconds

    @property
    def routes(self) -> dict[str, Route]:
        """The paths of a port."""
        return {"/live": self.live, "/ready": self.ready, "/metrics": self.metrics}

    async def live(self) -> Answer:
        """200 while every main loop gets on; a broker that waits for its database gets on too."""
        reports = (await self._ask()).reports
        silent = {name: round(report.silent_seconds, 1) for name, report in reports.items() if report is not None}
        stuck = sorted(name for name, seconds in silent.items() if seconds > self._most_silent)
        return _answer(good=not stuck, document={"live": not stuck, "stuck": stuck, "silent_seconds": silent})

    async def ready(self) -> Answer:
        """200 when turns are taken; else what is not as it should be, by name."""
        reports = (await self._ask()).reports
        await self._observer.look()
        answers = {"answers": self._observer.trouble or OK}
        checks = {"database": answers, **{name: _checks_of(report) for name, report in reports.items()}}
        lacking = [
            f"{name}: {check}: {said}" for name, of in checks.items() for check, said in of.items() if said != OK
        ]
        return _answer(good=not lacking, document={"ready": not lacking, "not_ready": lacking, "checks": checks})

    async def metrics(self) -> Answer:
        """Everything that is counted, and what the database says now."""
        census = await self._ask()
        figures = Figures()
        figures.add(census.ended, ended=True)
        for report in census.reports.values():
            if report is not None:
                figures.add(report.figures)
        figures.add(await self._observer.look())
        return Answer(HTTPStatus.OK, expose(figures), CONTENT_TYPE)


def _checks_of(report: Report | None) -> Mapping[str, str]:
    return {"process": "it does not run"} if report is None else report.checks


def _answer(*, good: bool, document: dict[str, Any]) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, json.dumps(document).encode() + b"\n")

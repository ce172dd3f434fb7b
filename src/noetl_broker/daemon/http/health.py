"""The routes of the health port: `/live`, `/ready` and `/metrics`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from noetl_broker.daemon.http.server import Answer, Route
from noetl_broker.daemon.metrics.database import Observers
from noetl_broker.daemon.metrics.process_status import OK, ProcessStatus
from noetl_broker.daemon.metrics.prometheus import CONTENT_TYPE, expose
from noetl_broker.daemon.metrics.values import MetricsByDatabase, merge_all

SILENCE_SECONDS: Final = 30.0  # beyond the longest sleep of a main loop; as the watchdog of the systemd unit


class BrokerStatus(NamedTuple):
    """The status of each process by name (None: it does not run), and the metrics of processes that have ended."""

    processes: Mapping[str, ProcessStatus | None]
    ended: MetricsByDatabase


GetStatus = Callable[[], Awaitable[BrokerStatus]]


class Health:
    """Answers for all processes of one broker."""

    def __init__(self, get_status: GetStatus, observers: Observers, *, sweep_seconds: float) -> None:
        """`sweep_seconds` is how long a main loop may sleep."""
        self._get_status = get_status
        self._observers = observers
        self._max_silence = SILENCE_SECONDS + sweep_seconds

    @property
    def routes(self) -> dict[str, Route]:
        """The routes by path."""
        return {"/live": self.live, "/ready": self.ready, "/metrics": self.metrics}

    async def live(self) -> Answer:
        """200 while every main loop makes progress; waiting for a database is progress."""
        status = await self._get_status()
        silent = {
            f"{name}: {database}": round(each.silent_seconds, 1)
            for name, process in status.processes.items()
            for database, each in (process.databases if process is not None else {}).items()
        }
        stuck = sorted(name for name, seconds in silent.items() if seconds > self._max_silence)
        return _json_answer(good=not stuck, document={"live": not stuck, "stuck": stuck, "silent_seconds": silent})

    async def ready(self) -> Answer:
        """200 when turns are taken in every database; otherwise 503 and the failed checks by name."""
        status, _ = await asyncio.gather(self._get_status(), self._observers.collect())
        databases = {name: each.trouble or OK for name, each in self._observers.each.items()}
        failed = [f"{name}: {result}" for name, result in databases.items() if result != OK]
        processes: dict[str, Any] = {}
        for name, process in status.processes.items():
            if process is None:
                failed.append(f"{name}: it does not run")
                continue
            processes[name] = {database: dict(each.checks) for database, each in process.databases.items()}
            failed += [
                f"{name}: {database}: {check}: {result}"
                for database, checks in processes[name].items()
                for check, result in checks.items()
                if result != OK
            ]
        document = {"ready": not failed, "not_ready": failed, "databases": databases, "processes": processes}
        return _json_answer(good=not failed, document=document)

    async def metrics(self) -> Answer:
        """All metrics: the metrics of the processes, and what the databases answer now."""
        status, collected = await asyncio.gather(self._get_status(), self._observers.collect())
        metrics: MetricsByDatabase = {}
        merge_all(metrics, status.ended, ended=True)
        for process in status.processes.values():
            if process is not None:
                merge_all(metrics, process.all_metrics)
        merge_all(metrics, collected)
        return Answer(HTTPStatus.OK, expose(metrics), CONTENT_TYPE)


def _json_answer(*, good: bool, document: dict[str, Any]) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, json.dumps(document).encode() + b"\n")

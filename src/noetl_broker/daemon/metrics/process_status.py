"""The status of one broker process: its metrics, its readiness checks, and how long its main loop has been silent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from noetl_broker import __version__
from noetl_broker.daemon.metrics.registry import (
    CPU_TIME,
    INFO,
    LISTENER_CONNECTED,
    LISTENER_RECONNECTS,
    MEMORY,
    PROCESSES,
)
from noetl_broker.daemon.metrics.values import PROCESS, MetricsByDatabase, MetricValues
from noetl_broker.daemon.service import Service

OK = "ok"
STATM = Path("/proc/self/statm")


class DatabaseStatus(NamedTuple):
    """How a process serves one database. `checks`: "ok" or a reason, by the name of the check.

    `silent_seconds`: since its main loop made progress.
    """

    metrics: MetricValues
    checks: Mapping[str, str]
    silent_seconds: float


class ProcessStatus(NamedTuple):
    """The metrics of a process, and its status for each database that it serves."""

    metrics: MetricValues
    databases: Mapping[str, DatabaseStatus]

    @property
    def all_metrics(self) -> MetricsByDatabase:
        """The metrics of the process and of its databases."""
        return {PROCESS: self.metrics, **{name: status.metrics for name, status in self.databases.items()}}

    def as_line(self) -> str:
        """One line of JSON for the parent process."""
        databases = {
            name: {**status._asdict(), "metrics": status.metrics.as_json()} for name, status in self.databases.items()
        }
        return json.dumps({"metrics": self.metrics.as_json(), "databases": databases})

    @classmethod
    def from_line(cls, line: str) -> ProcessStatus:
        """Read what a child process wrote. Raises ValueError or KeyError for anything else."""
        document = json.loads(line)
        databases = {
            name: DatabaseStatus(
                MetricValues.from_json(found["metrics"]), found["checks"], float(found["silent_seconds"])
            )
            for name, found in document["databases"].items()
        }
        return cls(MetricValues.from_json(document["metrics"]), databases)

    def after_silence(self, seconds: float) -> ProcessStatus:
        """The same status when the process has not answered for so long."""
        reason = f"it has not answered for {seconds:.0f} s"
        return self._replace(
            databases={
                name: status._replace(
                    checks={**status.checks, "process": reason}, silent_seconds=status.silent_seconds + seconds
                )
                for name, status in self.databases.items()
            }
        )


def status_of(services: Mapping[str, Service]) -> ProcessStatus:
    """The status of this process now; `services` by the names of their databases."""
    now = time.monotonic()
    databases = {
        name: DatabaseStatus(_service_metrics(service), _checks(service), now - service.progress_at)
        for name, service in services.items()
    }
    return ProcessStatus(_process_metrics(), databases)


def _checks(service: Service) -> dict[str, str]:
    """In the order in which a daemon starts, so that the first that is not ok names the cause."""
    listener = service.listener
    is_connected = listener is not None and listener.connected
    evaluator = "it stops" if service.stopping.is_set() else "it does not take turns yet"
    return {
        "database": service.trouble or OK,
        "schema": OK if listener is not None else "it is checked when the database answers",
        "listener": OK if is_connected else "it is not connected; mail is found by polling",
        "evaluator": OK if service.serving and not service.stopping.is_set() else evaluator,
    }


def _service_metrics(service: Service) -> MetricValues:
    values, listener = MetricValues(), service.listener
    values.merge(service.metrics)
    values.set(LISTENER_CONNECTED, listener is not None and listener.connected)
    values.set(LISTENER_RECONNECTS, max(listener.reconnects - 1, 0) if listener is not None else 0)
    return values


def _process_metrics() -> MetricValues:
    values = MetricValues()
    values.set(PROCESSES, 1)
    values.set(CPU_TIME, time.process_time())
    values.set(INFO, 1, __version__)
    memory = _resident_bytes()
    if memory is not None:
        values.set(MEMORY, memory)
    return values


def _resident_bytes() -> int | None:
    """The memory of this process; None if the system has no file that says it."""
    try:
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None

"""What one process of the broker says of itself: its figures, what it lacks, how long its main loop has been silent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from noetl_broker import __version__
from noetl_broker.daemon.figures import Figures, figures_of_json
from noetl_broker.daemon.service import Service

OK = "ok"
STATM = Path("/proc/self/statm")


class Report(NamedTuple):
    """`checks` are "ok" or a reason, by what was looked at; `silent_seconds` since the main loop got on last."""

    figures: Figures
    checks: Mapping[str, str]
    silent_seconds: float

    def as_line(self) -> str:
        """One line of JSON, for a parent."""
        figures, checks, silent_seconds = self.figures.as_json(), dict(self.checks), self.silent_seconds
        return json.dumps({"figures": figures, "checks": checks, "silent_seconds": silent_seconds})


def report_of_line(line: str) -> Report:
    """What a child wrote; raises ValueError or KeyError where it is no report."""
    document = json.loads(line)
    return Report(figures_of_json(document["figures"]), document["checks"], float(document["silent_seconds"]))


def report_of(service: Service) -> Report:
    """How the service of this process stands."""
    return Report(_figures(service), _checks(service), time.monotonic() - service.progress_at)


def _checks(service: Service) -> dict[str, str]:
    """In the order in which a daemon comes up, so that the first that is not ok says what to look at."""
    connected = service.bell is not None and service.bell.connected
    began = service.bell is not None
    evaluator = "it stops" if service.stopping.is_set() else "it has not begun to take turns"
    return {
        "database": service.trouble or OK,
        "schema": OK if began else "it is not looked at before the database answers",
        "listener": OK if connected else "it is not connected; mail is found by looking again",
        "evaluator": OK if service.serving and not service.stopping.is_set() else evaluator,
    }


def _figures(service: Service) -> Figures:
    figures, counters, bell = Figures(), service.counters, service.bell
    for name, value in {
        "batches_total": counters.batches,
        "drains_total": counters.drains,
        "lock_misses_total": counters.misses,
        "set_aside_total": counters.set_aside,
        "swept_mail_total": counters.swept,
        "listener_connected": bell is not None and bell.connected,
        "listener_reconnects_total": max(bell.reconnects - 1, 0) if bell is not None else 0,
        "listener_deaf_total": counters.deaf,
        "processes": 1,
        "cpu_seconds_total": time.process_time(),
    }.items():
        figures.put(name, value)
    figures.put_all("turns_total", counters.outcomes)
    figures.put_all("executions_ended_total", counters.ended)
    figures.put_all("limits_hit_total", counters.limits)
    figures.put_all("faults_total", counters.faults)
    figures.put_all("reaped_total", counters.reaped)
    figures.put("info", 1, __version__)
    for name, histogram in {
        "mail_wait_seconds": counters.waits,
        "evaluation_seconds": counters.evaluation,
        "transaction_seconds": counters.transaction,
    }.items():
        figures.histograms[name] = [*histogram.counts, histogram.total]
    memory = _resident_bytes()
    if memory is not None:
        figures.put("memory_bytes", memory)
    return figures


def _resident_bytes() -> int | None:
    """The memory of this process, where the system has a file that says it."""
    try:
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None

"""What one process of the broker says of itself: its figures, what it lacks, how long its main loop has been silent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from noetl_broker import __version__
from noetl_broker.daemon.figures import NO_DATABASE, Figures, Ledger, figures_of_json
from noetl_broker.daemon.service import Service

OK = "ok"
STATM = Path("/proc/self/statm")


class Report(NamedTuple):
    """How a process stands with one database: `checks` are "ok" or a reason, by what was looked at.

    `silent_seconds` since its main loop got on last.
    """

    figures: Figures
    checks: Mapping[str, str]
    silent_seconds: float


class Account(NamedTuple):
    """What a process says of itself, and of each database that it serves."""

    process: Figures
    reports: Mapping[str, Report]

    @property
    def ledger(self) -> Ledger:
        """All its figures."""
        return {NO_DATABASE: self.process, **{name: report.figures for name, report in self.reports.items()}}

    def as_line(self) -> str:
        """One line of JSON, for a parent."""
        reports = {
            name: {**report._asdict(), "figures": report.figures.as_json()} for name, report in self.reports.items()
        }
        return json.dumps({"process": self.process.as_json(), "reports": reports})

    def silent_for(self, seconds: float) -> Account:
        """The same account so long after, while nothing was heard."""
        said = f"it has not answered for {seconds:.0f} s"
        return self._replace(
            reports={
                name: Report(report.figures, {**report.checks, "process": said}, report.silent_seconds + seconds)
                for name, report in self.reports.items()
            }
        )


def account_of_line(line: str) -> Account:
    """What a child wrote; raises ValueError or KeyError where it is no account."""
    document = json.loads(line)
    reports = {
        name: Report(figures_of_json(found["figures"]), found["checks"], float(found["silent_seconds"]))
        for name, found in document["reports"].items()
    }
    return Account(figures_of_json(document["process"]), reports)


def account_of(services: Mapping[str, Service]) -> Account:
    """How this process stands; its services by the names of their databases."""
    now = time.monotonic()
    reports = {
        name: Report(_figures(service), _checks(service), now - service.progress_at)
        for name, service in services.items()
    }
    return Account(_of_process(), reports)


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
        "clock_step_seconds_total": counters.clock_step_seconds,
        "spans_total": counters.spans,
        "spans_dropped_total": counters.spans_dropped,
    }.items():
        figures.put(name, value)
    figures.put_all("turns_total", counters.outcomes)
    figures.put_all("executions_ended_total", counters.ended)
    figures.put_all("limits_hit_total", counters.limits)
    figures.put_all("faults_total", counters.faults)
    figures.put_all("reaped_total", counters.reaped)
    for name, histogram in {
        "mail_wait_seconds": counters.waits,
        "claim_seconds": counters.claim,
        "evaluation_seconds": counters.evaluation,
        "transaction_seconds": counters.transaction,
    }.items():
        figures.histograms[name] = [*histogram.counts, histogram.total]
    return figures


def _of_process() -> Figures:
    figures = Figures()
    figures.put("processes", 1)
    figures.put("cpu_seconds_total", time.process_time())
    figures.put("info", 1, __version__)
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

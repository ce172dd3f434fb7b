"""Every metric in one table, and the figures of one process or of several together.

A process counts for itself, for each database that it serves. What a family of processes says is the sum of its
members, those that have ended with them: a counter never goes back. Figures travel between processes as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from noetl_broker.daemon.counters import BATCH_BOUNDS, WAIT_BOUNDS

PREFIX = "noetl_broker_"

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]


class Metric(NamedTuple):
    """A metric by its name without the prefix; `bounds` are those of a histogram.

    `of` a process it has the labels that stand here, of a database that one before them.
    """

    name: str
    kind: Kind
    sentence: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()
    of: Literal["database", "process"] = "database"

    @property
    def all_labels(self) -> Labels:
        """The labels as they are shown."""
        return ("database", *self.labels) if self.of == "database" else self.labels


METRICS = (
    # What the database says: asked when somebody looks, the same from every broker of a database.
    Metric("database_up", "gauge", "1 when the database answered, else 0 (then its other figures are missing)"),
    Metric("oldest_unread_seconds", "gauge", "Age of the oldest event that no broker has read; 0 when there is none"),
    Metric("unread_mail", "gauge", "Events that no broker has read, counted up to 100,000"),
    Metric("dead_letters", "gauge", "Events that were set aside and wait for a person, counted up to 100,000"),
    Metric("executions_running", "gauge", "Executions that run, counted up to 100,000"),
    Metric("jobs", "gauge", "Jobs, counted up to 100,000 for each status: waiting, delayed, leased", ("status",)),
    Metric("oldest_waiting_job_seconds", "gauge", "How long the oldest job that is due has waited for a worker"),
    Metric("leases_overdue", "gauge", "Leases that ran out and that no reaper has taken back yet"),
    Metric("stale_answers_total", "counter", "Answers of workers that were refused: their lease had been taken over"),
    Metric("notify_queue_usage", "gauge", "How full the server's notification queue is, from 0 to 1"),
    Metric("broken_invariants", "gauge", "Faults that the last verification found, by invariant", ("invariant",)),
    Metric("verified_executions", "gauge", "Executions whose history the last verification looked at"),
    Metric("verify_seconds", "gauge", "How long the last verification took"),
    Metric("last_verify_timestamp_seconds", "gauge", "When the last complete verification ended, in Unix time"),
    Metric("verify_failures_total", "counter", "Verifications that did not come to an end"),
    # What the processes count.
    Metric("turns_total", "counter", "Turns committed, by type of the event and outcome", ("event", "outcome")),
    Metric("batches_total", "counter", "Transactions of turns committed"),
    Metric("drains_total", "counter", "How often a process woke and looked for mail"),
    Metric(
        "mail_wait_seconds", "histogram", "From the time that an event bears until a broker took it", bounds=WAIT_BOUNDS
    ),
    Metric("claim_seconds", "histogram", "For claiming the mail of one batch of turns", bounds=BATCH_BOUNDS),
    Metric(
        "evaluation_seconds",
        "histogram",
        "The processor's time for deciding on one batch of turns",
        bounds=BATCH_BOUNDS,
    ),
    Metric(
        "transaction_seconds", "histogram", "From the claim of one batch of turns to its commit", bounds=BATCH_BOUNDS
    ),
    Metric("lock_misses_total", "counter", "Mail that was claimed while another broker held its execution"),
    Metric("faults_total", "counter", "Faults after which the same was done again, by SQLSTATE", ("sqlstate",)),
    Metric("set_aside_total", "counter", "Events that this broker set aside"),
    Metric("swept_mail_total", "counter", "Mail that nobody had rung for, found by the look after sweep_seconds"),
    Metric("executions_ended_total", "counter", "Executions that ended, by status", ("status",)),
    Metric("limits_hit_total", "counter", "Executions that a limit ended, by the limit", ("limit",)),
    Metric("clock_step_seconds_total", "counter", "By how many seconds this broker saw the server's clock step back"),
    Metric("reaped_total", "counter", "What the reaper did: leases put back, given up, timeouts, deadlines", ("what",)),
    Metric("listener_connected", "gauge", "Processes whose listener is connected"),
    Metric("listener_reconnects_total", "counter", "How often a listener connected again"),
    Metric("listener_deaf_total", "counter", "How often a listener did not hear its own probe"),
    Metric("spans_total", "counter", "Spans handed over for traces; 0 while traces are off"),
    Metric("spans_dropped_total", "counter", "Spans that were not told, because too many waited for it"),
    Metric("processes", "gauge", "Processes that take turns", of="process"),
    Metric("process_restarts_total", "counter", "Processes that died and were brought back", of="process"),
    Metric("cpu_seconds_total", "counter", "The processor's time that the processes took", of="process"),
    Metric("memory_bytes", "gauge", "Resident memory of the processes, where the system says it", of="process"),
    Metric("info", "gauge", "Always 1; says the version", ("version",), of="process"),
)
BY_NAME = {metric.name: metric for metric in METRICS}
NO_DATABASE = ""  # in a ledger, for what is of the process


@dataclass(slots=True)
class Figures:
    """Values by metric and labels, and histograms as their counts by place with the sum behind them."""

    values: dict[str, dict[Labels, float]] = field(default_factory=dict)
    histograms: dict[str, list[float]] = field(default_factory=dict)

    def put(self, name: str, value: float, *labels: str) -> None:
        """Set one value of a metric that is in the table."""
        if len(labels) != len(BY_NAME[name].labels):
            raise ValueError(f"the metric {name} has the labels {BY_NAME[name].labels}, not {labels}")
        self.values.setdefault(name, {})[labels] = float(value)

    def put_all(self, name: str, values: Mapping[str, int] | Mapping[tuple[str, str], int]) -> None:
        """Set the values of a metric by its labels; with none, it has counted nothing yet."""
        self.values.setdefault(name, {})
        for labels, value in values.items():
            self.put(name, value, *((labels,) if isinstance(labels, str) else labels))

    def add(self, other: Figures, *, ended: bool = False) -> None:
        """Add another process; of one that has `ended` only what it counted."""
        for name, values in other.values.items():
            if ended and BY_NAME[name].kind == "gauge":
                continue
            own = self.values.setdefault(name, {})
            for labels, value in values.items():
                own[labels] = 1.0 if name == "info" else own.get(labels, 0.0) + value
        for name, counts in other.histograms.items():
            before = self.histograms.get(name) or [0.0] * len(counts)
            self.histograms[name] = [one + more for one, more in zip(before, counts, strict=True)]

    def totals(self) -> dict[str, int]:
        """What was counted, by counters without their ending, over all labels."""
        return {
            name.removesuffix("_total"): int(sum(values.values()))
            for name, values in self.values.items()
            if BY_NAME[name].kind == "counter"
        }

    def as_json(self) -> dict[str, Any]:
        """What `figures_of_json` reads."""
        values = {name: [[list(labels), value] for labels, value in of.items()] for name, of in self.values.items()}
        return {"values": values, "histograms": self.histograms}


def figures_of_json(document: dict[str, Any]) -> Figures:
    """The figures that another process wrote."""
    values = {
        name: {tuple(labels): float(value) for labels, value in found} for name, found in document["values"].items()
    }
    return Figures(values, {name: [*map(float, counts)] for name, counts in document["histograms"].items()})


Ledger = dict[str, Figures]  # by the name of a database; NO_DATABASE for what is of the processes


def enter(ledger: Ledger, entries: Mapping[str, Figures], *, ended: bool = False) -> None:
    """Add the figures of another process to a ledger; of one that has `ended` only what it counted."""
    for database, figures in entries.items():
        ledger.setdefault(database, Figures()).add(figures, ended=ended)

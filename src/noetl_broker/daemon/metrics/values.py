"""The values of metrics: counted by one service, summed over processes, and sent between processes as JSON."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from noetl_broker.broker.model.effects import ReportedLate, SignalConditionFailed, UndoChanged
from noetl_broker.broker.model.event_types import ALIASES, RECORDED
from noetl_broker.daemon.metrics.registry import (
    BY_NAME,
    EXECUTIONS_ENDED,
    FAULTS,
    LATE,
    LIMITS,
    LIMITS_HIT,
    MAIL_WAIT,
    METRICS,
    PATH_ENDS,
    PATH_STARTS,
    PATH_TIME,
    SIGNAL_ERRORS,
    TURNS,
    UNDO_FAILURES,
    Labels,
    Metric,
)
from noetl_broker.store.turn.claimed_rows import DecidedTurn
from noetl_broker.store.turn.write import ConflictFault

PROCESS: Final = ""  # in MetricsByDatabase: the values of the process itself

# A label has few values, whatever others write: an event type that is not in this table counts as "other".
EVENT_LABELS: Final = {**ALIASES, **{kind: kind for kind in RECORDED}}
MAX_SQLSTATES: Final = 100  # different ones; a trigger may raise any
MAX_PATHS: Final = 100  # different ones of a service; executions of more count as "other"
ID_EPOCH_SECONDS, ID_BITS = 1_704_067_200, 20  # of `noetl.next_id()`: milliseconds since 2024, then a counter
OTHER: Final = "other"


class MetricValues:
    """Values by metric name and labels; of a histogram, the count of each bucket and then the sum.

    `largest_batch` and `retries` are not exported: the most turns in one transaction, and batches that failed and were
    tried again. `patterns` are those of the setting `metrics_paths`. The name of a histogram with a label is
    `path_seconds|orders/fulfil`.
    """

    __slots__ = ("histograms", "largest_batch", "patterns", "retries", "values")

    def __init__(self) -> None:
        """No value at all."""
        self.values: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, list[float]] = {}
        self.largest_batch = 0
        self.retries = 0
        self.patterns: tuple[str, ...] = ()

    @classmethod
    def of_service(cls) -> MetricValues:
        """Values of a service that has counted nothing: 0 for each metric whose labels are known."""
        made = cls()
        for metric in METRICS:
            if metric.kind == "histogram" and metric.labels:
                continue
            if metric.source == "service" and metric.kind == "histogram":
                made.histograms[metric.name] = [0.0] * (len(metric.buckets) + 2)
            elif metric.source == "service":
                labels: list[Labels] = [(value,) for value in metric.zeros] if metric.labels else [()]
                made.values[metric.name] = dict.fromkeys(sorted(labels), 0.0)
        return made

    def add(self, metric: Metric, amount: float = 1, *labels: str) -> None:
        """Count `amount` more."""
        self.set(metric, self.get(metric, *labels) + amount, *labels)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a value. Raises ValueError when the labels do not fit the declaration."""
        if len(labels) != len(metric.labels):
            raise ValueError(f"the metric {metric.name} has the labels {metric.labels}, not {labels}")
        self.values.setdefault(metric.name, {})[labels] = float(value)

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Count one value of a histogram; a clock that goes back gives 0."""
        name = "|".join((metric.name, *labels))
        counts = (
            self.histograms.setdefault(name, [0.0] * (len(metric.buckets) + 2)) if labels else self.histograms[name]
        )
        counts[bisect_left(metric.buckets, seconds)] += 1
        counts[-1] += max(seconds, 0.0)

    def get(self, metric: Metric, *labels: str) -> float:
        """The value with these labels, 0 where there is none."""
        return self.values.get(metric.name, {}).get(labels, 0.0)

    def total(self, metric: Metric) -> int:
        """The sum over all labels."""
        return int(sum(self.values.get(metric.name, {}).values()))

    def by_label(self, metric: Metric) -> dict[str, int]:
        """The values of a metric with one label that are not 0."""
        return {label: int(value) for (label,), value in self.values.get(metric.name, {}).items() if value}

    def count_above(self, metric: Metric, bucket: float) -> int:
        """How many observed values were greater than this upper bound of a bucket."""
        return int(sum(self.histograms[metric.name][metric.buckets.index(bucket) + 1 : -1]))

    def count_turns(self, taken: Iterable[DecidedTurn]) -> None:
        """Count turns that were committed: their events, their outcomes, and how long the mail waited. A hot path."""
        turns, waits = self.values[TURNS.name], self.histograms[MAIL_WAIT.name]
        buckets = MAIL_WAIT.buckets
        for mail, _, decision in taken:
            kind = mail.event.type
            key = EVENT_LABELS.get(kind) or EVENT_LABELS.get(kind.lower(), OTHER), decision.outcome
            turns[key] = turns.get(key, 0.0) + 1
            waits[bisect_left(buckets, mail.waited)] += 1
            waits[-1] += max(mail.waited, 0.0)
            for effect in decision.effects:
                if isinstance(effect, UndoChanged) and effect.status == "failed":
                    self.add(UNDO_FAILURES, 1)
                elif isinstance(effect, SignalConditionFailed):
                    self.add(SIGNAL_ERRORS, 1)
                elif isinstance(effect, ReportedLate):
                    self.add(LATE, 1, "execution" if effect.step is None else "step")
            if decision.ended is not None:
                self.add(EXECUTIONS_ENDED, 1, decision.ended.status)
                error = decision.ended.error or {}
                limit = error.get("type")
                # A child execution counts its own limit.
                if isinstance(limit, str) and limit in LIMITS and "child_execution_id" not in error:
                    self.add(LIMITS_HIT, 1, limit)

    def count_path(self, path: str | None, taken: Iterable[DecidedTurn]) -> None:
        """Count starts and ends of a playbook that a pattern names. Only installations with patterns call it."""
        if path is None or not any(fnmatchcase(path, pattern) for pattern in self.patterns):
            return
        known = self.values[PATH_STARTS.name]
        label = path if (path,) in known or len(known) < MAX_PATHS else OTHER
        for _, turn, decision in taken:
            if turn.number == 1:
                self.add(PATH_STARTS, 1, label)
            if decision.ended is not None:
                known.setdefault((label,), 0.0)
                self.add(PATH_ENDS, 1, label, decision.ended.status)
                began = ID_EPOCH_SECONDS + (turn.execution_id >> ID_BITS) / 1000
                self.observe(PATH_TIME, turn.at.timestamp() - began, label)

    def count_fault(self, error: BaseException) -> None:
        """Count a fault of the database after which the same is done again, or a turn that another broker took."""
        state = "conflict" if isinstance(error, ConflictFault) else str(getattr(error, "sqlstate", None) or "none")
        states = self.values[FAULTS.name]
        self.add(FAULTS, 1, state if (state,) in states or len(states) < MAX_SQLSTATES else OTHER)

    def merge(self, other: MetricValues, *, ended: bool = False) -> None:
        """Add the values of another process. If it has `ended`, add only counters and histograms."""
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
        """The sum of each counter over its labels, by the name without `_total`."""
        return {
            name.removesuffix("_total"): self.total(BY_NAME[name])
            for name in self.values
            if BY_NAME[name].kind == "counter"
        }

    def as_json(self) -> dict[str, Any]:
        """The document that `from_json` reads."""
        values = {name: [[list(labels), value] for labels, value in of.items()] for name, of in self.values.items()}
        return {"values": values, "histograms": self.histograms}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> MetricValues:
        """The values that another process wrote."""
        made = cls()
        made.values = {
            name: {tuple(labels): float(value) for labels, value in found} for name, found in document["values"].items()
        }
        made.histograms = {name: [*map(float, counts)] for name, counts in document["histograms"].items()}
        return made


MetricsByDatabase = dict[str, MetricValues]  # by the name of a database, and PROCESS


def merge_all(into: MetricsByDatabase, values: Mapping[str, MetricValues], *, ended: bool = False) -> None:
    """Add the values of another process. If it has `ended`, add only counters and histograms."""
    for database, each in values.items():
        into.setdefault(database, MetricValues()).merge(each, ended=ended)

"""Figures as the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from noetl_broker.daemon.figures import METRICS, PREFIX, Ledger, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}


class Shown(Collector):
    """Gives the library one state of the figures."""

    def __init__(self, ledger: Ledger) -> None:
        """These figures, and no later ones."""
        self._ledger = ledger

    def collect(self) -> Iterator[Family]:
        """Each metric of the table that has figures."""
        for metric in METRICS:
            family = _histogram(metric, self._ledger) if metric.kind == "histogram" else _values(metric, self._ledger)
            if family.samples:
                yield family

    def describe(self) -> Iterable[Family]:
        """Nothing beforehand."""
        return ()


def expose(ledger: Ledger) -> bytes:
    """Give the text of the figures."""
    registry = CollectorRegistry()
    registry.register(Shown(ledger))
    return generate_latest(registry)


def _values(metric: Metric, ledger: Ledger) -> Family:
    family = FAMILIES[metric.kind](PREFIX + metric.name, metric.sentence, labels=metric.all_labels)
    for database, figures in sorted(ledger.items()):
        for labels, value in sorted(figures.values.get(metric.name, {}).items()):
            family.add_metric((database, *labels) if metric.of == "database" else labels, value)
    return family


def _histogram(metric: Metric, ledger: Ledger) -> Family:
    family = HistogramMetricFamily(PREFIX + metric.name, metric.sentence, labels=metric.all_labels)
    names = [*map(str, metric.bounds), "+Inf"]
    for database, figures in sorted(ledger.items()):
        if metric.name in figures.histograms:
            *counts, total = figures.histograms[metric.name]
            buckets = [*zip(names, accumulate(counts), strict=True)]
            family.add_metric([database], buckets=buckets, sum_value=total)
    return family

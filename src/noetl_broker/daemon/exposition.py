"""Figures as the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from noetl_broker.daemon.figures import METRICS, PREFIX, Figures, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}


class Shown(Collector):
    """Gives the library one state of the figures."""

    def __init__(self, figures: Figures) -> None:
        """These figures, and no later ones."""
        self._figures = figures

    def collect(self) -> Iterator[Family]:
        """Each metric of the table that has figures, or that counts from 0 and has no labels."""
        for metric in METRICS:
            if metric.kind == "histogram":
                yield from _histogram(metric, self._figures)
            else:
                yield from _values(metric, self._figures)

    def describe(self) -> Iterable[Family]:
        """Nothing beforehand."""
        return ()


def expose(figures: Figures) -> bytes:
    """Give the text of the figures."""
    registry = CollectorRegistry()
    registry.register(Shown(figures))
    return generate_latest(registry)


def _values(metric: Metric, figures: Figures) -> Iterator[Family]:
    values = figures.values.get(metric.name)
    if not values:
        return
    family = FAMILIES[metric.kind](PREFIX + metric.name, metric.sentence, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    yield family


def _histogram(metric: Metric, figures: Figures) -> Iterator[Family]:
    found = figures.histograms.get(metric.name)
    if found is None:
        return
    *counts, total = found
    names = [*map(str, metric.bounds), "+Inf"]
    family = HistogramMetricFamily(PREFIX + metric.name, metric.sentence)
    family.add_metric([], buckets=[*zip(names, accumulate(counts), strict=True)], sum_value=total)
    yield family

"""The metrics in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from noetl_broker.daemon.metrics.registry import METRICS, PREFIX, Metric
from noetl_broker.daemon.metrics.values import MetricsByDatabase

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}


class _Values(Collector):
    """Gives the library the values of one moment."""

    def __init__(self, metrics: MetricsByDatabase) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        """Each declared metric that has values."""
        for metric in METRICS:
            family = _histogram(metric, self._metrics) if metric.kind == "histogram" else _values(metric, self._metrics)
            if family.samples:
                yield family

    def describe(self) -> Iterable[Family]:
        """Nothing: names are not registered beforehand."""
        return ()


def expose(metrics: MetricsByDatabase) -> bytes:
    """The metrics as text."""
    registry = CollectorRegistry()
    registry.register(_Values(metrics))
    return generate_latest(registry)


def _values(metric: Metric, metrics: MetricsByDatabase) -> Family:
    family = FAMILIES[metric.kind](PREFIX + metric.name, metric.help, labels=metric.all_labels)
    for database, values in sorted(metrics.items()):
        for labels, value in sorted(values.values.get(metric.name, {}).items()):
            family.add_metric(labels if metric.source == "process" else (database, *labels), value)
    return family


def _histogram(metric: Metric, metrics: MetricsByDatabase) -> Family:
    family = HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=metric.all_labels)
    names = [*map(str, metric.buckets), "+Inf"]
    for database, values in sorted(metrics.items()):
        for name, (*counts, total) in sorted(values.histograms.items()):
            base, *labels = name.split("|", 1)
            if base == metric.name:
                buckets = [*zip(names, accumulate(counts), strict=True)]
                family.add_metric([database, *labels], buckets=buckets, sum_value=total)
    return family

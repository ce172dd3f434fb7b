"""docs/reference/observability.md, the dashboard and the alerts use existing metrics, labels and statements."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from noetl_broker.daemon.metrics.registry import BY_NAME, METRICS, PREFIX
from tests.docs.pages import read_page, table_rows
from tests.postgres import Database, asyncpg_connect
from tests.test_tidy import ROOT

PAGE = read_page("observability")
RULES = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text(encoding="utf-8"))
PARTS = ("_bucket", "_count", "_sum")
SCRAPED = {"job", "instance"}  # Prometheus itself adds these


def panel_queries() -> Iterator[tuple[str, str]]:
    """Yield each query of the dashboard with the title of its panel."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", "5m").replace("$database", ".*")
            yield panel["title"], query


QUERIES = [*panel_queries(), *((rule["alert"], rule["expr"]) for rule in RULES)]


def parts(expression: Any) -> Iterator[Any]:
    """Yield a PromQL expression and all its parts."""
    yield expression
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None and not isinstance(inner, str | float | int):
            yield from parts(inner)
    for argument in getattr(expression, "args", ()):
        yield from parts(argument)


def selectors(query: str) -> list[Any]:
    """Return the metric selectors of a query."""
    return [part for part in parts(promql_parser.parse(query)) if isinstance(part, promql_parser.VectorSelector)]


def metric_of(selector: Any) -> str:
    """Return the metric that a selector reads."""
    name = str(selector.name)
    for part in PARTS:
        found = BY_NAME.get(name.removeprefix(PREFIX).removesuffix(part))
        if name.endswith(part) and found is not None and found.kind == "histogram":
            return found.name
    return name.removeprefix(PREFIX)


def test_each_metric_is_on_the_page() -> None:
    """With kind and labels, in the order of metrics/registry.py."""
    assert [row[:3] for row in table_rows(PAGE, "| metric")] == [
        [f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.all_labels)] for metric in METRICS
    ]


@pytest.mark.parametrize("place, query", QUERIES)
def test_each_query_uses_existing_metrics(place: str, query: str) -> None:
    """With labels of the metric; a rate needs a counter."""
    found = selectors(query)
    assert found != []
    for selector in found:
        metric = BY_NAME.get(metric_of(selector))
        assert metric is not None, f"{place} reads {selector.name}"
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched - {*metric.all_labels, *SCRAPED} == set()
    asked = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
    have = {label for selector in found for label in BY_NAME[metric_of(selector)].all_labels}
    assert asked - have - SCRAPED - {"le"} == set()
    for of_counter in re.findall(r"(?:rate|increase)\((\w+)", query):
        assert of_counter.endswith(("_total", *PARTS))


def test_each_metric_is_used_by_the_dashboard_or_an_alert() -> None:
    """Otherwise it need not be counted."""
    used = {metric_of(selector) for _, query in QUERIES for selector in selectors(query)}
    assert {metric.name for metric in METRICS} - used == set()


def test_each_alert_has_a_reason_and_an_action() -> None:
    """Each has a summary, a reason, an action, a severity and its own name."""
    assert [set(rule["annotations"]) for rule in RULES] == [{"summary", "reason", "action"}] * len(RULES)
    assert {rule["labels"]["severity"] for rule in RULES} == {"page", "ticket"}
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


async def test_the_statements_of_the_alerts_run(database: Database) -> None:
    """Operators copy them."""
    statements = re.findall(r"`(select [^`]*)`", " ".join(rule["annotations"]["action"] for rule in RULES))
    connection = await asyncpg_connect(database)
    try:
        for statement in statements:
            await connection.fetch(statement)
    finally:
        await connection.close()
    assert len(statements) == 4


def test_counters_are_named_as_counters() -> None:
    """Only counters end in _total, by Prometheus' convention."""
    assert [metric.name for metric in METRICS if (metric.kind == "counter") != metric.name.endswith("_total")] == []


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    """Each place and each id is used once."""
    taken = [
        (x, y)
        for grid in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(taken) == len(set(taken))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

"""Metrics by playbook: only playbooks that the setting names become labels."""

from __future__ import annotations

from noetl_broker.daemon.metrics.prometheus import expose
from noetl_broker.daemon.metrics.registry import PATH_STARTS
from tests.brokers import drain, register, start
from tests.postgres import Database

SHORT = "workflow: [{step: start, next: end}, {step: end}]"


async def test_only_named_playbooks_become_labels(database: Database) -> None:
    """Starts, ends by status, and durations."""
    for path in ("orders/a", "mail"):
        await register(database, SHORT, path=path)
    await start(database, "orders/a", count=2)
    await start(database, "mail")
    service = await drain(database, metrics_paths=("orders/*",))
    assert service.metrics.by_label(PATH_STARTS) == {"orders/a": 2}
    text = expose({"db": service.metrics}).decode()
    assert 'path_ends_total{database="db",path="orders/a",status="COMPLETED"} 2.0' in text
    assert 'path_seconds_count{database="db",path="orders/a"} 2.0' in text

"""Fixtures of the chaos tests: each adds a row to the table of faults that the run prints at its end."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pytest_postgresql.executors import NoopExecutor

from noetl_broker.daemon import batch
from tests.brokers import PATIENCE_SECONDS
from tests.postgres import Copies, Database
from tests.sessions import close_pools
from tests.summary import FAULT

CHAOS = Path(__file__).parent


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Give a function that adds a row to the table: the fault and its outcome."""
    return lambda fault, outcome: record_property(FAULT, (fault, str(outcome)))


@pytest.fixture
def new_database(copies: Copies, migrated_template: NoopExecutor) -> Callable[[], AbstractContextManager[Database]]:
    """Give a function that makes a migrated database at each call."""
    return lambda: copies(migrated_template.template_dbname)


@pytest.fixture
def same_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a batch wait for its playbooks and decide on all that it claimed, however slow the machine is.

    Otherwise it leaves some mail for another batch, and a statement has another number in each run.
    """
    monkeypatch.setattr(batch, "COMPILE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(batch, "DECIDE_SECONDS", PATIENCE_SECONDS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore ResourceWarnings of connections that a test cut on purpose."""
    for item in items:
        if CHAOS in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(autouse=True)
async def _cleared_up() -> AsyncIterator[None]:
    """Close connections to servers of the test's own, and collect those that it cut, before the next test begins."""
    yield
    await close_pools()
    gc.collect()

"""What chaos tests may ask for: a row in the table of faults that the run prints at its end."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor

from tests.chaos.table import PROPERTY
from tests.conftest import lend
from tests.postgres import Database, Server

CHAOS = Path(__file__).parent


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Give what adds a row: the fault, and what came of it."""
    return lambda fault, outcome: record_property(PROPERTY, (fault, str(outcome)))


@pytest.fixture
def new_database(
    maintenance: psycopg.Connection, postgres_server: Server, migrated_template: NoopExecutor
) -> Callable[[], AbstractContextManager[Database]]:
    """Give what lends a migrated database, again and again."""
    return lambda: contextmanager(lend)(maintenance, postgres_server, migrated_template.template_dbname)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A connection that is cut on purpose is found open by the collector: here that is no fault."""
    for item in items:
        if CHAOS in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Let the collector find what was cut while the test that cut it is still there, and not in one after it."""
    yield
    gc.collect()

"""What chaos tests may ask for: a row in the table of faults that the run prints at its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor

from tests.chaos.table import PROPERTY
from tests.conftest import lend
from tests.postgres import Database, Server


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

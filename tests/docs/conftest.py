"""The reader of a page, who has a folder and mostly a database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA
from tests.cli.conftest import Command
from tests.docs.runner import PageRun
from tests.postgres import SCHEMA, Database


@pytest.fixture(autouse=True)
def _schema_of_the_pages() -> None:
    """Skip under another name: pages show SQL, output and rights for the schema `noetl`."""
    if SCHEMA != DEFAULT_SCHEMA:
        pytest.skip(f"pages show the schema {DEFAULT_SCHEMA}")


@pytest.fixture
def reader(database: Database, tmp_path: Path) -> Iterator[PageRun]:
    """Yield the reader of a page, with a database and a broker that decides after each line."""
    command = Command(tmp_path, database.dsn)
    page = PageRun(command, database)
    yield page
    page.close()
    command.close()

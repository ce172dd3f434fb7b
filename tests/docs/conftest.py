"""The fixtures of the command line, for tests of what pages show."""

import pytest

from noetl_broker.store.schema_name import DEFAULT_SCHEMA
from tests.cli.conftest import demo, lone_command
from tests.postgres import SCHEMA

__all__ = ["demo", "lone_command"]


@pytest.fixture(autouse=True)
def _schema_of_the_pages() -> None:
    """Skip under another name: pages show SQL, output and rights for the schema `noetl`."""
    if SCHEMA != DEFAULT_SCHEMA:
        pytest.skip(f"pages show the schema {DEFAULT_SCHEMA}")

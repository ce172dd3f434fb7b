"""The fixtures of the command line, for services."""

import pytest

from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA
from tests.cli.conftest import command, lone_command
from tests.postgres import SCHEMA

__all__ = ["command", "lone_command"]


@pytest.fixture(autouse=True)
def _schema_of_the_stacks() -> None:
    """Skip under another name: stacks and units use the schema `noetl`."""
    if SCHEMA != DEFAULT_SCHEMA:
        pytest.skip(f"stacks use the schema {DEFAULT_SCHEMA}")

"""The tests of a file share a database and its connections, unless they have the mark `own_database`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kept_database import keeper, kept_database, use_loop_of_file

__all__ = ["keeper", "kept_database"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the asynchronous tests of a file one event loop."""
    use_loop_of_file(items, Path(__file__).parent)

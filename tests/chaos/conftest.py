"""What chaos tests may ask for: a row in the table of faults that the run prints at its end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.table import PROPERTY


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Give what adds a row: the fault, and what came of it."""
    return lambda fault, outcome: record_property(PROPERTY, (fault, str(outcome)))

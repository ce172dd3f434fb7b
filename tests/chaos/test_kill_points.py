"""A broker that dies before or after any statement loses and repeats nothing: another one finishes its work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.brokers import rows
from tests.chaos.killed_brokers import broker, killed_at, story, undisturbed
from tests.chaos.sampling import LONG, sample
from tests.chaos.shapes import SHAPES, register_shapes
from tests.chaos.stopping_proxy import MOMENTS, Point
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import session

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("same_statements")]

SAMPLED = 4
NOT_ALARMED = """
    select x.execution_id
    from noetl.execution x
    where x.path = 'undone' and x.status = 'FAILED' and 1 <> (
      select count(*)
      from noetl.execution a
      where a.idempotency_key = 'on_failure ' || x.execution_id and a.status = 'COMPLETED'
    )"""
LEAST_STATEMENTS = 12  # at least begin, take, write, commit, for three stages


def chosen(statements: list[str]) -> list[Point]:
    """Give the points to try; a sample has points before and after each kind of statement that does something."""
    points = [Point(n, moment) for n in range(len(statements)) for moment in MOMENTS]
    if LONG:
        return points
    working = [point for point in points if statements[point.number] not in {"begin", "rollback"}]
    return sample(sorted(working, key=lambda point: (statements[point.number], point.moment)), SAMPLED)


@pytest.mark.parametrize("shape", SHAPES if LONG else ["family", "waits", "signals"])
async def test_a_broker_killed_at_a_statement_loses_and_repeats_nothing(
    database: Database, shape: str, tried: Callable[[str, object], None]
) -> None:
    """The broker is cut off at each point. The history is that of an undisturbed run."""
    await register_shapes(database)
    differing = {}
    async with session(database) as connection, broker(database) as fresh:
        expected, statements = await undisturbed(database, shape, connection)
        assert len(statements) > LEAST_STATEMENTS
        assert "commit" in statements
        points = chosen(statements)
        for point in points:
            execution_id = await killed_at(database, shape, point, fresh, connection)
            if await story(connection, execution_id) != expected:
                differing[point] = statements[point.number]
    assert differing == {}
    assert await rows(database, NOT_ALARMED) == []
    assert await inconsistencies(database) == {}
    tried(f"killed at {len(points)} of {2 * len(statements)} points of {shape}", "0 lost, 0 doubled")

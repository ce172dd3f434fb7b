"""A broker that goes away before or after any statement loses nothing and doubles nothing: a fresh one finishes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.brokers import broken_invariants
from tests.chaos.extent import sample
from tests.chaos.killing import broker, killed_at, story, undisturbed
from tests.chaos.proxy import MOMENTS, Point
from tests.chaos.shapes import SHAPES, register_shapes
from tests.postgres import Database
from tests.sessions import session
from tests.settled import unsettled

pytestmark = pytest.mark.chaos

SAMPLED = 12
LEAST_STATEMENTS = 12  # fewer than these were no evaluation: begin, take, write, commit, for three stages


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_broker_killed_at_a_statement_loses_and_doubles_nothing(
    database: Database, shape: str, tried: Callable[[str, object], None]
) -> None:
    """Each point is a broker of its own behind a wire that is cut there; the story is that of the undisturbed run."""
    await register_shapes(database)
    differing = {}
    async with session(database) as connection, broker(database) as fresh:
        expected, statements = await undisturbed(database, shape, connection)
        assert len(statements) > LEAST_STATEMENTS
        assert "commit" in statements
        points = sample([Point(n, moment) for n in range(len(statements)) for moment in MOMENTS], SAMPLED)
        for point in points:
            execution_id = await killed_at(database, shape, point, fresh, connection)
            if await story(connection, execution_id) != expected:
                differing[point] = statements[point.number]
    assert differing == {}
    assert await broken_invariants(database) == {}
    assert await unsettled(database) == {}
    tried(f"killed at {len(points)} of {2 * len(statements)} points of {shape}", "0 lost, 0 doubled")

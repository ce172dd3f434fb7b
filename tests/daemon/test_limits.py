"""The bounds of an execution, for real: each ends the execution that passes it, by name, and no other."""

from __future__ import annotations

from noetl_broker.broker.model import Rules
from tests.brokers import complete_jobs, drain, register, rows, start, value
from tests.postgres import Database
from tests.settled import unsettled

LOOP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: a}
"""
WIDE = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
- {step: c, type: python, code: x}
"""
SHORT = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x}
"""
ENDED = "select path, status, error ->> 'type' from noetl.execution order by path"


async def test_an_execution_without_an_end_ends_after_its_last_turn(database: Database) -> None:
    """A loop that no condition leaves; the execution beside it is not touched."""
    await register(database, LOOP, path="loop")
    await register(database, SHORT, path="short")
    await start(database, "loop")
    await start(database, "short")
    rules = Rules(max_turns=5)
    await drain(database, rules=rules)
    while await complete_jobs(database, 1):
        await drain(database, rules=rules)
    assert await rows(database, ENDED) == [("loop", "FAILED", "max_turns"), ("short", "COMPLETED", None)]
    assert await unsettled(database) == {}


async def test_a_turn_that_is_too_wide_leaves_no_job_behind(database: Database) -> None:
    """The jobs that the turn began with are taken back in the same transaction."""
    await register(database, WIDE, path="wide")
    await register(database, SHORT, path="short")
    await start(database, "wide")
    await start(database, "short")
    await drain(database, rules=Rules(max_fan_out=2))
    assert await complete_jobs(database, 1) == 1
    await drain(database)
    assert await rows(database, ENDED) == [("short", "COMPLETED", None), ("wide", "FAILED", "max_fan_out")]
    assert await unsettled(database) == {}


async def test_the_bounds_of_an_execution_are_those_of_its_start(database: Database) -> None:
    """A daemon with a smaller limit goes on with what began under the larger one."""
    await register(database, LOOP, path="loop")
    await start(database, "loop")
    await drain(database, rules=Rules(max_turns=50))
    for _ in range(4):
        await complete_jobs(database, 1)
        await drain(database, rules=Rules(max_turns=1))
    assert await value(database, "select status from noetl.execution") == "RUNNING"

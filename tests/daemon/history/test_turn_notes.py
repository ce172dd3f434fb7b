"""Notes in the row of a turn explain its decision."""

from __future__ import annotations

from noetl_broker.broker.model.rules import Rules
from tests.brokers import broken_invariants, complete_jobs, drain, register, rows, start, value
from tests.postgres import Database


async def test_an_undefined_condition_that_counts_as_false_is_noted(database: Database) -> None:
    """Under `undefined_when: false`; turns without such a condition have no note."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: [{when: "{{ a.missing > 1 }}", step: b}, {else: [end]}]}
        - {step: b, type: python, code: x}
        - {step: end}
        """,
    )
    await start(database)
    await drain(database, rules=Rules(undefined_when="false"))
    await complete_jobs(database, {"n": 1})
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    [(first,), (second,)] = await rows(database, "select note from noetl.turn order by turn")
    assert first is None
    assert second.startswith("undefined in a when, taken as false: ")
    assert "missing" in second
    assert await broken_invariants(database) == {}

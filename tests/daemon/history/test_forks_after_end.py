"""A fork from a step after an early `end`, in the database: its result, and a replay without a difference."""

from __future__ import annotations

from tests.brokers import broken_invariants, drain, register, rows, start
from tests.daemon.history.test_forks import answer, differences, fork
from tests.postgres import Database

EARLY = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: {step: end, args: {x: "{{ result }}"}}}
- {step: b, type: python, code: x, next: c}
- {step: c, type: python, code: x}
- {step: end, join: any, type: python, code: x, args: {y: "{{ result + 1 }}"}, result: "{{ args }}"}
"""


async def test_a_fork_from_a_step_after_end_has_its_result(database: Database) -> None:
    """Also a fork of the fork, and one with a given result: the action of `end` has run."""
    await register(database, EARLY)
    [source] = await start(database)
    await drain(database)
    for step, result in (("a", 7), ("end", "done"), ("b", 1), ("c", 2)):
        await answer(database, step, result)
    forks: list[int] = []
    for values in ({}, {"a": 5}, {}):
        forks.append(await fork(database, forks[-1] if forks else source, "c", **values))
        await drain(database)
        await answer(database, "c", 3)
    outcomes = await rows(database, "select status, result from noetl.execution order by execution_id")
    assert outcomes == [("COMPLETED", {"x": 7, "y": 8})] * 4
    assert [await differences(database, execution_id) for execution_id in forks] == [[], [], []]
    assert await broken_invariants(database) == {}

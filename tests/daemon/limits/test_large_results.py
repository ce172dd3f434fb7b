"""Results, workloads and inputs that together exceed the memory: a transaction loads 4 MiB of them, or one."""

from __future__ import annotations

import pytest

from noetl_broker.broker.draft.wants import want_items
from noetl_broker.broker.model.values import JSON
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.store.turn.load import Wants, load_answers
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.daemon.limits.test_large_payloads import megabytes
from tests.postgres import Database
from tests.sessions import session

LARGE = megabytes(1.5)
STORY = """
workload: {blob: ""}
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: b}
- {step: b, type: python, code: x, with: {got: "{{ FIRST }}"}, next: c}
- {step: c, type: python, code: x, with: {got: "{{ SECOND }}"}, next: end}
- {step: end}
"""


async def _answered(database: Database, expected: int, result: JSON = LARGE) -> int:
    """Complete all jobs with these results and decide on them; gives the largest transaction's count."""
    assert await complete_jobs(database, result) == expected
    return (await drain(database)).metrics.largest_batch


@pytest.mark.parametrize(
    "first, second",
    [("a.blob", "1"), ("1", "a.blob"), ("workload.blob", "1"), ("1", "1")],
)
async def test_values_that_templates_read_limit_the_transaction(database: Database, first: str, second: str) -> None:
    """The result of the event, of an earlier step, the workload. Unread values do not count."""
    await register(database, STORY.replace("FIRST", first).replace("SECOND", second))
    for _ in range(3):
        await start(database, payload=LARGE if "workload" in first else {})
    await drain(database)
    for before, node, named in (("a", "b", first), ("b", "c", second)):
        is_large = f"{before}.blob" in (first, second) or first == second
        together = await _answered(database, 3, LARGE if is_large else 1)
        assert together <= 2 if "blob" in named else together == 3
        inputs = f"select length(action::jsonb -> 'args' ->> 'got') from noetl.queue where node_name = '{node}'"
        assert await rows(database, inputs) == [(len(LARGE["blob"]) if "blob" in named else 1,)] * 3
    await _answered(database, 3, 1)
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 3
    assert await broken_invariants(database) == {}


async def test_a_single_value_is_loaded_whatever_its_size(database: Database) -> None:
    """No transaction could be smaller."""
    await register(database, STORY.replace("FIRST", "workload.blob").replace("SECOND", "1"))
    for _ in range(2):
        await start(database, payload=megabytes(4.5))
    await drain(database)
    assert await _answered(database, 2, 1) == 1


async def test_inputs_that_are_read_again_limit_the_transaction_too(database: Database) -> None:
    """They are in the job; a condition of the step may read them."""
    reading = "next: [{when: '{{ got | length > 1 }}', step: c}]"
    await register(database, STORY.replace("next: c", reading).replace("FIRST", "a.blob").replace("SECOND", "1"))
    await start(database, count=3)
    await drain(database)
    assert max(await _answered(database, 3), await _answered(database, 3)) <= 2
    assert await value(database, "select count(*) from noetl.queue where node_name = 'c'") == 3


async def test_large_results_of_one_execution_are_taken_a_few_at_a_time(database: Database) -> None:
    """Turns of one transaction may read each other's results, so they are loaded together."""
    names = [f"b{number}" for number in range(10)]
    steps = [f"- {{step: {name}, type: python, code: x, next: end}}" for name in names]
    await register(
        database, "\n".join(["workflow:", f"- {{step: start, next: [{', '.join(names)}]}}", *steps, "- {step: end}"])
    )
    await start(database)
    await drain(database)
    assert await complete_jobs(database, megabytes(0.02)) == 10
    assert (await drain(database)).metrics.largest_batch <= 8
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    assert await broken_invariants(database) == {}


async def test_a_workload_that_was_removed_is_empty(database: Database) -> None:
    """Its column is null."""
    await register(database, STORY.replace("FIRST", "workload.blob").replace("SECOND", "1"))
    await start(database, payload={"blob": "x" * 5_000})
    await drain(database)
    await execute(database, "update noetl.execution set workload = null")
    await complete_jobs(database)
    assert (await drain(database)).metrics.total(metric.TURNS) == 1


async def test_items_are_loaded_for_a_few_iterators_at_a_time(database: Database) -> None:
    """The others wait for another transaction."""
    wants: Wants = {number: frozenset({want_items("each", 1, 0, 2)}) for number in (1, 2, 3)}
    async with session(database) as own:
        await own.execute(
            """
            insert into noetl.iteration (execution_id, node_id, index, item, status)
            select e, e || ':each', p, $1, 'WAITING' from generate_series(1, 3) e, generate_series(0, 1) p""",
            megabytes(1),
        )
        answers = await load_answers(own, wants, event_ids={})
        assert {number: len(answer) for number, answer in answers.items()} == {1: 1, 2: 1}
        assert answers[2]["items", "each", 1, 0, 2] == [megabytes(1)] * 2
        assert [*await load_answers(own, {3: wants[3]}, event_ids={})] == [3]

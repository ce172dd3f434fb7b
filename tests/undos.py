"""Executions that undo what they did: their playbooks, and workers that answer by hand."""

from __future__ import annotations

from functools import partial

from noetl_broker.broker.model.values import JSON
from tests.brokers import drain, rows, value
from tests.postgres import Database

ORDER = """
workflow:
  - {step: start, next: reserve}
  - step: reserve
    type: python
    code: "def main(): ..."
    compensate: {type: python, code: "def main(id): ...", args: {id: "{{ result.id }}", why: "{{ error.message }}"}}
    next: charge
  - step: charge
    type: python
    code: "def main(): ..."
    compensate: {type: python, code: "def main(id): ...", args: {id: "{{ result.id }}"}, retry: 2}
    next: ship
  - {step: ship, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
STATUS = "select status from noetl.execution where execution_id = $1"
STANDS = "select status, undo_status from noetl.execution where execution_id = $1"
UNDO = "select noetl.undo_execution($1)"
UNDOS = """
    select step || coalesce('[' || index || ']', ''), status
    from noetl.undo
    where execution_id = $1
    order by turn, index"""
EVENTS = """
    select event_type, node_name
    from noetl.event
    where execution_id = $1 and event_type like 'comp%'
    order by created_at"""


async def lease(database: Database, *, worker: str = "w", seconds: int = 60) -> dict[str, tuple[int, int]]:
    """Lease all jobs; return each with its attempt by the name of its node, which no two of them share."""
    statement = "select node_name, queue_id, attempts from noetl.lease_jobs($1, 1000, $2)"
    return {name: (job, attempt) for name, job, attempt in await rows(database, statement, worker, seconds)}


async def complete(database: Database, job: tuple[int, int], result: JSON = None, *, worker: str = "w") -> bool:
    """Complete a leased job."""
    return bool(await value(database, "select noetl.complete_job($1, $4, $2, $3)", *job, result, worker))


async def fail(database: Database, job: tuple[int, int], message: str = "no", *, retryable: bool = False) -> bool:
    """Fail a leased job."""
    return bool(
        await value(database, "select noetl.fail_job($1, 'w', $2, $3, $4)", *job, {"message": message}, retryable)
    )


async def work(database: Database, *, failing: tuple[str, ...] = (), most: int = 100) -> list[str]:
    """Decide and answer until no job is left; return the names of the jobs in their order.

    Those in `failing` fail for good. The result of each is {id: its name}.
    """
    done: list[str] = []
    for _ in range(most):
        await drain(database)
        leased = await rows(database, "select queue_id, attempts, node_name from noetl.lease_jobs('w', 1000)")
        if not leased:
            return done
        for job, attempt, name in sorted(leased):
            done.append(name)
            answer = fail if name in failing else partial(complete, result={"id": name})
            await answer(database, (job, attempt))
    raise AssertionError(f"jobs without an end: {done}")

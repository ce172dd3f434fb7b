"""Executions that cannot be decided become dead letters, delay no others, and come back after a repair."""

from __future__ import annotations

import pytest

from noetl_broker.daemon.metrics.registry import BATCHES, SET_ASIDE
from noetl_broker.daemon.quarantine import ISOLATING_BATCHES
from noetl_broker.store import recovery
from tests.brokers import broken_invariants, complete_jobs, drain, register, rows, start
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

EXECUTIONS = 20_000 if LONG else 400
EVERY = 500 if LONG else 200  # execution: the core cannot read one, the database refuses the next
LANES = 3
CHAIN = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: b}
- {step: b, type: python, code: x, next: end}
- {step: end}
"""
SPOIL = """
    update noetl.execution_state
    set tokens = '{"status": "RUNNING", "seen": "no number"}'
    where execution_id = any ($1)"""
MEND = """
    update noetl.execution_state s
    set tokens = k.tokens
    from public.kept k
    where k.execution_id = s.execution_id"""


async def test_undecidable_mail_becomes_dead_letters_and_comes_back_after_a_repair(
    database: Database, tried: Tried
) -> None:
    """Half of it raises in the core, and half fails in the database."""
    await register(database, CHAIN)
    started = await start(database, count=EXECUTIONS)
    await drain(database)
    in_core, in_database = started[::EVERY], started[1::EVERY]
    async with session(database) as connection:
        await connection.execute("create table public.kept as select execution_id, tokens from noetl.execution_state")
        await connection.execute(SPOIL, in_core)
        listed = ", ".join(map(str, in_database))
        await connection.execute(
            f"alter table noetl.turn add constraint refused check (execution_id <> all ('{{{listed}}}')) not valid"
        )
        await complete_jobs(database)
        first = (await drain(database, lanes=LANES)).metrics
        # After a failure, a hundred batches isolate failing mail: each further fault is found by its own batch.
        assert 1 <= first.retries <= LANES * (1 + first.total(BATCHES) // ISOLATING_BATCHES)
        assert first.total(SET_ASIDE) == len(in_core + in_database)
        await complete_jobs(database)
        then = (await drain(database, lanes=LANES)).metrics
        assert (then.retries, then.total(SET_ASIDE)) == (0, 0)
        dead = await connection.fetch("select execution_id, reason from noetl.dead_letter order by execution_id")
        assert [row["execution_id"] for row in dead] == sorted(in_core + in_database)
        reasons = {row["execution_id"]: row["reason"] for row in dead}
        assert all("no number" in reasons[execution_id] for execution_id in in_core)
        assert all('"refused"' in reasons[execution_id] for execution_id in in_database)
        others = EXECUTIONS - len(dead)
        assert await rows(database, "select status, count(*) from noetl.execution group by 1 order by 1") == [
            ("COMPLETED", others),
            ("RUNNING", len(dead)),
        ]
        await connection.execute(MEND)
        await connection.execute("alter table noetl.turn drop constraint refused")
        for execution_id in reasons:
            assert await recovery.put_back(connection, execution_id) == 1
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await broken_invariants(database) == {}
    tried(f"poison: {len(dead)} of {EXECUTIONS} executions", "set aside with a reason, brought back, 0 lost")

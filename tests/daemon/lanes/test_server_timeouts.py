"""A decision that always exceeds the server's timeout does not delay the others for ever."""

from __future__ import annotations

import pytest

from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.store.connect.connection import call
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import session

STORY = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
FAIL = """
    create function public.fail() returns trigger language plpgsql as $$
    begin
      if exists (select from arrived where execution_id = {execution_id}) then
        raise exception using errcode = '{sqlstate}', message = 'it took too long';
      end if;
      return null;
    end $$;
    create trigger fail after insert on noetl.turn referencing new table as arrived
    for each statement execute function public.fail()"""


@pytest.mark.changes_tables
async def test_mail_that_always_times_out_becomes_a_dead_letter(database: Database) -> None:
    """After five attempts alone. The others end, and it comes back after the repair."""
    sqlstate = "25P04"
    await register(database, STORY)
    slow, *others = await start(database, count=40)
    await drain(database)
    await execute(database, FAIL.format(execution_id=slow, sqlstate=sqlstate))
    await complete_jobs(database)
    metrics = (await drain(database)).metrics
    [(set_aside, reason)] = await rows(database, "select execution_id, reason from noetl.dead_letter")
    assert (set_aside, "it took too long" in reason) == (slow, True)
    assert metrics.by_label(metric.FAULTS)[sqlstate] >= 5
    ended = "select count(*) from noetl.execution where status = 'COMPLETED'"
    assert await value(database, ended) == len(others)
    await execute(database, "drop trigger fail on noetl.turn")
    async with session(database) as own:
        assert await call(own, "put_back", slow) == 1
    await drain(database)
    assert await value(database, ended) == 40
    assert await broken_invariants(database) == {}


@pytest.mark.changes_tables
async def test_a_batch_that_times_out_is_halved_from_its_own_size(database: Database) -> None:
    """Halving from the setting would take many more attempts."""
    await register(database, STORY)
    executions = await start(database, count=40)
    await drain(database)
    body = FAIL.format(execution_id=executions[0], sqlstate="57014")
    many = "if (select count(*) > 10 from arrived where true or"
    await execute(database, body.replace("if exists (select from arrived where", many))
    await complete_jobs(database)
    assert (await drain(database, lanes=1)).metrics.by_label(metric.FAULTS)["57014"] == 2
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 40

"""Sums of hours: they say what the executions themselves say, and follow executions that end late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from noetl_broker.service import stats
from noetl_broker.service.action import Caller
from noetl_broker.service.models.stats import StatsRequest
from noetl_broker.store.admin import figures
from tests.brokers import execute, value
from tests.postgres import Database
from tests.sessions import session

# 300 executions in 3 hours that are over, 10 minutes apart in their lengths; each third fails in step b.
MADE = """
insert into noetl.execution (execution_id, path, version, status, started_at, ended_at, error)
select noetl.first_id_at(m.at) | (m.n << 6) | coalesce(noetl.bucket_number(), 0), 'story', 1 + m.n / 200,
  case when m.n % 3 = 0 then 'FAILED' else 'COMPLETED' end, m.at, m.at + interval '10 seconds' * (1 + m.n / 200),
  case when m.n % 3 = 0 then '{"type": "Boom", "step": "b", "message": "5"}'::jsonb end
from (
  select n, date_trunc('hour', now()) - interval '4 hours' + n * interval '36 seconds' as at
  from generate_series(0, 299) n
) m
"""
STEPS = """
insert into noetl.workflow (execution_id, step_id, step_name, status, visits, started_at, ended_at)
select x.execution_id, s.step, s.step, case when s.step = 'b' then x.status else 'COMPLETED' end, 1, x.started_at,
  x.started_at + interval '1 second'
from noetl.execution x
cross join (values ('a'), ('b')) s (step)
"""
JOBS = """
insert into noetl.queue (execution_id, node_id, node_name, node_type, action, status, attempts, available_at,
  first_leased_at)
select w.execution_id, w.execution_id || ':' || w.step_name, w.step_name, 'python', '{}', 'done', 2, w.started_at,
  w.started_at + interval '100 milliseconds'
from noetl.workflow w
"""


async def made(database: Database) -> None:
    """Write the executions with their steps and jobs."""
    for text in (MADE, STEPS, JOBS):
        await execute(database, text)


async def ask(database: Database, **given: Any) -> Any:
    """Return the answer of `stats`."""
    async with session(database) as own:
        return await stats.show_stats(own, Caller(), StatsRequest(**given))


async def sum_hours(database: Database) -> int:
    """Sum what is due."""
    async with session(database) as own:
        return await figures.sum_due_hours(own, most=100)


async def test_sums_say_what_the_executions_say(database: Database) -> None:
    """A page that reads sums shows the same numbers as one that reads executions."""
    await made(database)
    before = [await ask(database, since="6h", path=path) for path in (None, "story")]
    assert await sum_hours(database) > 0
    await execute(database, "truncate noetl.workflow, noetl.queue")
    after = [await ask(database, since="6h", path=path) for path in (None, "story")]
    clocks = dict.fromkeys(("read_at", "until"))
    assert [one | clocks for one in after] == [one | clocks for one in before]
    total, steps = after[1]["total"], {one["step"]: one for one in after[1]["steps"]}
    assert (total["started"], total["completed"], total["failed"], after[1]["errors"]) == (
        300, 200, 100, [{"type": "Boom", "count": 100}],
    )  # fmt: skip
    assert (steps["a"]["visits"], steps["a"]["retries"], steps["b"]["failed"]) == (300, 300, 100)
    assert steps["b"]["errors"] == [{"type": "Boom", "count": 100}]
    assert abs(steps["a"]["wait"]["p50"] - 0.1) < 0.02


async def test_versions_of_a_playbook_are_compared(database: Database) -> None:
    """The second version takes twice as long."""
    await made(database)
    await sum_hours(database)
    found = [await ask(database, since="6h", path="story", version=version) for version in (1, 2)]
    assert [one["total"]["started"] for one in found] == [200, 100]
    medians = [one["total"]["duration"]["p50"] for one in found]
    assert abs(medians[1] / medians[0] - 2) < 0.1


async def test_an_hour_is_summed_again_when_its_executions_end(database: Database) -> None:
    """Not before: an execution that waits for days costs nothing."""
    await made(database)
    await execute(database, "update noetl.execution set status = 'RUNNING', ended_at = null where version = 2")
    await sum_hours(database)
    await execute(database, "update noetl.figure set summed_at = now() - interval '1 hour'")
    assert (await sum_hours(database), (await ask(database, since="6h"))["times"][-1]["backlog"]) == (0, 100)
    await execute(database, "update noetl.execution set status = 'COMPLETED', ended_at = now() where version = 2")
    assert await sum_hours(database) == 1
    answer = await ask(database, since="6h")
    assert (answer["total"]["live"], answer["times"][-1]["backlog"]) == (0, 0)


async def test_a_page_reads_a_bounded_number_of_executions(database: Database, monkeypatch: Any) -> None:
    """It says how many hours are missing."""
    await made(database)
    monkeypatch.setattr(figures, "READ", 150)
    answer = await ask(database, since="6h")
    assert (answer["total"]["started"] <= 150, answer["missing_hours"]) == (True, 2)


async def test_steps_of_a_sample_stand_for_all(database: Database, monkeypatch: Any) -> None:
    """The answer says what part was read."""
    await made(database)
    monkeypatch.setattr(figures, "SAMPLED", 20)
    await sum_hours(database)
    answer = await ask(database, since="6h", path="story")
    assert (answer["steps"][0]["visits"], answer["sampled"]) == (300, pytest.approx(0.2))
    await execute(database, "update noetl.figure set hour = hour - interval '70 days'")
    async with session(database) as own:
        await figures.delete_old_figures(own)
    assert (await value(database, "select count(*) from noetl.figure"), figures.KEPT) == (0, timedelta(days=60))

"""Some of the seeds for real: two daemons, and a worker that speaks SQL, against the same reference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from noetl_broker.broker.replay import compare_end, retake
from noetl_broker.playbook.findings import Rules
from noetl_broker.store.codec import dump_json
from noetl_broker.store.history import load_history
from noetl_broker.store.pool import Connection, connect
from tests.brokers import PATIENCE_SECONDS, broken_invariants, running
from tests.postgres import Database
from tests.simulation.checks import Telling, unlike_reference
from tests.simulation.plans import Plan, Step, document
from tests.simulation.scenarios import Scenario, answer, scenario

SEEDS = range(40)
pytestmark = pytest.mark.simulation

LEASE = """
select l.queue_id, l.attempts, l.execution_id, split_part(l.node_id, ':', 2) as node,
  (select count(*) from noetl.event e
   where e.execution_id = l.execution_id and e.node_id = l.node_id and e.event_type = 'action_retry') as failures
from noetl.lease_jobs('simulated', 50) l"""
PARENT = """
select x.parent_execution_id as parent, split_part(x.parent_node_id, ':', 2) as node, x.parent_index as index,
  e.meta #>> '{parent,attempt}' as attempt
from noetl.execution x
join noetl.event e on e.execution_id = x.execution_id and e.event_type = 'execution_start'
where x.execution_id = $1"""
COPY = """
insert into noetl.event (execution_id, event_type, node_id, node_name, status, result, error, meta)
select execution_id, upper(event_type), node_id, node_name, status, result, error, meta - 'queue_id'
from noetl.event
where meta -> 'queue_id' = to_jsonb($1::bigint) and event_type in ('action_completed', 'action_failed')"""
HURRY = """
update noetl.queue
set available_at = clock_timestamp()
where status in ('retry', 'delegated') and available_at < 'infinity'"""
EVENTS = """
select e.event_id, e.event_type, e.node_id, e.meta, e.context, e.result, e.error
from noetl.turn t
join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = $1
order by t.turn"""


class Worker:
    """Answers what the scenarios say; now and then its answer comes twice, or its lease is lost."""

    def __init__(self, connection: Connection, families: dict[int, tuple[Scenario, str]]) -> None:
        self.connection = connection
        self.families = families
        self.chance = Random("postgres")
        self.rung = asyncio.Event()

    async def work(self) -> None:
        """Work until every execution has ended."""
        for channel in ("noetl_job", "noetl_end"):
            await self.connection.add_listener(channel, lambda *_: self.rung.set())
        while await self.connection.fetchval("select exists (select from noetl.execution where status = 'RUNNING')"):
            self.rung.clear()
            jobs = await self.connection.fetch(LEASE)
            for job in jobs:
                await self._answer(job)
            # What waits for a time of its own does so without a bell, and need not wait here.
            await self.connection.execute(HURRY)
            await self.connection.execute("select noetl.reap(1000, 100)")
            if not jobs:
                await self._heard()

    async def _heard(self) -> None:
        try:
            await asyncio.wait_for(self.rung.wait(), 0.1)
        except TimeoutError:
            return

    async def _answer(self, job: Any) -> None:
        if self.chance.random() < 0.05:
            lost = "update noetl.queue set lease_until = clock_timestamp() - interval '1 s' where queue_id = $1"
            await self.connection.execute(lost, job["queue_id"])
            return
        told, family = await self._family(job["execution_id"])
        given = answer(told, family, job["node"], job["failures"])
        if given.error is None:
            complete = "select noetl.complete_job($1, 'simulated', $2, $3)"
            await self.connection.execute(complete, job["queue_id"], job["attempts"], given.result)
        else:
            fail = "select noetl.fail_job($1, 'simulated', $2, $3, $4)"
            await self.connection.execute(fail, job["queue_id"], job["attempts"], given.error, given.retryable)
        if self.chance.random() < 0.1:
            await self.connection.execute(COPY, job["queue_id"])

    async def _family(self, execution_id: int) -> tuple[Scenario, str]:
        if execution_id not in self.families:
            row = await self.connection.fetchrow(PARENT, execution_id)
            assert row is not None
            told, above = await self._family(row["parent"])
            self.families[execution_id] = told, f"{above}/{row['node']}.{row['index']}@{row['attempt']}"
        return self.families[execution_id]


def renamed(plan: Plan, suffix: str) -> Plan:
    """Return a plan under paths of its own, as all seeds share a catalog."""

    def step(one: Step) -> Step:
        iterate = one.iterate
        if iterate is not None and iterate.path is not None:
            iterate = iterate._replace(path=iterate.path + suffix)
        return replace(one, path=one.path and one.path + suffix, iterate=iterate)

    children = tuple(renamed(child, suffix) for child in plan.children)
    return replace(plan, path=plan.path + suffix, steps=tuple(map(step, plan.steps)), children=children)


@asynccontextmanager
async def session(database: Database) -> AsyncIterator[Connection]:
    """Lend a connection."""
    connection = await connect(database.dsn, name="test")
    try:
        yield connection
    finally:
        await connection.close()


async def begin(connection: Connection, scenarios: list[Scenario]) -> dict[int, tuple[Scenario, str]]:
    """Register all plans and start each scenario's first execution."""
    insert = "insert into noetl.catalog (path, version, name, content) values ($1, 1, $1, $2)"
    start = "select noetl.start_execution($1, $2)"
    families: dict[int, tuple[Scenario, str]] = {}
    for one in scenarios:
        for plan in one.plan.family():
            await connection.execute(insert, plan.path, dump_json(document(plan)))
        families[await connection.fetchval(start, one.plan.path, dict(one.payload))] = one, "0"
    return families


async def differences(connection: Connection, plans: dict[str, Plan]) -> list[str]:
    """Hold every execution against the reference, in the order of its turns, and against its replay."""
    found: list[str] = []
    for execution in await connection.fetch("select execution_id, path, status from noetl.execution order by 1"):
        history = await load_history(connection, execution["execution_id"], Rules())
        retaken = [*retake(history)]
        events = [dict(row) for row in await connection.fetch(EVENTS, execution["execution_id"])]
        telling = Telling(dict(execution), plans[execution["path"]], retaken, events)
        unlike = unlike_reference(telling, {})
        replayed = [text for turn in retaken for text in turn.differences] + compare_end(history, retaken)
        found += [f"{execution['path']}: {text}" for text in ([] if unlike is None else [unlike]) + replayed]
    return found


async def test_seeds_go_on_postgres_as_the_reference_says(database: Database) -> None:
    """The real store and the real daemon, with duplicates and lost leases: every turn of every execution."""
    scenarios = [one._replace(plan=renamed(one.plan, f"-{one.seed}")) for one in map(scenario, SEEDS)]
    plans = {plan.path: plan for one in scenarios for plan in one.plan.family()}
    async with session(database) as own:
        families = await begin(own, scenarios)
        async with running(database), running(database):
            await asyncio.wait_for(Worker(own, families).work(), 2 * PATIENCE_SECONDS)
        assert await differences(own, plans) == []
        assert await own.fetchval("select count(*) from noetl.execution") >= len(SEEDS)
    assert await broken_invariants(database) == {}

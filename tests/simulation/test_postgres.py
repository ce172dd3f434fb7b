"""Some seeds on Postgres: two daemons and a worker, compared with the reference."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from noetl_broker.history.replay import replay_history, sentences
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.connection import Connection
from noetl_broker.store.history import load_history
from noetl_broker.store.json_codec import dump_json
from tests.brokers import PATIENCE_SECONDS, broken_invariants, running
from tests.postgres import Database
from tests.sessions import session
from tests.simulation.checks import ReplayedExecution, reference_difference
from tests.simulation.plans import Plan, Step, document
from tests.simulation.random_plans import SIGNALS_FROM
from tests.simulation.reference import Reference
from tests.simulation.scenarios import Scenario, answer, scenario

SEEDS = range(20)
SIGNAL_SEEDS = range(SIGNALS_FROM, SIGNALS_FROM + 20)
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
MAKE_DUE = """
with jobs as (
  update noetl.queue
  set available_at = clock_timestamp()
  where status = 'retry'
)
update noetl.timer
set due_at = clock_timestamp()
where timer_id in (select timer_id from noetl.timer where purpose <> 'deadline' for update skip locked)"""
EVENTS = """
select e.event_id, e.event_type, e.node_id, e.meta, e.context, e.result, e.error
from noetl.turn t
join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = $1
order by t.turn"""


# To each open wait, so that no execution waits for ever.
SEND = """
select count(noetl.send_signal(
  w.names[1 + $1::int % cardinality(w.names)], w.key, jsonb_build_object('n', $1::int % 10)
))
from noetl.wait w
where w.kind = 'signal' and w.status = 'open'"""
PENDING = "select execution_id, node_id from noetl.pending_approvals"
BUSY = """
select exists (select from noetl.execution where status = 'RUNNING')
  or exists (select from noetl.inbox) or exists (select from noetl.look)"""


class Worker:
    """Answers as the scenarios say; sometimes it answers twice or loses a lease."""

    def __init__(self, connection: Connection, families: dict[int, tuple[Scenario, str]]) -> None:
        self.connection = connection
        self.families = families
        self.random = Random("postgres")
        self.notified = asyncio.Event()
        self.sent = 0

    async def work(self) -> None:
        """Work until every execution has ended, and all mail is read."""
        for channel in ("noetl_job", "noetl_end"):
            await self.connection.add_listener(channel, lambda *_: self.notified.set())
        while await self.connection.fetchval(BUSY):
            self.notified.clear()
            jobs = await self.connection.fetch(LEASE)
            for job in jobs:
                await self._answer(job)
            # What waits for a time is not notified; it becomes due at once.
            await self.connection.execute(MAKE_DUE)
            await self.connection.execute("select noetl.reap(1000, 100)")
            if not jobs:
                await self._send()
                await self._wait()

    async def _send(self) -> None:
        self.sent += 1
        await self.connection.execute(SEND, self.sent)
        for node in await self.connection.fetch(PENDING):
            await self.connection.execute("select noetl.decide_approval($1, $2, true, 'ann')", *node)

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self.notified.wait(), 0.1)
        except TimeoutError:
            return

    async def _answer(self, job: Any) -> None:
        if self.random.random() < 0.05:
            lost = "update noetl.queue set lease_until = clock_timestamp() - interval '1 s' where queue_id = $1"
            await self.connection.execute(lost, job["queue_id"])
            return
        scenario_, family = await self._family(job["execution_id"])
        answered = answer(scenario_, family, job["node"], job["failures"])
        if answered.error is None:
            complete = "select noetl.complete_job($1, 'simulated', $2, $3)"
            await self.connection.execute(complete, job["queue_id"], job["attempts"], answered.result)
        else:
            fail = "select noetl.fail_job($1, 'simulated', $2, $3, $4)"
            await self.connection.execute(fail, job["queue_id"], job["attempts"], answered.error, answered.retryable)
        if self.random.random() < 0.1:
            await self.connection.execute(COPY, job["queue_id"])

    async def _family(self, execution_id: int) -> tuple[Scenario, str]:
        if execution_id not in self.families:
            row = await self.connection.fetchrow(PARENT, execution_id)
            assert row is not None
            scenario_, parent = await self._family(row["parent"])
            self.families[execution_id] = scenario_, f"{parent}/{row['node']}.{row['index']}@{row['attempt']}"
        return self.families[execution_id]


def renamed(plan: Plan, suffix: str) -> Plan:
    """Return a plan with other paths, because all seeds share a catalog."""

    def step(one: Step) -> Step:
        iterate = one.iterate
        if iterate is not None and iterate.path is not None:
            iterate = iterate._replace(path=iterate.path + suffix)
        return replace(one, path=one.path and one.path + suffix, iterate=iterate)

    children = tuple(renamed(child, suffix) for child in plan.children)
    return replace(plan, path=plan.path + suffix, steps=tuple(map(step, plan.steps)), children=children)


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
    """Compare each execution with the reference and with its replay."""
    found: list[str] = []
    references: dict[int, Reference] = {}
    for execution in await connection.fetch("select execution_id, path, status from noetl.execution order by 1"):
        history = await load_history(connection, execution["execution_id"], PlaybookRules())
        turns, found_by_replay = replay_history(history)
        events = [dict(row) for row in await connection.fetch(EVENTS, execution["execution_id"])]
        replayed = ReplayedExecution(dict(execution), plans[execution["path"]], turns, events)
        difference = reference_difference(replayed, {}, references)
        texts = sentences(found_by_replay)
        found += [f"{execution['path']}: {text}" for text in ([] if difference is None else [difference]) + texts]
    return found


@pytest.mark.parametrize("seeds", [SEEDS, SIGNAL_SEEDS], ids=["jobs", "signals"])
async def test_seeds_on_postgres_equal_the_reference(database: Database, seeds: range) -> None:
    """With duplicates and lost leases, each turn decides what the reference decides."""
    scenarios = [one._replace(plan=renamed(one.plan, f"-{one.seed}")) for one in map(scenario, seeds)]
    plans = {plan.path: plan for one in scenarios for plan in one.plan.family()}
    async with session(database) as own:
        families = await begin(own, scenarios)
        async with running(database), running(database):
            await asyncio.wait_for(Worker(own, families).work(), 6 * PATIENCE_SECONDS)
        assert await differences(own, plans) == []
        assert await own.fetchval("select count(*) from noetl.execution") >= len(seeds)
        taken = await own.fetchval("select count(*) from noetl.signal_taken")
        assert bool(taken) == (seeds is SIGNAL_SEEDS)
    assert await broken_invariants(database) == {}

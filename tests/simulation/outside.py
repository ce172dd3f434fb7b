"""What is outside of the brokers in a real database: a worker, people, senders of signals, and faults.

It waits for commits of brokers, never for a time: what waits for a time is made due.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import asyncpg

from noetl_broker.node_ids import UNDO_SUFFIX
from tests.simulation.scenarios import Scenario, answer

RESUMED = """(
    select count(*) from noetl.event e where e.execution_id = x.execution_id and e.event_type = 'execution_resumed'
  )"""
LEASE = f"""
select l.queue_id, l.attempts, l.execution_id, x.path, split_part(l.node_id, ':', 2) as node, x.status,
  {RESUMED} as resumed,
  (select count(*) from noetl.event e
   where e.execution_id = l.execution_id and e.node_id = l.node_id and e.event_type = 'action_retry') as failures
from noetl.lease_jobs('simulated', 100, pools => array['default', 'gpu', 'quick']) l
join noetl.execution x on x.execution_id = l.execution_id"""
HELD = f"select x.execution_id, {RESUMED} as resumed from noetl.execution x where x.status = 'PAUSED'"
COMPLETE = """
select noetl.complete_job(a.queue_id, 'simulated', a.attempt, a.result)
from jsonb_to_recordset($1) a (queue_id bigint, attempt int, result jsonb)"""
FAIL = """
select noetl.fail_job(a.queue_id, 'simulated', a.attempt, a.error, a.retryable)
from jsonb_to_recordset($1) a (queue_id bigint, attempt int, error jsonb, retryable boolean)"""
LOSE = "update noetl.queue set lease_until = clock_timestamp() - interval '1 s' where queue_id = any($1)"
COLUMNS = "execution_id, event_type, node_id, node_name, status, context, result, error, meta, parent_execution_id"
COPY_UNREAD = f"""
insert into noetl.event ({COLUMNS})
select execution_id, upper(event_type), node_id, node_name, status, context, result, error, meta - 'queue_id',
  parent_execution_id
from noetl.event e
where (e.execution_id, e.event_id) in (
  select i.execution_id, i.event_id from noetl.inbox i order by random() limit 3
)"""
COPY_ANSWERS = f"""
insert into noetl.event ({COLUMNS})
select execution_id, upper(event_type), node_id, node_name, status, context, result, error, meta - 'queue_id',
  parent_execution_id
from noetl.event
where meta -> 'queue_id' = any(select to_jsonb(q) from unnest($1::bigint[]) q)
  and event_type in ('action_completed', 'action_failed')"""
STRAY = """
insert into noetl.event (execution_id, event_type, node_id, node_name, status, result)
select x.execution_id, $1, x.execution_id || ':' || $2, $2, 'COMPLETED', '7'
from noetl.execution x
where x.status = 'RUNNING'
order by random()
limit 1"""
# What waits for a time. Some jobs have run too long then; a deadline passes sometimes. A pause does not
# hold a job that is locked here, so its execution is locked, too.
MAKE_DUE = """
with jobs as (
  update noetl.queue
  set available_at = case status when 'retry' then clock_timestamp() else available_at end,
    first_leased_at = case status when 'retry' then first_leased_at else first_leased_at - interval '1 hour' end
  where queue_id in (
    select queue_id
    from noetl.queue
    where (status = 'retry' or ($1 and status in ('leased', 'delegated') and timeout_seconds is not null))
      and pg_try_advisory_xact_lock(execution_id)
    for update skip locked
  )
)
update noetl.timer
set due_at = clock_timestamp()
where timer_id in (select timer_id from noetl.timer where purpose <> 'deadline' or $1 for update skip locked)"""
LET_TIME_GO = "select noetl.reap(1000, 100), noetl.reap_holds(1000), noetl.fire_timers(1000)"
# To each open wait, so that no execution waits for ever.
SEND = """
select count(noetl.send_signal(
  w.names[1 + $1::int % cardinality(w.names)], w.key, jsonb_build_object('n', $1::int % 10)
))
from noetl.wait w
where w.kind = 'signal' and w.status = 'open'"""
DECIDE = """
select count(noetl.decide_approval(p.execution_id, p.node_id, $1, 'ann', '{"x": 3}'))
from noetl.pending_approvals p"""
SOME = "select execution_id from noetl.execution where status = $1 order by random() limit $2"
PAUSE_PATH = "select noetl.pause_path(path) from noetl.catalog order by random() limit 1"
RESUME = """
select count(noetl.resume_path(p.path)), (
    select count(noetl.resume_execution(x.execution_id)) from noetl.execution x where x.status = 'PAUSED'
  )
from noetl.path_pause p"""
TO_UNDO = """
select distinct execution_id
from noetl.undo u
join noetl.execution x using (execution_id)
where u.status in ('open', 'failed', 'unknown') and x.status in ('FAILED', 'CANCELLED')"""
# Sessions of brokers that are at work are ended, or their statement is cancelled.
BREAK = """
select {how}(pid)
from pg_stat_activity
where datname = current_database() and application_name like 'noetl-broker run%' and state <> 'idle'
order by random()
limit 1"""
TELL = """
create or replace function public.tell() returns trigger language plpgsql as
$$ begin perform pg_notify('turns', ''); return null; end $$;
create or replace trigger tell after insert on noetl.turn for each statement execute function public.tell()"""
BUSY = """
select exists (select from noetl.execution where noetl.is_live(status) or undo_status = 'undoing')
  or exists (select from noetl.inbox) or exists (select from noetl.match_request)"""
OF_PEOPLE = ((0.3, "pause", "RUNNING", 5), (0.03, "cancel", "RUNNING", 1), (0.1, "abandon", "COMPENSATING", 1))
MOST_UNDOS = 20
MOST_IDLE = 100  # rounds in which nothing was left to do, and all mail was read


class Outside:
    """Acts until every execution has ended and all mail is read."""

    def __init__(self, connection: asyncpg.Connection[Any], scenarios: Mapping[str, Scenario], seed: str) -> None:
        """`scenarios` by the path of each of their playbooks."""
        self.connection = connection
        self.scenarios = scenarios
        self.random = Random(seed)
        self.counts = Counter[str]()
        self.faults: list[str] = []
        self._notified = asyncio.Event()
        self._late: list[Any] = []  # leased jobs that are answered later
        self._rounds = self._idle = 0

    async def act(self) -> None:
        """Act until nothing is left to do, or until nothing changes any more."""
        await self.connection.execute(TELL)
        for channel in ("turns", "noetl_job", "noetl_end"):
            await self.connection.add_listener(channel, lambda *_: self._notified.set())
        while self._idle < MOST_IDLE and await self.connection.fetchval(BUSY):
            await self._go_on()
            if not await self.connection.fetchval(BUSY):
                await self._undo()

    async def _go_on(self) -> None:
        """Act once; if there was nothing to do, help, and wait until that is read."""
        self._rounds += 1
        self._notified.clear()
        jobs = await self.connection.fetch(LEASE)
        await self._check(jobs)
        await self._answer(jobs)
        await self._break()
        acted = await self._pass_time()
        if jobs or self._late or acted:
            self._idle = 0
            return
        await self._help()
        await self._until_read()
        self._idle += 1

    async def _until_read(self) -> None:
        """Wait until the brokers have read all mail: one that was killed connects again first."""
        while await self.connection.fetchval("select exists (table noetl.inbox)"):
            await self._notified.wait()
            self._notified.clear()

    def _chance(self, odds: float, what: str = "") -> bool:
        happens = self.random.random() < odds
        if happens and what:
            self.counts[what] += 1
        return happens

    async def _check(self, jobs: list[Any]) -> None:
        """Note jobs leased after the end, or in a pause: before and after the lease, with no resume between.

        A job of an undo may be leased after the end; `verify` tells whether the undo had ended too.
        """
        may_be_held = any(job["status"] == "PAUSED" for job in jobs)
        held = {tuple(row) for row in await self.connection.fetch(HELD)} if may_be_held else set()
        for job in jobs:
            if job["status"] in {"COMPLETED", "FAILED", "CANCELLED"} and not job["node"].endswith(UNDO_SUFFIX):
                self.faults.append(f"{job['path']}: job {job['node']} was leased after the end")
            elif job["status"] == "PAUSED" and (job["execution_id"], job["resumed"]) in held:
                self.faults.append(f"{job['path']}: job {job['node']} was leased in a pause")

    async def _answer(self, jobs: list[Any]) -> None:
        """Answer jobs: some twice, some later, some not; a lease that is not answered is lost."""
        lost = [job["queue_id"] for job in jobs if self._chance(0.05, "lost leases")]
        now, self._late = self._late, []
        for job in jobs:
            if job["queue_id"] not in lost:
                (self._late if self._chance(0.1, "late answers") else now).append(job)
        if lost:
            await self.connection.execute(LOSE, lost)
        answers = [(job, self._answer_of(job)) for job in now]
        answers += [one for one in answers if self._chance(0.1, "repeated answers")]
        done = [
            {"queue_id": job["queue_id"], "attempt": job["attempts"], "result": one.result}
            for job, one in answers
            if one.error is None
        ]
        failed = [
            {"queue_id": job["queue_id"], "attempt": job["attempts"], "error": one.error, "retryable": one.retryable}
            for job, one in answers
            if one.error is not None
        ]
        for statement, rows in ((COMPLETE, done), (FAIL, failed)):
            if rows:
                await self.connection.execute(statement, rows)
        copied = [job["queue_id"] for job in now if self._chance(0.1, "copied answers")]
        if copied:
            await self.connection.execute(COPY_ANSWERS, copied)

    def _answer_of(self, job: Any) -> Any:
        return answer(self.scenarios[job["path"]], str(job["execution_id"]), job["node"], job["failures"])

    async def _break(self) -> None:
        """Break sessions of brokers; send copies and events that nobody waits for; pause and cancel."""
        if self._chance(0.1, "killed sessions"):
            await self.connection.execute(BREAK.format(how="pg_terminate_backend"))
        if self._chance(0.1, "cancelled statements"):
            await self.connection.execute(BREAK.format(how="pg_cancel_backend"))
        if self._chance(0.2, "copied mail"):
            await self.connection.execute(COPY_UNREAD)
        if self._chance(0.1, "stray events"):
            kind, node = self.random.choice(("unknown_type", "action_completed")), self.random.choice(("b", "a#7"))
            await self.connection.execute(STRAY, kind, node)
        for odds, function, status, most in OF_PEOPLE:
            if self._chance(odds, f"{function}s"):
                for row in await self.connection.fetch(SOME, status, most):
                    await self._ask(f"select noetl.{function}_execution($1)", row["execution_id"])
        if self._chance(0.1, "paused paths"):
            await self.connection.execute(PAUSE_PATH)
        if self._chance(0.15):
            await self._ask(RESUME)

    async def _pass_time(self) -> bool:
        """Make due what waits for a time; false if there was nothing."""
        due = await self.connection.execute(MAKE_DUE, self._chance(0.1, "timeouts"))
        await self.connection.execute(LET_TIME_GO)
        return due != "UPDATE 0"

    async def _help(self) -> None:
        """Send signals, decide approvals, and resume what is paused."""
        await self.connection.execute(SEND, self._rounds)
        await self.connection.execute(DECIDE, self._chance(0.7))
        await self._ask(RESUME)
        await self._undo()

    async def _undo(self) -> None:
        """Go on with undos that failed."""
        for row in await self.connection.fetch(TO_UNDO):
            if self.counts["undos"] < MOST_UNDOS:
                self.counts["undos"] += 1
                await self._ask("select noetl.undo_execution($1, $2)", row["execution_id"], self._chance(0.3))

    async def _ask(self, statement: str, *arguments: object) -> None:
        """Ask as a person does; the store may refuse."""
        try:
            await self.connection.execute(statement, *arguments)
        except asyncpg.PostgresError as refused:
            if not str(refused.sqlstate).startswith("NB"):
                raise
            self.counts["refused"] += 1

"""Simulates brokers, workers and the reaper on one clock, and injects faults.

The brokers run the daemon's own `Batch`, one await at a time. At each await, another one may go on, or the broker may
crash. Everything depends only on the scenario.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.broker.model import Rules
from noetl_broker.daemon import batch as batches
from noetl_broker.daemon import playbook_cache
from noetl_broker.daemon.batch import Batch
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.playbook_cache import PlaybookCache
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.turn_store import ClaimStart, ConflictFault
from tests.simulation import holds, senders, sql_functions, undos
from tests.simulation.connection import Connection, Server
from tests.simulation.plans import document
from tests.simulation.scenarios import Answer, Scenario, answer_of
from tests.simulation.tables import LIVE, Row, Tables

LEASE_SECONDS = 10.0
LOST_TURNS = (
    ConflictFault,
    asyncpg.ConnectionFailureError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)
MAX_STEPS = 600_000  # seed 25098 needs more than 60,000
Delivery = Callable[[], object]


class Stuck(Exception):
    """No action is possible before all executions have ended, or there are too many."""


class RunningJob(NamedTuple):
    """A job that a worker is running."""

    job: Row
    attempt: int
    done_at: Any
    reserved: sql_functions.Reserved | None


class InlineAsyncio:
    """Replaces asyncio where the broker uses it: everything runs at once, without event loop, threads or clock."""

    @classmethod
    def get_running_loop(cls) -> type[InlineAsyncio]:
        """Return this class in place of the event loop."""
        return cls

    @staticmethod
    async def run_in_executor(_threads: object, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function at once."""
        return function(*arguments)

    @staticmethod
    def create_task(work: Coroutine[Any, Any, None], *, name: str) -> str:
        """Run the coroutine at once; it must not wait."""
        with suppress(StopIteration):
            work.send(None)
            raise AssertionError(f"{name} waits")
        return name

    @staticmethod
    async def wait(_tasks: set[str], *, timeout: float) -> None:  # noqa: ASYNC109 - the signature of asyncio
        """Return: all tasks are done."""


@contextmanager
def without_event_loop() -> Iterator[None]:
    """Let the simulator begin transactions, and compile playbooks at once."""
    changed: tuple[tuple[Any, str, Any], ...] = (
        (batches, "transaction", Connection.transaction),
        (playbook_cache, "asyncio", InlineAsyncio),
    )
    before = [getattr(module, name) for module, name, _ in changed]
    for module, name, replacement in changed:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for (module, name, _), original in zip(changed, before, strict=True):
            setattr(module, name, original)


class Broker:
    """One lane of a broker: one batch at a time."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.running: Coroutine[Any, Any, Any] | None = None
        self.place = ""
        self.claims = 0


class Simulator:
    """Runs a scenario; afterwards `tables` has all rows."""

    def __init__(self, scenario: Scenario, *, defects: frozenset[str] = frozenset()) -> None:
        self.scenario = scenario
        self.random = Random(f"world {scenario.seed} {scenario.variant}")
        self.tables = Tables()
        self.server = Server(self.tables, large_bytes=scenario.large_bytes, defects=defects)
        self.playbooks = PlaybookCache(PlaybookRules())
        self.metrics = MetricValues.of_service()
        self.brokers = [Broker() for _ in range(scenario.brokers)]
        self.running_jobs: list[list[RunningJob]] = [[] for _ in range(scenario.workers)]
        self.restarts = Counter[int]()
        self.deliveries: list[tuple[Any, int, Delivery]] = []
        self.faults_left = scenario.faults._asdict()
        self.fault_odds = self.random.choice((0.005, 0.01, 0.03))
        self.broker_weight = self.random.choice((1, 1, 4))  # slow brokers find several events at once
        self.pauses_left = scenario.pauses
        self.undos_left = scenario.undos
        self.counts = Counter[str]()
        self.senders = senders.Senders(self.tables, scenario.signals, self.random)
        self.lost: list[str] = []  # signals that fit a wait, and that nobody brings
        self.asked: set[tuple[int, str]] = set()  # approvals whose decision is planned
        self.copies: set[int] = set()
        self.copied_types: set[str] = set()

    # Actions.

    def run(self) -> None:
        """Start the executions and run until no action is left; raises Stuck."""
        with without_event_loop():
            self._run()

    def _run(self) -> None:
        self._register()
        for root in range(self.scenario.roots):
            self._start(root)
        self.senders.begin(self._deliver_later)
        for _ in range(MAX_STEPS):
            actions = self._ready()
            if actions:
                self.random.choice(actions)()
                self._inject_faults()
            elif not self._advance_clock():
                break
        else:
            raise Stuck(f"executions are running after {MAX_STEPS} steps")
        running = [row["execution_id"] for row in self.tables.executions.values() if row["status"] in LIVE]
        if running:
            raise Stuck(f"no action is possible, and executions {running} have not ended")

    def _register(self) -> None:
        for plan in self.scenario.plan.family():
            number = self.tables.next_id()
            content = dump_json(document(plan))
            self.tables.catalog[number] = {
                "catalog_id": number, "path": plan.path, "name": plan.path, "version": 1, "content": content,
            }  # fmt: skip

    def _start(self, root: int) -> None:
        tables, path, payload = self.tables, self.scenario.plan.path, dict(self.scenario.payload)
        if self._injects("stray_events", 0.2):
            catalog_id = next(number for number, row in tables.catalog.items() if row["path"] == path)
            owner = tables.next_id()
            tables.insert_event(sql_functions.start_event(tables, owner, payload, catalog_id))
            self.counts["starts by event"] += 1
            return
        owner = sql_functions.start_execution(tables, path, payload)
        tables.executions[owner]["root"] = root

    def _ready(self) -> list[Callable[[], object]]:
        """Return the possible actions; one that is listed twice is twice as likely."""
        self._ask_people()
        now = self.tables.now
        found: list[Callable[[], object]] = []
        for broker in self.brokers:
            if broker.running is not None or self.tables.inbox:
                found += [lambda broker=broker: self._advance(broker)] * self.broker_weight  # type: ignore[misc]
        may_lease = any(
            row["status"] in {"queued", "retry"} and row["available_at"] <= now for row in self.tables.open_jobs()
        )
        for number, running in enumerate(self.running_jobs):
            if any(one.done_at <= now for one in running) or (may_lease and len(running) < 3):
                found.append(lambda number=number: self._step_worker(number))  # type: ignore[misc]
        if self.deliveries and min(self.deliveries)[0] <= now:
            found.append(self._deliver)
        if self.tables.looks:
            found.append(self._match)
        if found and self.random.random() < 0.02:
            found.append(self._reap)
        return found

    def _advance_clock(self) -> bool:
        """Set the clock to the next time at which something is due; False if there is none."""
        before = self.tables.now
        self.lost += self.senders.lost() if not self.lost else ()
        if self._reap():
            return True
        moments = [one.done_at for running in self.running_jobs for one in running]
        moments += [moment for moment, *_ in self.deliveries]
        moments += sql_functions.due_times(self.tables)
        ahead = [moment for moment in moments if moment >= before]
        if not ahead:
            return self.senders.help() or self._undo(odds=1.0)
        self.tables.now = max(self.tables.now, min(ahead))  # a look of the reaper takes time
        return True

    def _reap(self) -> bool:
        """Run the reaper and fire timers; False if nothing was due."""
        reaped = sql_functions.reap(self.tables, self.scenario.max_lost_leases)
        reaped["fired"] = sql_functions.fire_timers(self.tables)
        reaped["admitted"] = holds.admit_executions(self.tables)
        self.counts.update(reaped)
        return any(reaped.values())

    def _match(self) -> None:
        """Bring signals to waits: some looks, in any order, perhaps twice."""
        self.counts["delivered"] += self.senders.match()

    def _ask_people(self) -> None:
        """Plan the decision on each new approval; some people decide twice."""
        for node, wait in self.tables.waits.items():
            if wait["kind"] == "approval" and node not in self.asked:
                self.asked.add(node)
                for by in ("ann", "bob")[: self.random.choice((1, 1, 2))]:
                    later = self.random.choice((0.0, 0.5, 2.0, 5.0, 30.0))
                    self._deliver_later(later, partial(self._decide, node, by))

    def _decide(self, node: tuple[int, str], by: str) -> None:
        form: Row = {"comment": None, "x": self.random.choice((None, 0, 3, 9))}
        decided = sql_functions.decide_approval(self.tables, node, by, form, approved=self.random.random() < 0.7)
        self.counts["decisions" if decided else "late decisions"] += 1

    def _deliver_later(self, seconds: float, delivery: Delivery) -> None:
        self.deliveries.append((self.tables.now + timedelta(seconds=seconds), self.tables.next_id(), delivery))

    def _deliver(self) -> None:
        first = min(self.deliveries)
        self.deliveries.remove(first)
        first[2]()

    def _injects(self, fault: str, odds: float) -> bool:
        """Tell whether a fault occurs now; the scenario limits how often it does."""
        if not self.faults_left[fault] or self.random.random() >= odds:
            return False
        self.faults_left[fault] -= 1
        self.counts[fault] += 1
        return True

    # Brokers.

    def _advance(self, broker: Broker) -> None:
        """Run a broker to its next await."""
        if broker.running is None:
            broker.connection = Connection(self.server)
            broker.claims += 1
            batch = Batch(Rules(), self.playbooks, self.metrics, max_gathered_bytes=1 << 26)
            size = self.random.choice((1, 2, 5, 200))
            start = ClaimStart(0, newest=broker.claims % 4 == 0)
            broker.running = batch.run(broker.connection, size=size, start=start)  # type: ignore[arg-type]
        connection, running = broker.connection, broker.running
        if connection is None:
            return
        if broker.place and self._injects("crashes", 0.03):
            running.close()
            self._end(broker)
            return
        if broker.place not in {"", "blocked"} and self._injects("hangs", 0.02):
            connection.abort()
        try:
            if broker.place == "committed" and self._injects("lost_commits", 0.1):
                running.throw(asyncpg.ConnectionFailureError("the answer to COMMIT was lost"))
            broker.place = running.send(None)
        except StopIteration:
            self._end(broker)
        except LOST_TURNS as error:
            self.counts[type(error).__name__] += 1
            self._end(broker)
        except Exception as error:
            raise Stuck(f"a broker raised {type(error).__name__}: {error}") from error

    def _end(self, broker: Broker) -> None:
        if broker.connection is not None:
            broker.connection.abort()
        broker.running, broker.place = None, ""

    # Workers.

    def _step_worker(self, number: int) -> None:
        """Let a worker answer a finished job, or lease jobs."""
        running = self.running_jobs[number]
        done = [one for one in running if one.done_at <= self.tables.now]
        name = f"worker {number}.{self.restarts[number]}"
        if done:
            running.remove(done[0])
            self._answer(name, done[0])
            return
        for job in sql_functions.lease_jobs(self.tables, name, self.random.randint(1, 3 - len(running)), LEASE_SECONDS):
            running.append(self._begin(name, job))
        if running and self._injects("worker_deaths", 0.1):
            running.clear()
            self.restarts[number] += 1

    def _begin(self, name: str, job: Row) -> RunningJob:
        seconds = self.random.choice((0.01, 0.1, 0.5, 2.0))
        if self._injects("worker_deaths", 0.1):
            seconds = self.random.choice((12.0, 40.0))  # the lease has ended by then, unless it is renewed
            if self.random.random() < 0.5:
                attempt = job["attempts"]
                self._deliver_later(
                    8.0, lambda: sql_functions.heartbeat_job(self.tables, job, name, attempt, LEASE_SECONDS)
                )
        reserved = sql_functions.reserve(self.tables) if self._injects("late_commits", 0.2) else None
        return RunningJob(job, job["attempts"], self.tables.now + timedelta(seconds=seconds), reserved)

    def _answer(self, name: str, running: RunningJob) -> None:
        job, attempt = running.job, running.attempt
        answer = answer_of(self.scenario, self.tables, job)

        def send(reserved: sql_functions.Reserved | None = None) -> bool:
            if answer.error is None:
                return sql_functions.complete_job(self.tables, job, name, attempt, answer.result, reserved)
            return sql_functions.fail_job(
                self.tables, job, name, attempt, answer.error, reserved, retryable=answer.retryable
            )

        if not send(running.reserved):
            self.counts["refused answers"] += 1
        if self._injects("repeated_answers", 0.2):
            self._deliver_later(self.random.choice((0.0, 3.0)), send)

    # Other faults.

    def _inject_faults(self) -> None:
        if self._injects("copies", self.fault_odds):
            self._copy_event()
        if self._injects("stray_events", self.fault_odds):
            self._insert_stray_event()
        if self.pauses_left and self.random.random() < 0.05:
            self._pause()
        if self.undos_left and self.random.random() < 0.05:
            self._undo(odds=0.2)
        if self.tables.executions and self._injects("cancels", 0.005):
            owner = self.random.choice([*self.tables.executions])
            sql_functions.cancel_execution(self.tables, owner, "a simulated cancel")

    def _pause(self) -> None:
        """Pause an execution or a path, and resume it later, both perhaps twice."""
        self.pauses_left -= 1
        later = self.random.choice((0.0, 0.0, 0.5, 3.0, 30.0))
        if self.random.random() < 0.3:
            path = self.random.choice([*self.scenario.plan.family()]).path
            self.tables.paused_paths.add(path)
            self._deliver_later(later, lambda: self.tables.paused_paths.discard(path))
            self.counts["paused paths"] += 1
            return
        live = [row["execution_id"] for row in self.tables.executions.values() if row["status"] in LIVE]
        if live:
            owner = self.random.choice(live)
            for _ in range(self.random.choice((1, 1, 2))):
                holds.ask_to_hold(self.tables, owner, "execution_pause")
                self._deliver_later(later, lambda: holds.ask_to_hold(self.tables, owner, "execution_resume"))
            self.counts["pauses"] += 1

    def _undo(self, *, odds: float) -> bool:
        """Go on with an undo that failed, or abandon one that runs; False if nothing happened."""
        if not self.undos_left or self.random.random() >= odds:
            return False
        statuses = {owner: row["status"] for owner, row in self.tables.executions.items()}
        undoing = [owner for owner, status in statuses.items() if status == "COMPENSATING"]
        if undoing and self.random.random() < 0.2:
            self.undos_left -= 1
            self.counts["abandoned"] += 1
            return undos.abandon_execution(self.tables, self.random.choice(undoing))
        for owner in sorted(statuses, key=lambda _: self.random.random()):
            unknown = self.random.random() < 0.3
            if undos.undo_execution(self.tables, owner, unknown=unknown) is not None:
                self.undos_left -= 1
                self.counts["undos"] += 1
                return True
        return False

    def _copy_event(self) -> None:
        """Insert an event again: of a producer, a worker, a child, or mail of the broker to itself."""
        mailed = [event for event in self.tables.events.values() if "turn" not in (event["meta"] or {})]
        # Most events are of starts and workers, so types that were not copied yet come first.
        types = dict.fromkeys(event["event_type"].lower() for event in mailed)
        kind = self.random.choice([kind for kind in types if kind not in self.copied_types] or [*types])
        self.copied_types.add(kind)
        alike = [event for event in mailed if event["event_type"].lower() == kind]
        event = self.random.choice((alike[-1], self.random.choice(alike)))
        spelling = self.random.choice((str.lower, str.upper))
        copy = {**event, "event_id": None, "created_at": None, "event_type": spelling(event["event_type"])}
        self._deliver_later(self.random.choice((0.0, 0.0, 1.0, 8.0)), lambda: self._insert(copy))

    def _insert(self, event: Row) -> None:
        self.copies.add(self.tables.insert_event(event)["event_id"])

    def _insert_stray_event(self) -> None:
        """Insert an unknown event, or an answer that does not come through its job, as of a NoETL worker."""
        tables = self.tables
        jobs = [job for job in tables.queue.values() if job["status"] not in {"delegated", "cancelled"}]
        owner = self.random.choice([*tables.executions, 999_999_999])
        event: Row = {"execution_id": owner, "event_type": self.random.choice(("unknown_type", "action_completed"))}
        event["node_id"] = f"{owner}:{self.random.choice(('unknown', 'a#7', 'b', 'a#1.9', 'end'))}"
        if jobs and self.random.random() < 0.7:
            again = [job for job in jobs if job["attempts"] > 1 and job["status"] == "leased"]
            job = self.random.choice(again or jobs)
            answer = answer_of(self.scenario, tables, job)
            if self.random.random() < 0.4:
                answer = Answer(error={"message": "busy", "status_code": 503})
            event = {key: job[key] for key in ("execution_id", "node_id", "node_name")}
            event["event_type"] = "action_completed" if answer.error is None else "action_error"
            event |= {"result": answer.result, "error": answer.error}
            if self.random.random() < 0.5:
                event["meta"] = {"attempt": self.random.choice((1, job["attempts"]))}
            self.counts["answers not through the job"] += 1
        self._insert(event)

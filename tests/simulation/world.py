"""The world of a simulation: brokers, workers, a reaper and their troubles, on one clock that nobody waits for.

The brokers run the daemon's own `Batch`, one await at a time; at each the world may go on with somebody else, or let
the broker die. Nothing is random but by the scenario's seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from random import Random
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.broker.model import Rules
from noetl_broker.daemon import batch as batches
from noetl_broker.daemon import playbooks
from noetl_broker.daemon.batch import Batch
from noetl_broker.daemon.counters import Counters
from noetl_broker.daemon.playbooks import Playbooks
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.codec import dump_json
from noetl_broker.store.unit import ConflictFault, Look
from tests.simulation import procedures
from tests.simulation.connection import Connection, Server
from tests.simulation.plans import document
from tests.simulation.scenarios import Answer, Scenario, answer_of
from tests.simulation.tables import Row, Tables

LEASE_SECONDS = 10.0
LOST_TURNS = (
    ConflictFault,
    asyncpg.ConnectionFailureError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)
MOST_STEPS = 600_000  # seed 25098 needs more than 60,000
Delivery = Callable[[], object]


class Stuck(Exception):
    """Nothing moves any more, or nothing ever ends."""


class Held(NamedTuple):
    """A job that a worker has under way."""

    job: Row
    attempt: int
    done_at: Any
    reserved: procedures.Reserved | None


class Here:
    """What the broker asks of asyncio beside the world's own awaits, without an event loop: no thread, no clock."""

    @classmethod
    def get_running_loop(cls) -> type[Here]:
        """Return what stands for the event loop."""
        return cls

    @staticmethod
    async def run_in_executor(_threads: object, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it at once."""
        return function(*arguments)

    @staticmethod
    def create_task(work: Coroutine[Any, Any, None], *, name: str) -> str:
        """Do it at once: it waits for nobody."""
        with suppress(StopIteration):
            work.send(None)
            raise AssertionError(f"{name} waits")
        return name

    @staticmethod
    async def wait(_tasks: set[str], *, timeout: float) -> None:  # noqa: ASYNC109 - as asyncio has it
        """They are done."""


@contextmanager
def without_event_loop() -> Iterator[None]:
    """A transaction begins when the world lets it, and a playbook is compiled where it is asked for."""
    changed: tuple[tuple[Any, str, Any], ...] = (
        (batches, "transaction", Connection.transaction),
        (playbooks, "asyncio", Here),
    )
    before = [getattr(module, name) for module, name, _ in changed]
    for module, name, ours in changed:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for (module, name, _), theirs in zip(changed, before, strict=True):
            setattr(module, name, theirs)


class Broker:
    """One evaluator lane: a batch at a time."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.running: Coroutine[Any, Any, Any] | None = None
        self.place = ""
        self.claims = 0


class World:
    """A scenario as it happens; afterwards `tables` hold all that was written."""

    def __init__(self, scenario: Scenario, *, sloppy: frozenset[str] = frozenset()) -> None:
        self.scenario = scenario
        self.chance = Random(f"world {scenario.seed} {scenario.luck}")
        self.tables = Tables()
        self.server = Server(self.tables, large_bytes=scenario.large_bytes, sloppy=sloppy)
        self.playbooks = Playbooks(PlaybookRules())
        self.counters = Counters()
        self.brokers = [Broker() for _ in range(scenario.brokers)]
        self.holding: list[list[Held]] = [[] for _ in range(scenario.workers)]
        self.names = Counter[int]()
        self.later: list[tuple[Any, int, Delivery]] = []
        self.left = scenario.faults._asdict()
        self.odds = self.chance.choice((0.005, 0.01, 0.03))
        self.haste = self.chance.choice((1, 1, 4))  # of the brokers: slow ones find several events at once
        self.seen = Counter[str]()
        self.copies: set[int] = set()
        self.copied: set[str] = set()
        self.faults: list[str] = []

    # The run.

    def run(self) -> None:
        """Start the executions and go on until nothing moves; raises Stuck."""
        with without_event_loop():
            self._run()

    def _run(self) -> None:
        self._register()
        for root in range(self.scenario.roots):
            self._start(root)
        for _ in range(MOST_STEPS):
            actions = self._ready()
            if actions:
                self.chance.choice(actions)()
                self._trouble()
            elif not self._pass_time():
                break
        else:
            raise Stuck(f"not over after {MOST_STEPS} steps")
        running = [row["execution_id"] for row in self.tables.executions.values() if row["status"] == "RUNNING"]
        if running:
            raise Stuck(f"nothing moves any more, and executions {running} have not ended")

    def _register(self) -> None:
        for plan in self.scenario.plan.family():
            number = self.tables.next_id()
            content = dump_json(document(plan))
            self.tables.catalog[number] = {
                "catalog_id": number, "path": plan.path, "name": plan.path, "version": 1, "content": content,
            }  # fmt: skip

    def _start(self, root: int) -> None:
        tables, path, payload = self.tables, self.scenario.plan.path, dict(self.scenario.payload)
        if self._happens("strangers", 0.2):
            catalog_id = next(number for number, row in tables.catalog.items() if row["path"] == path)
            owner = tables.next_id()
            tables.insert_event(procedures.start_event(tables, owner, payload, catalog_id))
            self.seen["started by hand"] += 1
            return
        owner = procedures.start_execution(tables, path, payload)
        tables.executions[owner]["root"] = root

    def _ready(self) -> list[Callable[[], object]]:
        """Return what can be done now; what stands there twice is twice as likely."""
        now = self.tables.now
        found: list[Callable[[], object]] = []
        for broker in self.brokers:
            if broker.running is not None or self.tables.inbox:
                found += [lambda broker=broker: self._let(broker)] * self.haste  # type: ignore[misc]
        may_lease = any(
            row["status"] in {"queued", "retry"} and row["available_at"] <= now for row in self.tables.queue.values()
        )
        for number, held in enumerate(self.holding):
            if any(one.done_at <= now for one in held) or (may_lease and len(held) < 3):
                found.append(lambda number=number: self._work(number))  # type: ignore[misc]
        if self.later and min(self.later)[0] <= now:
            found.append(self._deliver)
        if found and self.chance.random() < 0.02:
            found.append(self._reap)
        return found

    def _pass_time(self) -> bool:
        """Go on to the next moment at which something is due; False when there is none."""
        if self._reap():
            return True
        moments = [one.done_at for held in self.holding for one in held]
        moments += [moment for moment, *_ in self.later]
        moments += procedures.moments(self.tables)
        ahead = [moment for moment in moments if moment >= self.tables.now]
        if not ahead:
            return False
        self.tables.now = min(ahead)
        return True

    def _reap(self) -> bool:
        """Let the reaper look; False when there was nothing for it."""
        reaped = procedures.reap(self.tables, self.scenario.max_lost_leases)
        self.seen.update(reaped)
        return any(reaped.values())

    def _after(self, seconds: float, delivery: Delivery) -> None:
        self.later.append((self.tables.now + timedelta(seconds=seconds), self.tables.next_id(), delivery))

    def _deliver(self) -> None:
        first = min(self.later)
        self.later.remove(first)
        first[2]()

    def _happens(self, fault: str, odds: float) -> bool:
        """Tell whether a trouble comes about: there may be only so many of it."""
        if not self.left[fault] or self.chance.random() >= odds:
            return False
        self.left[fault] -= 1
        self.seen[fault] += 1
        return True

    # Brokers.

    def _let(self, broker: Broker) -> None:
        """Let a broker go on to its next await."""
        if broker.running is None:
            broker.connection = Connection(self.server)
            broker.claims += 1
            batch = Batch(Rules(), self.playbooks, self.counters, max_gathered_bytes=1 << 26)
            size = self.chance.choice((1, 2, 5, 200))
            look = Look(0, newest=broker.claims % 4 == 0)
            broker.running = batch.run(broker.connection, size=size, look=look)  # type: ignore[arg-type]
        connection, running = broker.connection, broker.running
        if connection is None:
            return
        if broker.place and self._happens("crashes", 0.03):
            running.close()
            self._end(broker)
            return
        if broker.place not in {"", "blocked"} and self._happens("hangs", 0.02):
            connection.abort()
        try:
            if broker.place == "committed" and self._happens("lost_commits", 0.1):
                running.throw(asyncpg.ConnectionFailureError("the answer to COMMIT was lost"))
            broker.place = running.send(None)
        except StopIteration:
            self._end(broker)
        except LOST_TURNS as error:
            self.seen[type(error).__name__] += 1
            self._end(broker)
        except Exception as error:
            self.faults.append(f"a broker raised {type(error).__name__}: {error}")
            raise Stuck(self.faults[-1]) from error

    def _end(self, broker: Broker) -> None:
        if broker.connection is not None:
            broker.connection.abort()
        broker.running, broker.place = None, ""

    # Workers.

    def _work(self, number: int) -> None:
        """Let a worker answer what is done, or else take more."""
        held = self.holding[number]
        done = [one for one in held if one.done_at <= self.tables.now]
        name = f"worker {number}.{self.names[number]}"
        if done:
            held.remove(done[0])
            self._answer(name, done[0])
            return
        for job in procedures.lease_jobs(self.tables, name, self.chance.randint(1, 3 - len(held)), LEASE_SECONDS):
            held.append(self._begin(name, job))
        if held and self._happens("deaths", 0.1):
            held.clear()
            self.names[number] += 1

    def _begin(self, name: str, job: Row) -> Held:
        seconds = self.chance.choice((0.01, 0.1, 0.5, 2.0))
        if self._happens("deaths", 0.1):
            seconds = self.chance.choice((12.0, 40.0))  # the lease is over by then, or almost
            if self.chance.random() < 0.5:
                attempt = job["attempts"]
                self._after(8.0, lambda: procedures.heartbeat_job(self.tables, job, name, attempt, LEASE_SECONDS))
        reserved = procedures.reserve(self.tables) if self._happens("late_commits", 0.2) else None
        return Held(job, job["attempts"], self.tables.now + timedelta(seconds=seconds), reserved)

    def _answer(self, name: str, held: Held) -> None:
        job, attempt = held.job, held.attempt
        given = answer_of(self.scenario, self.tables, job)

        def send(reserved: procedures.Reserved | None = None) -> bool:
            if given.error is None:
                return procedures.complete_job(self.tables, job, name, attempt, given.result, reserved)
            return procedures.fail_job(
                self.tables, job, name, attempt, given.error, reserved, retryable=given.retryable
            )

        if not send(held.reserved):
            self.seen["refused answers"] += 1
        if self._happens("repeats", 0.2):
            self._after(self.chance.choice((0.0, 3.0)), send)

    # Troubles that need nobody.

    def _trouble(self) -> None:
        if self._happens("copies", self.odds):
            self._copy()
        if self._happens("strangers", self.odds):
            self._disturb()
        if self.tables.executions and self._happens("cancels", 0.005):
            owner = self.chance.choice([*self.tables.executions])
            procedures.cancel_execution(self.tables, owner, "somebody said so")

    def _copy(self) -> None:
        """Insert an event a second time: of a producer, a worker, a child, or of the broker to itself."""
        mailed = [event for event in self.tables.events.values() if "turn" not in (event["meta"] or {})]
        # Most events are of starts and of workers: the rarer ones get their chance too.
        kinds = dict.fromkeys(event["event_type"].lower() for event in mailed)
        kind = self.chance.choice([kind for kind in kinds if kind not in self.copied] or [*kinds])
        self.copied.add(kind)
        alike = [event for event in mailed if event["event_type"].lower() == kind]
        event = self.chance.choice((alike[-1], self.chance.choice(alike)))
        spelling = self.chance.choice((str.lower, str.upper))
        copy = {**event, "event_id": None, "created_at": None, "event_type": spelling(event["event_type"])}
        self._after(self.chance.choice((0.0, 0.0, 1.0, 8.0)), lambda: self._insert(copy))

    def _insert(self, event: Row) -> None:
        self.copies.add(self.tables.insert_event(event)["event_id"])

    def _disturb(self) -> None:
        """Insert an event that fits nothing, or an answer that passes its job by, as a NoETL worker's does."""
        tables = self.tables
        jobs = [job for job in tables.queue.values() if job["status"] not in {"delegated", "cancelled"}]
        owner = self.chance.choice([*tables.executions, 999_999_999])
        event: Row = {"execution_id": owner, "event_type": self.chance.choice(("a_word_of_nobody", "action_completed"))}
        event["node_id"] = f"{owner}:{self.chance.choice(('nobody', 'a#7', 'b', 'a#1.9', 'end'))}"
        if jobs and self.chance.random() < 0.7:
            again = [job for job in jobs if job["attempts"] > 1 and job["status"] == "leased"]
            job = self.chance.choice(again or jobs)
            given = answer_of(self.scenario, tables, job)
            if self.chance.random() < 0.4:
                given = Answer(error={"message": "busy", "status_code": 503})
            event = {key: job[key] for key in ("execution_id", "node_id", "node_name")}
            event["event_type"] = "action_completed" if given.error is None else "action_error"
            event |= {"result": given.result, "error": given.error}
            if self.chance.random() < 0.5:
                event["meta"] = {"attempt": self.chance.choice((1, job["attempts"]))}
            self.seen["answers past the job"] += 1
        self._insert(event)

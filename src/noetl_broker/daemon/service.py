"""The daemon: drain the inbox, sleep until the bell rings, and keep house beside that.

Any number of them run beside each other on one database; there is no leader. Everything that goes wrong with the
database is waited out; a stop (SIGTERM) lets the turns under way commit and then ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from noetl_broker.broker.model import Rules
from noetl_broker.broker.spans import Emit
from noetl_broker.daemon.counters import LATE_SECONDS, Counters
from noetl_broker.daemon.evaluator import Evaluator
from noetl_broker.daemon.listener import keep_listening, watch_listener
from noetl_broker.daemon.periods import keep_periods
from noetl_broker.daemon.playbooks import Playbooks
from noetl_broker.daemon.reaper import Clock, Reaper, keep_reaping
from noetl_broker.daemon.sleeper import POLL_SECONDS, Sleeper, look
from noetl_broker.daemon.tracer import Tracer
from noetl_broker.errors import DatabaseFault, SchemaFault
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.bell import Bell
from noetl_broker.store.faults import Remedy, is_transient, kind_of, sentence, told
from noetl_broker.store.migrate import check_rights, check_version
from noetl_broker.store.pool import ANSWER_SECONDS, Connection, Pool, create_pool, lent
from noetl_broker.store.queries import sql

log = structlog.get_logger(__name__)

WAIT_SECONDS = (0.2, 1.0)
LAST_SPANS_SECONDS = 2.0
LAST_RING_SECONDS = 2.0


def _nothing() -> None:
    """What is called where nobody wants to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """What the daemon needs to know; times in seconds."""

    dsn: str | None
    rules: Rules
    playbook_rules: PlaybookRules
    lanes: int = 3
    batch_size: int = 200
    notify: str = "gated"
    sweep_seconds: float = 5.0
    reap_seconds: float = 1.0
    max_lost_leases: int = 5
    missing_event_seconds: float = 30.0
    foreign_lease_grace_seconds: float = 900.0
    max_gathered_bytes: int = 64 << 20
    period_days: int = 30
    fail_fast: bool = False
    warn_of_superuser: bool = True
    emit: Emit | None = None  # takes spans; None: there are no traces


@dataclass(slots=True)
class Service:
    """One daemon process; `run` returns when `stopping` is set and the turns under way are committed."""

    options: ServiceOptions
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    on_ready: Callable[[], None] = _nothing
    on_progress: Callable[[], None] = _nothing  # called as long as the main loop gets on
    counters: Counters = field(default_factory=Counters)
    bell: Bell | None = None
    serving: bool = False  # turns are taken: the schema is known, and the bell was heard once
    beside_noetl: bool = False  # the database is a NoETL server's, whose workers run the jobs
    trouble: str | None = "it has not been reached yet"  # with the database, as of now
    progress_at: float = field(default_factory=time.monotonic)  # monotonic seconds
    tracer: Tracer | None = field(init=False)

    def __post_init__(self) -> None:
        """With a tracer where somebody takes spans."""
        emit = self.options.emit
        self.tracer = None if emit is None else Tracer(emit, self.counters)

    async def drain(self) -> Counters:
        """Evaluate what is waiting, then return: `run --drain`. Mail that another broker holds is waited for."""
        pool = await self._open_pool()
        evaluator = self._evaluator(pool)
        try:
            while not self.stopping.is_set():
                try:
                    await evaluator.drain()
                    if not await look(pool, evaluator.low_water, anyway=True):
                        break
                except Exception as error:  # noqa: BLE001 - what cannot be waited out is raised again
                    await self._suffer(error, pool)
                await asyncio.sleep(POLL_SECONDS[1])  # another broker holds it
            await self._tell_spans(pool)
        finally:
            evaluator.playbooks.close()
            await pool.close()
        return self.counters

    async def run(self) -> None:
        """Serve until `stopping` is set. Raises SchemaFault (and, with `fail_fast`, DatabaseFault) at the start."""
        pool = await self._open_pool()
        bell = self.bell = Bell(self.options.dsn)
        await bell.keep_connected(self.stopping, self.progress)
        listening = asyncio.create_task(keep_listening(bell, self.stopping), name="listener")
        chores = [
            listening,
            asyncio.create_task(self._keep_reaping(pool), name="reaper"),
            asyncio.create_task(
                watch_listener(bell, pool, self.counters, seconds=self.options.sweep_seconds), name="bell watch"
            ),
            asyncio.create_task(self._ring_at_stop(bell), name="stop"),
            asyncio.create_task(keep_periods(pool, self.options.period_days), name="periods"),
        ]
        if self.tracer is not None:
            chores.append(asyncio.create_task(self.tracer.keep_telling(pool), name="tracer"))
        evaluator = self._evaluator(pool)
        try:
            log.info("ready", lanes=self.options.lanes, batch_size=self.options.batch_size, notify=self.options.notify)
            self.serving = True
            self.on_ready()
            await self._serve(evaluator, bell, pool, listening)
        finally:
            self.serving = False
            evaluator.playbooks.close()
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await bell.close()
            await self._pass_on(pool)
            await self._tell_spans(pool)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pool.close(), 5.0)
            log.info("stopped", turns=self.counters.turns, batches=self.counters.batches)

    async def _serve(self, evaluator: Evaluator, bell: Bell, pool: Pool, listening: asyncio.Task[None]) -> None:
        """LISTEN stands; drain, then sleep, again and again: nothing that was rung in between can be missed.

        Raises what no further try will mend, also of the listener.
        """
        counters = self.counters
        sleeper = Sleeper(
            bell,
            pool,
            self.stopping,
            evaluator.low_water,
            notify=self.options.notify,
            sweep_seconds=self.options.sweep_seconds,
        )
        while not self.stopping.is_set():
            bell.rung.clear()
            turns, late = counters.turns, counters.waits.above(LATE_SECONDS)
            try:
                await evaluator.drain()
                if sleeper.swept:
                    counters.swept += counters.waits.above(LATE_SECONDS) - late
                self.trouble = None
                self.progress()
                await sleeper.sleep(worked=counters.turns > turns)
            except Exception as error:  # noqa: BLE001 - what cannot be waited out is raised again
                await self._suffer(error, pool)
            if listening.done():
                listening.result()

    async def _suffer(self, error: Exception, pool: Pool) -> None:
        """Wait out what the table of faults says can be waited out; anything else ends the daemon.

        Where the schema seems to lack something but is whole, it is something that others have put on our tables.
        """
        kind = kind_of(error)
        if kind.remedy is Remedy.BLAME:
            raise error
        self.trouble = kind.word
        self.counters.tell_fault(error)
        if kind.remedy is Remedy.STOP:
            await self._check(pool, error)
        if kind.remedy is Remedy.RECONNECT:
            await pool.expire_connections()
        (log.error if kind.loud else log.warning)("the database fails the daemon, it will try again", **told(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), WAIT_SECONDS[0])

    async def _check_start(self, connection: Connection) -> None:
        """See what database it is; raises the fault that fits where the schema is unknown, or rights are missing."""
        await check_version(connection)
        await check_rights(connection)
        self.beside_noetl = bool(await connection.fetchval(sql("is_beside_noetl")))
        if self.options.warn_of_superuser and await connection.fetchval(sql("is_superuser")):
            log.warning("the daemon runs as a superuser", hint="a role with the rights it needs is safer")

    async def _check(self, pool: Pool, fault: Exception) -> None:
        """Raises SchemaFault where the schema is not whole, or one that we do not know."""
        try:
            async with lent(pool, ANSWER_SECONDS) as connection:
                await check_version(connection)
                await check_rights(connection)
        except SchemaFault:
            raise
        except Exception as error:
            if kind_of(error).remedy is Remedy.STOP:
                word = kind_of(fault).word
                raise SchemaFault(f"{word} ({sentence(fault)}); run noetl-broker migrate") from None
            if not is_transient(error):
                raise

    async def _keep_reaping(self, pool: Pool) -> None:
        options = self.options
        reaper = Reaper(
            pool,
            max_lost_leases=options.max_lost_leases,
            missing_event_seconds=options.missing_event_seconds,
            foreign_lease_grace_seconds=options.foreign_lease_grace_seconds,
        )
        await keep_reaping(reaper, Clock(pool, self.counters), self.counters, seconds=options.reap_seconds)

    async def _ring_at_stop(self, bell: Bell) -> None:
        """So that whoever sleeps needs to listen to one thing only."""
        await self.stopping.wait()
        bell.rung.set()

    async def _pass_on(self, pool: Pool) -> None:
        """Wake the other brokers, where mail is left; without it they look by themselves, a bit later."""
        if self.trouble is not None:
            return
        try:
            async with asyncio.timeout(LAST_RING_SECONDS), lent(pool, LAST_RING_SECONDS) as connection:
                await connection.execute(sql("pass_on"))
        except Exception as error:  # noqa: BLE001 - a stop waits for nobody
            log.info("could not wake the other brokers", **told(error))

    async def _tell_spans(self, pool: Pool) -> None:
        """What is noted and not yet told, where the time suffices."""
        if self.tracer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.tracer.tell(pool), LAST_SPANS_SECONDS)

    def progress(self) -> None:
        """The main loop has come round, or waits for what may come by itself: whoever watches over it may rest."""
        self.progress_at = time.monotonic()
        self.on_progress()

    def _tell_trouble(self, trouble: str | None) -> None:
        self.trouble = trouble

    def _evaluator(self, pool: Pool) -> Evaluator:
        options = self.options
        return Evaluator(
            pool=pool,
            rules=replace(options.rules, beside_noetl=self.beside_noetl),
            playbooks=Playbooks(options.playbook_rules),
            lanes=options.lanes,
            batch_size=options.batch_size,
            max_gathered_bytes=options.max_gathered_bytes,
            stopping=self.stopping,
            on_progress=self.progress,
            on_trouble=self._tell_trouble,
            counters=self.counters,
            tracer=self.tracer,
        )

    async def _open_pool(self) -> Pool:
        """Wait for the database (it may come up after us), and refuse a schema that we do not know."""
        pause = WAIT_SECONDS[0]
        while True:
            try:
                pool = await create_pool(
                    self.options.dsn,
                    name="noetl-broker run",
                    size=self.options.lanes + 2,
                    hot=True,
                    check=self._check_start,
                )
            except DatabaseFault as fault:
                self.trouble = str(fault)
                if isinstance(fault, SchemaFault) or self.options.fail_fast or type(fault) is not DatabaseFault:
                    raise
                tell = log.error if kind_of(fault).loud else log.warning
                tell("waiting for the database", error=str(fault), pause_seconds=pause)
                self.progress()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), pause)
                if self.stopping.is_set():
                    raise
                pause = min(pause * 2, WAIT_SECONDS[1])
            else:
                self.trouble = None
                return pool

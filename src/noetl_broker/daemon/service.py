"""The broker for one database: take turns until the inbox is empty, sleep until notified, run the background tasks.

Any number of brokers run on one database; there is no leader. The daemon waits while the database is away. A stop
(SIGTERM) lets running batches commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from noetl_broker.broker.model.rules import Rules
from noetl_broker.daemon.copier import Copier, Served
from noetl_broker.daemon.figures import keep_figures
from noetl_broker.daemon.idle import POLL_SECONDS, Sleeper, has_mail
from noetl_broker.daemon.keep_listening import keep_listening, keep_probing
from noetl_broker.daemon.lane import LaneResources
from noetl_broker.daemon.lanes import Lanes
from noetl_broker.daemon.matcher import Matcher
from noetl_broker.daemon.metrics.registry import BATCHES, MAIL_WAIT, SIGNAL_COPY_WAIT, SWEPT_MAIL, TURNS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.partitions import keep_partitions
from noetl_broker.daemon.playbook_cache import PlaybookCache
from noetl_broker.daemon.reaper import ClockCheck, Reaper, keep_reaping
from noetl_broker.daemon.retention import keep_dropping
from noetl_broker.daemon.schedules import Mover
from noetl_broker.daemon.throttles import JobReleaser
from noetl_broker.daemon.timers import DueLoop, Timers
from noetl_broker.daemon.tracer import Tracer
from noetl_broker.errors import DatabaseFault, SchemaFault
from noetl_broker.growing_pauses import Backoff
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Connection, Pool, borrowed, create_pool
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.listener import Listener
from noetl_broker.store.connect.migrations import check_rights, check_version
from noetl_broker.store.connect.schema_name import with_schema
from noetl_broker.store.connect.sqlstates import Remedy, fault_class_of, is_transient, log_fields, message_of
from noetl_broker.store.queries import sql
from noetl_broker.tasks import wait_for
from noetl_broker.tracing.spans import Emit

log = structlog.get_logger(__name__)

PAUSE_SECONDS = (0.2, 1.0)  # while the database is away
LATE_SECONDS = 0.1  # mail that waited longer than this was found by no poll
STOP_SECONDS = 2.0  # for each last task of a stop
BESIDE_LANES = 3  # connections of the pool that no lane has, for the tasks beside them
BESIDE_LANES_OF_BUCKET = 1  # they take turns: none needs a second connection while it has one


def _nothing() -> None:
    """The default callback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """The settings of a daemon; times in seconds. `emit` takes spans; None: no traces."""

    database: Database
    rules: Rules
    playbook_rules: PlaybookRules
    lanes: int = 3
    lanes_of_bucket: int = 1  # the other buckets work while it waits for its commit
    batch_size: int = 200
    notify: str = "gated"
    sweep_seconds: float = 5.0
    reap_seconds: float = 1.0
    max_lost_leases: int = 5
    missing_event_seconds: float = 30.0
    foreign_lease_grace_seconds: float = 900.0
    max_gathered_bytes: int = 64 << 20
    period_days: int = 30
    keep: str | None = None
    keep_keys: str = "365d"
    fail_fast: bool = False
    warn_of_superuser: bool = True
    metrics_paths: tuple[str, ...] = ()
    emit: Emit | None = None


@dataclass(slots=True)
class Service:
    """The broker for one database; `run` returns when `stopping` is set and the running batches are committed."""

    options: ServiceOptions
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    on_ready: Callable[[], None] = _nothing
    on_progress: Callable[[], None] = _nothing  # called while the main loop makes progress
    metrics: MetricValues = field(default_factory=MetricValues.of_service)
    listener: Listener | None = None
    served: dict[Database, Served] = field(default_factory=dict)  # buckets of this process, for copies of signals
    copied: int = 0  # how often a drain has written copies
    serving: bool = False  # takes turns
    beside_noetl: bool = False  # the database belongs to a NoETL server, whose workers run the jobs
    trouble: str | None = "it has not been reached yet"  # with the database, now
    progress_at: float = field(default_factory=time.monotonic)  # monotonic seconds
    tracer: Tracer | None = field(init=False)

    def __post_init__(self) -> None:
        """Make a tracer if somebody takes spans."""
        self.metrics.patterns = self.options.metrics_paths
        emit = self.options.emit
        self.tracer = None if emit is None else Tracer(emit, self.metrics)

    async def drain_on(self, pool: Pool) -> MetricValues:
        """Take turns until there is no mail, nothing is due and no signal is to be matched: `run --drain`.

        Waits for mail that another broker holds. The caller closes the pool.
        """
        timers = self._make_timers(pool, always_full=True)
        schedules = self._make_schedules(pool)
        limits = self._make_releaser(pool)
        copier = self._make_copier(pool)
        matcher = Matcher(pool, self.metrics, on_mail=self._on_mail)
        lanes = self._make_lanes(pool)
        try:
            while not self.stopping.is_set():
                try:
                    await lanes.drain()
                    if await timers.fire_due() + await schedules.fire_due() + await matcher.match_all():
                        continue
                    await limits.fire_due()
                    if copier is not None:
                        self.copied += await copier.copy_all()
                    if not await has_mail(pool, lanes.shared.cursor, full_scan=True):
                        break
                except Exception as error:  # noqa: BLE001 - raised again if waiting does not help
                    await self._handle_fault(error, pool)
                await asyncio.sleep(POLL_SECONDS[1])  # another broker holds it
            await self._send_spans(pool)
        finally:
            lanes.shared.playbooks.close()
        return self.metrics

    async def run(self) -> None:
        """Serve until `stopping` is set. Raises SchemaFault (and, with `fail_fast`, DatabaseFault) at the start."""
        options = self.options
        pool = await self.open_pool()
        timers = self._make_timers(pool)
        schedules = self._make_schedules(pool)
        limits = self._make_releaser(pool)
        copier = self._make_copier(pool)
        matcher = Matcher(
            pool, self.metrics, on_mail=self._on_mail, on_copies=_nothing if copier is None else copier.wake
        )
        listener = self.listener = Listener(
            options.database, on_timer=(timers.wake, schedules.wake), on_throttle=limits.wake
        )
        await listener.keep_connected(self.stopping, self.progress)
        listening = asyncio.create_task(keep_listening(listener, self.stopping), name="listener")
        tasks = [
            listening,
            asyncio.create_task(self._keep_reaping(pool), name="reaper"),
            asyncio.create_task(timers.keep_firing(), name="timers"),
            asyncio.create_task(
                matcher.keep_matching(listener, notify=options.notify != "off", sweep_seconds=options.sweep_seconds),
                name="matcher",
            ),
            asyncio.create_task(
                keep_probing(listener, pool, self.metrics, seconds=options.sweep_seconds), name="listener probe"
            ),
            asyncio.create_task(self._wake_at_stop(listener), name="stop"),
            asyncio.create_task(keep_partitions(pool, options.database, options.period_days), name="partitions"),
            asyncio.create_task(
                keep_dropping(pool, options.database, options.keep, options.keep_keys), name="dropping"
            ),
            asyncio.create_task(keep_figures(pool), name="figures"),
            asyncio.create_task(schedules.keep_firing(), name="schedules"),
            asyncio.create_task(limits.keep_firing(), name="limits"),
        ]
        if self.tracer is not None:
            tasks.append(asyncio.create_task(self.tracer.keep_sending(pool), name="tracer"))
        if copier is not None:
            tasks.append(asyncio.create_task(copier.keep_copying(options.sweep_seconds), name="copier"))
        lanes = self._make_lanes(pool, on_timer=timers.wake)
        listener.on_mail = lanes.on_mail
        try:
            log.info("ready", lanes=options.lanes, batch_size=options.batch_size, notify=options.notify)
            self.serving = True
            self.on_ready()
            await self._serve(lanes, listener, pool, listening)
        finally:
            self.serving = False
            self.served.pop(options.database, None)
            lanes.shared.playbooks.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await listener.close()
            await self._wake_other_brokers(pool)
            await self._send_spans(pool)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pool.close(), 5.0)
            log.info("stopped", turns=self.metrics.total(TURNS), batches=self.metrics.total(BATCHES))

    async def _serve(self, lanes: Lanes, listener: Listener, pool: Pool, listening: asyncio.Task[None]) -> None:
        """Drain, then sleep, again and again. LISTEN comes first, so no notification in between is missed.

        Raises a fault that no further attempt can mend, also a fault of the listener.
        """
        metrics = self.metrics
        sleeper = Sleeper(
            listener,
            pool,
            self.stopping,
            lanes.shared.cursor,
            notify=self.options.notify,
            sweep_seconds=self.options.sweep_seconds,
        )
        while not self.stopping.is_set():
            listener.notified.clear()
            turns, late = metrics.total(TURNS), metrics.count_above(MAIL_WAIT, LATE_SECONDS)
            try:
                await lanes.drain()
                if sleeper.swept:
                    metrics.add(SWEPT_MAIL, metrics.count_above(MAIL_WAIT, LATE_SECONDS) - late)
                self.trouble = None
                self.progress()
                await sleeper.sleep(worked=metrics.total(TURNS) > turns)
            except Exception as error:  # noqa: BLE001 - raised again if waiting does not help
                await self._handle_fault(error, pool)
            if listening.done():
                listening.result()

    async def _handle_fault(self, error: Exception, pool: Pool) -> None:
        """Wait if the fault may pass (`store/connect/sqlstates.py` says so); raise it otherwise."""
        fault_class = fault_class_of(error)
        if fault_class.remedy is Remedy.BLAME:
            raise error
        self.trouble = fault_class.reason
        self.metrics.count_fault(error)
        if fault_class.remedy is Remedy.STOP:
            await self._check_schema(pool, error)
        if fault_class.remedy is Remedy.RECONNECT:
            await pool.expire_connections()
        (log.error if fault_class.logged_as_error else log.warning)(
            "the database does not serve the daemon, it will try again", **log_fields(error)
        )
        await wait_for(self.stopping, PAUSE_SECONDS[0])

    async def check_start(self, connection: Connection) -> None:
        """Check a new database. Raises a fault when the schema is unknown or rights are missing.

        Raises HasBuckets when it is an installation with buckets.
        """
        await check_version(connection)
        await check_rights(connection)
        self.beside_noetl = bool(await connection.fetchval(sql("is_beside_noetl")))
        if self.options.warn_of_superuser and await connection.fetchval(sql("is_superuser")):
            log.warning("the daemon runs as a superuser", hint="a role with the rights it needs is safer")

    async def _check_schema(self, pool: Pool, fault: Exception) -> None:
        """Raise SchemaFault when the schema is incomplete or unknown; it may also be a passing fault."""
        try:
            async with borrowed(pool, ANSWER_SECONDS) as connection:
                await check_version(connection)
                await check_rights(connection)
        except SchemaFault:
            raise
        except Exception as error:
            if fault_class_of(error).remedy is Remedy.STOP:
                word = fault_class_of(fault).reason
                remedy = with_schema("run noetl-broker migrate", self.options.database.named)
                raise SchemaFault(f"{word} ({message_of(fault)}); {remedy}") from None
            if not is_transient(error):
                raise

    async def _keep_reaping(self, pool: Pool) -> None:
        options = self.options
        reaper = Reaper(
            pool,
            self.metrics,
            max_lost_leases=options.max_lost_leases,
            missing_event_seconds=options.missing_event_seconds,
            foreign_lease_grace_seconds=options.foreign_lease_grace_seconds,
            beside_noetl=self.beside_noetl,
        )
        await keep_reaping(
            reaper,
            ClockCheck(pool, self.metrics),
            seconds=options.reap_seconds,
            idle_seconds=options.sweep_seconds,
        )

    async def _wake_at_stop(self, listener: Listener) -> None:
        """Wake the sleeper at a stop, so that it waits for one event only."""
        await self.stopping.wait()
        listener.notified.set()

    async def _wake_other_brokers(self, pool: Pool) -> None:
        """Notify the other brokers if mail is left; otherwise they would find it a bit later by polling."""
        if self.trouble is not None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS), borrowed(pool, STOP_SECONDS) as connection:
                await connection.execute(sql("wake_other_brokers"))
        except Exception as error:  # noqa: BLE001 - nothing delays a stop
            log.info("could not wake the other brokers", **log_fields(error))

    async def _send_spans(self, pool: Pool) -> None:
        """Send the remaining spans, if there is time."""
        if self.tracer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.tracer.send(pool), STOP_SECONDS)

    def progress(self) -> None:
        """Note that the main loop made progress, or waits for a fault that may pass."""
        self.progress_at = time.monotonic()
        self.on_progress()

    def _set_trouble(self, trouble: str | None) -> None:
        self.trouble = trouble

    def _make_timers(self, pool: Pool, *, always_full: bool = False) -> DueLoop:
        timers = Timers(pool, self.metrics, on_fired=self._on_mail, always_full=always_full)
        on_fault = "timers could not be fired, will try again"
        return DueLoop(timers.fire, sweep_seconds=self.options.sweep_seconds, on_fault=on_fault)

    def _make_schedules(self, pool: Pool) -> DueLoop:
        on_fault = "schedules could not be moved, will try again"
        return DueLoop(Mover(pool, self.metrics).fire, sweep_seconds=self.options.sweep_seconds, on_fault=on_fault)

    def _make_releaser(self, pool: Pool) -> DueLoop:
        on_fault = "held jobs could not be released, will try again"
        return DueLoop(
            JobReleaser(pool, self.metrics).fire, sweep_seconds=self.options.sweep_seconds, on_fault=on_fault
        )

    def _make_copier(self, pool: Pool) -> Copier | None:
        """In a bucket: copies its signals, and is copied to from now on."""
        database = self.options.database
        if database.installation is None:
            return None
        self.served[database] = Served(pool, self._on_copies)
        return Copier(database, pool, self.served)

    def _on_copies(self, late: float) -> None:
        """Wake the matcher: copies of signals have been written here, the oldest of them so many seconds old."""
        self.metrics.observe(SIGNAL_COPY_WAIT, late)
        if self.listener is not None:
            self.listener.match_requested.set()

    def _on_mail(self) -> None:
        """Wake the main loop: this process has written mail."""
        if self.listener is not None:
            self.listener.notified.set()

    def _make_lanes(self, pool: Pool, on_timer: Callable[[float], None] = lambda _seconds: None) -> Lanes:
        options = self.options
        shared = LaneResources(
            pool=pool,
            rules=replace(options.rules, beside_noetl=self.beside_noetl),
            playbooks=PlaybookCache(options.playbook_rules),
            batch_size=options.batch_size,
            max_gathered_bytes=options.max_gathered_bytes,
            on_progress=self.progress,
            on_trouble=self._set_trouble,
            on_timer=on_timer,
            metrics=self.metrics,
            tracer=self.tracer,
        )
        return Lanes(shared=shared, count=options.lanes, stopping=self.stopping)

    async def open_pool(self) -> Pool:
        """Connect, waiting while the database is away. Raises SchemaFault for an unknown schema, and HasBuckets."""
        backoff = Backoff(*PAUSE_SECONDS)
        beside = BESIDE_LANES if self.options.database.installation is None else BESIDE_LANES_OF_BUCKET
        while True:
            try:
                pool = await create_pool(
                    self.options.database,
                    name="noetl-broker run",
                    size=self.options.lanes + beside,
                    hot=True,
                    check=self.check_start,
                )
            except DatabaseFault as fault:
                self.trouble = str(fault)
                if isinstance(fault, SchemaFault) or self.options.fail_fast or type(fault) is not DatabaseFault:
                    raise
                level = log.error if fault_class_of(fault).logged_as_error else log.warning
                pause = backoff.next()
                level("waiting for the database", error=str(fault), pause_seconds=pause)
                self.progress()
                await wait_for(self.stopping, pause)
                if self.stopping.is_set():
                    raise
            else:
                self.trouble = None
                return pool

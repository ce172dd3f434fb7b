"""One lane: a loop of batches, and what happens when a batch fails.

A fault of a playbook is a decision, written like any other. After a fault of the database the lane pauses and tries
again (`store/connect/sqlstates.py` says what each fault means). Any other fault is a bug of the broker. The mail that
causes it becomes a dead letter, and all other mail goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from noetl_broker.broker.model.rules import Rules
from noetl_broker.daemon.batch import Batch, event_fields
from noetl_broker.daemon.batch_size import BatchSize
from noetl_broker.daemon.claim_cursor import ClaimCursor
from noetl_broker.daemon.metrics.registry import LOCK_MISSES, SET_ASIDE
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.playbook_cache import PlaybookCache
from noetl_broker.daemon.quarantine import Quarantine
from noetl_broker.daemon.tracer import Tracer
from noetl_broker.errors import OversizeFault
from noetl_broker.growing_pauses import Backoff, jittered
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Pool, borrowed, transaction
from noetl_broker.store.connect.sqlstates import Remedy, fault_class_of, is_unreadable, log_fields, reason_of
from noetl_broker.store.turn.claim import Claim, ClaimStart, move_to_dead_letters, move_unreadable_to_dead_letters
from noetl_broker.store.turn.claimed_rows import Mail
from noetl_broker.store.turn.write import is_lost_race

log = structlog.get_logger(__name__)

ANOTHER_LANE_MAILS = 64  # a claim of so many takes milliseconds, enough for another lane
MAIL_SECONDS = 0.00005  # of the time of a claim, for each mail that it took
NEWEST_EVERY = 4  # every fourth claim takes the newest mail first, so that it does not wait behind a backlog
NEWEST_EVERY_SLOW = 2  # while decisions are slow
PAUSE_SECONDS = (0.002, 0.02)
FAULT_PAUSE_SECONDS = (0.05, 1.0)
JITTER = 0.5  # of these pauses
BATCH_SECONDS = ANSWER_SECONDS + 10.0
TIMEOUT_STATES = frozenset({"25P04", "57014"})  # of a transaction, of a statement
MAX_TIMEOUTS = 5  # of one mail alone; each takes as long as the server's timeout
MAX_CONFLICTS = 50  # in a row; another broker is not always first, so this is a bug


@dataclass(slots=True, kw_only=True)
class LaneResources:
    """What the lanes of one process share. `on_trouble` gets the reason why no turns can be taken, else None."""

    pool: Pool
    rules: Rules
    playbooks: PlaybookCache
    batch_size: int
    max_gathered_bytes: int
    on_progress: Callable[[], None]
    on_trouble: Callable[[str | None], None]
    on_timer: Callable[[float], None] = lambda _seconds: None  # gets the seconds until a new timer is due
    metrics: MetricValues = field(default_factory=MetricValues.of_service)
    tracer: Tracer | None = None
    cursor: ClaimCursor = field(default_factory=ClaimCursor)
    quarantine: Quarantine = field(default_factory=Quarantine)
    working: int = 0  # lanes
    fatal: Exception | None = None  # a fault that no further attempt can mend


class Lane:
    """One loop of claims, on one connection at a time; it remembers its recent faults."""

    def __init__(self, shared: LaneResources, add_lane: Callable[[], object]) -> None:
        """`add_lane` is called when there is enough mail for another lane."""
        self.shared = shared
        self.add_lane = add_lane
        self.claims = 0
        self.took_mail = False  # the last step
        self.admitted = False  # the last step gave slots to executions: their mail is the newest, and comes next
        self.batch_size = BatchSize(shared.batch_size)
        self.quiet = False  # send no notification while the server's queue of them is full
        self.conflicts = 0  # in a row
        self.timeouts: Counter[int] = Counter()  # of a mail alone, by its id
        self.claim_backoff = Backoff(*PAUSE_SECONDS, JITTER)
        self.fault_backoff = Backoff(*FAULT_PAUSE_SECONDS, JITTER)

    async def step(self) -> bool:
        """Run one batch; False when there is nothing more to claim."""
        shared = self.shared
        self.took_mail = False
        batch = Batch(
            shared.rules,
            shared.playbooks,
            shared.metrics,
            max_gathered_bytes=shared.max_gathered_bytes,
            isolating=shared.quarantine.isolates_faults,
            quarantine=shared.quarantine,
            tracer=shared.tracer,
        )
        size = self.batch_size.mails
        start = self._next_start()
        try:
            async with borrowed(shared.pool, BATCH_SECONDS) as connection:
                claim = await batch.run(
                    connection,
                    size=size,
                    start=start,
                    quiet=self.quiet,
                    on_claim=partial(self._on_claim, start, size),
                )
        except Exception as error:  # noqa: BLE001 - the one place that handles a fault of a batch
            shared.cursor.rewind(start.mail_id if batch.first_mail_id is None else batch.first_mail_id)
            await self._handle_fault(error, batch)
            shared.on_progress()
            return True
        if batch.first_mail_id is not None and (
            claim.locked_elsewhere > batch.postponed or batch.decided < batch.mails
        ):
            shared.cursor.rewind(batch.first_mail_id)
        self.took_mail = bool(claim.mail)
        self.admitted = batch.admits and not start.newest
        self._on_success()
        if (batch.isolating or shared.quarantine.one_by_one) and claim.mail:
            shared.quarantine.on_success()
        self._report(claim)
        if batch.timer_seconds is not None:
            shared.on_timer(batch.timer_seconds)
        if claim.mail:
            return self._may_be_more(batch, claim, size=size) or start.newest
        if claim.locked_elsewhere:
            shared.metrics.add(LOCK_MISSES, claim.locked_elsewhere)
            await asyncio.sleep(self.claim_backoff.next())
            return True
        return start.newest  # an empty inbox is empty from both ends, but only a claim from the beginning ends a lane

    def _next_start(self) -> ClaimStart:
        self.claims += 1
        newest = self.claims % (NEWEST_EVERY_SLOW if self.batch_size.is_slow else NEWEST_EVERY) == 0 or self.admitted
        return ClaimStart(self.shared.cursor.near if newest else self.shared.cursor.next_start(), newest)

    def _on_claim(self, start: ClaimStart, size: int, claim: Claim, seconds: float) -> None:
        """Before deciding: let other lanes claim behind this mail, and start one if there is enough."""
        if not start.newest:
            behind = claim.last_mail_id + 1 if claim.mails >= size else 0
            scan_seconds = max(seconds - claim.mails * MAIL_SECONDS, 0.0)
            self.shared.cursor.scanned(claim.first_mail_id, start.mail_id, scan_seconds, behind=behind)
        if claim.mail and claim.mails >= min(size, ANOTHER_LANE_MAILS):
            self.add_lane()

    def _report(self, claim: Claim) -> None:
        """Report progress, and that there is no trouble, unless others hold all mail: they may have the trouble."""
        shared = self.shared
        if claim.mail or claim.locked_elsewhere:
            shared.on_progress()
        trouble = shared.quarantine.trouble
        if trouble is not None or claim.mail or (not claim.locked_elsewhere and shared.working == 1):
            shared.on_trouble(trouble)

    def _may_be_more(self, batch: Batch, claim: Claim, *, size: int) -> bool:
        """Whether the inbox may hold more mail. Before the next sleep it is scanned in any case."""
        self.claim_backoff.reset()
        self.batch_size.on_decided(batch.decided, batch.mails)
        return batch.mails >= size or claim.locked_elsewhere > 0 or batch.wrote_mail or batch.decided < batch.mails

    def _on_success(self) -> None:
        self.fault_backoff.reset()
        self.conflicts = 0
        if self.batch_size.on_success():
            self.quiet = False

    async def _handle_fault(self, error: Exception, batch: Batch) -> None:
        """After the rollback: try again, find the mail that fails, or move it to the dead letters."""
        self.batch_size.on_fault()
        if is_lost_race(error):
            self.conflicts += 1
            if self.conflicts < MAX_CONFLICTS:
                self.shared.metrics.retries += 1
                self.shared.metrics.count_fault(error)
                log.info("turns rolled back, will be taken again", error=reason_of(error))
                await self._pause_after_fault(short=True)
                return
        fault_class = fault_class_of(error)
        if fault_class.remedy is Remedy.STOP:
            self.shared.fatal = error
            return
        if fault_class.remedy is not Remedy.BLAME and not self._is_too_much(error, batch):
            await self._try_again(error, batch)
            return
        if len(batch.claimed) > 1:
            reason = reason_of(error)
            log.warning("a batch failed, the mail that fails it is searched", mails=batch.mails, error=reason)
            self.shared.metrics.retries += 1
            if batch.isolating:  # the write did not fail, but a read or the commit
                self.batch_size.halve(batch.mails)
            self.shared.quarantine.isolate_faults()
            return
        if not batch.mails:
            await self._handle_failed_claim(error, batch)
            return
        [(execution_id, mail)] = batch.claimed.items()
        if len(mail) > 1 and execution_id not in self.shared.quarantine.one_by_one:
            self.shared.metrics.retries += 1
            self.shared.quarantine.isolate_faults()
            self.shared.quarantine.one_by_one.add(execution_id)
            return
        await self._move_to_dead_letters(error, mail[:1], batch.start)

    async def _handle_failed_claim(self, error: Exception, batch: Batch) -> None:
        """Claim less, down to one mail. If its row cannot be read, move it to the dead letters."""
        size = self.batch_size.mails
        log.error("mail cannot be claimed", batch_size=size, **log_fields(error))
        if size > 1:
            self.shared.metrics.retries += 1
            self.batch_size.halve(size)
        elif is_unreadable(error):
            await self._move_to_dead_letters(error, [], batch.start)
            return
        else:
            self.shared.on_trouble("mail cannot be claimed")
        await self._pause_after_fault()

    def _is_too_much(self, error: Exception, batch: Batch) -> bool:
        """Whether one mail alone is too large for the server, or has met its timeout again and again."""
        if batch.mails != 1 or isinstance(error, OversizeFault):
            return batch.mails == 1
        if getattr(error, "sqlstate", None) not in TIMEOUT_STATES:
            return False
        [[mail]] = batch.claimed.values()
        self.timeouts[mail.mail_id] += 1
        return self.timeouts[mail.mail_id] >= MAX_TIMEOUTS

    async def _try_again(self, error: Exception, batch: Batch) -> None:
        """No mail is at fault: apply the remedy of the fault, pause, and take the turns again."""
        shared = self.shared
        shared.metrics.retries += 1
        shared.metrics.count_fault(error)
        fault_class = fault_class_of(error)
        locked_table = fault_class.remedy is Remedy.LEAVE and not batch.claimed  # a claim skips rows that are locked
        level = (
            log.error
            if fault_class.logged_as_error
            else log.info
            if fault_class.remedy is Remedy.LEAVE and not locked_table
            else log.warning
        )
        if fault_class.remedy is Remedy.SHRINK:
            self.batch_size.halve(batch.mails)
        elif fault_class.remedy is Remedy.QUIET:
            self.quiet = True
        elif fault_class.remedy is Remedy.RECONNECT:
            await shared.pool.expire_connections()
        elif fault_class.remedy is Remedy.LEAVE:
            self._postpone(batch)
            if shared.quarantine.trouble is not None:
                shared.on_trouble(shared.quarantine.trouble)
        if fault_class.remedy in {Remedy.RECONNECT, Remedy.WAIT} or locked_table:
            shared.on_trouble(fault_class.reason)
        fields: dict[str, object] = {**log_fields(error)}
        if len(batch.claimed) == 1:
            [(execution_id, mail)] = batch.claimed.items()
            fields |= {"execution_id": execution_id, **event_fields(mail)}
        level("turns rolled back, will be taken again", **fields, batch_size=self.batch_size.mails)
        await self._pause_after_fault(short=fault_class.remedy in {Remedy.RETRY, Remedy.LEAVE})

    def _postpone(self, batch: Batch) -> None:
        """Postpone the execution whose row is locked, if it is known; otherwise the next batches find it."""
        self.shared.quarantine.on_missed_lock()
        if len(batch.claimed) == 1:
            self.shared.quarantine.postpone(*batch.claimed)
        elif batch.isolating:  # the lock was met outside the write
            self.batch_size.halve(batch.mails)

    async def _pause_after_fault(self, *, short: bool = False) -> None:
        """Pause, and longer after the next fault; `short`: another transaction was first."""
        pause = self.fault_backoff.next()
        await asyncio.sleep(jittered(PAUSE_SECONDS[1], JITTER) if short else pause)

    async def _move_to_dead_letters(self, error: Exception, mail: list[Mail], start: ClaimStart) -> None:
        """Move the failing mail to the dead letters. If none could be read, move the row where the claim stopped."""
        reason = reason_of(error)
        try:
            async with borrowed(self.shared.pool, BATCH_SECONDS) as connection, transaction(connection):
                if mail:
                    execution_ids = await move_to_dead_letters(connection, mail, reason)
                else:
                    execution_ids = await move_unreadable_to_dead_letters(connection, start)
        except Exception as second:  # noqa: BLE001 - the mail stays in the inbox and is tried again
            log.warning("could not set mail aside", error=reason_of(second))
            await asyncio.sleep(self.fault_backoff.next())
            return
        for execution_id in execution_ids:
            log.error("mail set aside", execution_id=execution_id, reason=reason, **event_fields(mail))
            self.shared.metrics.add(SET_ASIDE)

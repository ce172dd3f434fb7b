"""One lane: a loop of batches, and an owner for whatever goes wrong in one.

A playbook's fault is a decision like any other; a fault of the connection is tried again after a pause; anything else
is ours, and the mail that shows it is set aside, so that all others go on, those of its own execution too.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from noetl_broker.broker.model import Rules
from noetl_broker.daemon.apart import Apart
from noetl_broker.daemon.batch import Batch
from noetl_broker.daemon.counters import Counters
from noetl_broker.daemon.low_water import LowWater
from noetl_broker.daemon.playbooks import Playbooks
from noetl_broker.daemon.tracer import Tracer
from noetl_broker.errors import OversizeFault
from noetl_broker.store import unit
from noetl_broker.store.faults import Remedy, is_unreadable, kind_of, reason_of, told
from noetl_broker.store.pool import ANSWER_SECONDS, Pool, lent, transaction
from noetl_broker.store.rows import Mail

log = structlog.get_logger(__name__)

MANY = 64  # mails, which take some milliseconds
MAIL_SECONDS = 0.00005  # of a claim, which a mail takes once it is come upon
NEWEST_EVERY = 4  # every fourth claim reads the newest mail first, so that a backlog does not starve what is new
NEWEST_OFTEN = 2  # while what waits is costly to decide on
PAUSE_SECONDS = (0.002, 0.02)
FAULT_PAUSE_SECONDS = (0.05, 1.0)
BATCH_SECONDS = ANSWER_SECONDS + 10.0
GROW_AFTER = 20  # batches that went well, after one that was too large for the server
OUT_OF_TIME = frozenset({"25P04", "57014"})  # a transaction, a statement
CAREFUL_BATCHES = 100  # after one that failed by its mail; what is refused once comes seldom alone
MOST_SLOW = 5  # times that one mail alone may take too long: each takes as long as the server has patience
MOST_CONFLICTS = 50  # in a row; another broker is not always first, so this is a fault of ours


@dataclass(slots=True, kw_only=True)
class Shared:
    """What the lanes of one process share."""

    pool: Pool
    rules: Rules
    playbooks: Playbooks
    batch_size: int
    max_gathered_bytes: int
    on_progress: Callable[[], None]
    on_trouble: Callable[[str | None], None]  # told why no turns can be taken now; None: they can
    counters: Counters = field(default_factory=Counters)
    tracer: Tracer | None = None
    low_water: LowWater = field(default_factory=LowWater)
    apart: Apart = field(default_factory=Apart)
    at_work: int = 0  # lanes
    careful: int = 0  # so many batches are written such that mail which fails one is found in it
    hopeless: Exception | None = None  # what a lane met that no try will mend

    def relax(self) -> None:
        """A batch went well: one the fewer of those with care, and after the last no mail comes singly any more."""
        self.careful = max(self.careful - 1, 0)
        if not self.careful and not self.apart.is_wary:
            self.apart.singly.clear()


class Lane:
    """One loop of claims on one connection at a time, with a memory of what went wrong last."""

    def __init__(self, shared: Shared, add_lane: Callable[[], object]) -> None:
        """A lane that has had no trouble yet; `add_lane` is called where there is enough to do for another."""
        self.shared = shared
        self.add_lane = add_lane
        self.claims = 0
        self.size = shared.batch_size  # of a claim: no more than the last batch could decide on
        self.most = shared.batch_size  # of a claim: less after the server could not carry as much
        self.went_well = 0  # batches in a row
        self.quiet = False  # no notification while the server's queue of them is full
        self.conflicts = 0  # in a row
        self.slow: Counter[int] = Counter()  # how often a mail alone took too long, by its id
        self.pause = PAUSE_SECONDS[0]
        self.fault_pause = FAULT_PAUSE_SECONDS[0]

    async def step(self) -> bool:
        """One batch; False when there is nothing more to claim."""
        counters = self.shared.counters
        shared = self.shared
        batch = Batch(
            shared.rules,
            shared.playbooks,
            counters,
            max_gathered_bytes=shared.max_gathered_bytes,
            careful=shared.careful > 0 or shared.apart.is_wary,
            apart=shared.apart,
            tracer=shared.tracer,
        )
        size = min(self.size, self.most)
        look = self._next_look()
        try:
            async with lent(shared.pool, BATCH_SECONDS) as connection:
                claim = await batch.run(
                    connection,
                    size=size,
                    look=look,
                    quiet=self.quiet,
                    on_claim=partial(self._claimed, look, size),
                )
        except Exception as error:  # noqa: BLE001 - the one place where a fault of a batch finds its owner
            shared.low_water.left(look.start if batch.first is None else batch.first)
            await self._suffer(error, batch)
            shared.on_progress()
            return True
        if batch.first is not None and (claim.missed > batch.left_out or batch.taken < batch.mails):
            shared.low_water.left(batch.first)
        self._grow()
        if (batch.careful or shared.apart.singly) and claim.mail:
            shared.relax()
        self._tell(claim)
        if claim.mail:
            return self._goes_on(batch, claim, size=size) or look.newest
        if claim.missed:
            counters.misses += claim.missed
            await asyncio.sleep(self.next_pause())
            return True
        return look.newest  # an empty inbox looks the same from both ends; but a lane ends on a plain claim

    def _next_look(self) -> unit.Look:
        self.claims += 1
        often = NEWEST_EVERY if self.size == self.shared.batch_size else NEWEST_OFTEN
        newest = self.claims % often == 0
        return unit.Look(self.shared.low_water.near if newest else self.shared.low_water.start(), newest)

    def _claimed(self, look: unit.Look, size: int, claim: unit.Claim, seconds: float) -> None:
        """Before anything is decided: others may claim on from there, and there may be enough for another lane."""
        if not look.newest:
            past = claim.last_mail_id + 1 if claim.mails >= size else 0
            walk = max(seconds - claim.mails * MAIL_SECONDS, 0.0)
            self.shared.low_water.looked(claim.first_mail_id, look.start, walk, past=past)
        if claim.mail and claim.mails >= min(size, MANY):
            self.add_lane()

    def _tell(self, claim: unit.Claim) -> None:
        """Progress, where there was mail; no trouble, but not where others hold all of it, who may have the same."""
        shared = self.shared
        if claim.mail or claim.missed:
            shared.on_progress()
        trouble = shared.apart.trouble
        if trouble is not None or claim.mail or (not claim.missed and shared.at_work == 1):
            shared.on_trouble(trouble)

    def next_pause(self) -> float:
        """Seconds until the next look, longer each time that it was in vain."""
        pause, self.pause = self.pause, min(self.pause * 2, PAUSE_SECONDS[1])
        return random.uniform(0.5, 1.0) * pause  # noqa: S311 - jitter is no secret

    def _goes_on(self, batch: Batch, claim: unit.Claim, *, size: int) -> bool:
        """Whether there may be more mail; a claim that was not full is followed by the look before the next sleep."""
        self.pause = PAUSE_SECONDS[0]
        all_taken = batch.taken == batch.mails
        more = self.size * 2 if all_taken else batch.taken
        self.size = max(1, min(more, self.shared.batch_size))
        return batch.mails >= size or claim.missed > 0 or batch.posted or not all_taken

    def _grow(self) -> None:
        """It went well: forget what went wrong before, and bit by bit take as much as before."""
        self.fault_pause, self.conflicts = FAULT_PAUSE_SECONDS[0], 0
        self.went_well += 1
        if self.went_well >= GROW_AFTER:
            self.most, self.went_well = min(self.most * 2, self.shared.batch_size), 0
            self.quiet = False

    async def _suffer(self, error: Exception, batch: Batch) -> None:
        """Rolled back: pause and try again, or look for the one mail that fails, or set it aside."""
        self.went_well = 0
        if unit.is_lost_race(error):
            self.conflicts += 1
            if self.conflicts < MOST_CONFLICTS:
                self.shared.counters.retries += 1
                self.shared.counters.tell_fault(error)
                log.info("turns rolled back, will be taken again", error=reason_of(error))
                await self._rest(PAUSE_SECONDS[1])
                return
        kind = kind_of(error)
        if kind.remedy is Remedy.STOP:
            self.shared.hopeless = error
            return
        if kind.remedy is not Remedy.BLAME and not self._is_too_much(error, batch):
            await self._try_again(error, batch)
            return
        if len(batch.claimed) > 1:
            reason = reason_of(error)
            log.warning("a batch failed, the mail that fails it is looked for", mails=batch.mails, error=reason)
            self.shared.counters.retries += 1
            if batch.careful:  # not what is written fails, but what is read, or the commit
                self.most = batch.mails // 2
            self.shared.careful = CAREFUL_BATCHES
            return
        if not batch.mails:
            await self._cannot_claim(error, batch)
            return
        [(execution_id, mail)] = batch.claimed.items()
        if len(mail) > 1 and execution_id not in self.shared.apart.singly:
            self.shared.counters.retries += 1
            self.shared.careful = CAREFUL_BATCHES
            self.shared.apart.singly.add(execution_id)
            return
        await self._set_aside(error, mail[:1], batch.look)

    async def _cannot_claim(self, error: Exception, batch: Batch) -> None:
        """Look for the mail that the server cannot give; where it may well be the row, that is set aside unread."""
        most = min(self.size, self.most)
        log.error("mail cannot be claimed", batch_size=most, **told(error))
        if most > 1:
            self.shared.counters.retries += 1
            self.most = most // 2
        elif is_unreadable(error):
            await self._set_aside(error, [], batch.look)
            return
        else:
            self.shared.on_trouble("mail cannot be claimed")
        await self._rest(self.fault_pause)

    def _is_too_much(self, error: Exception, batch: Batch) -> bool:
        """Whether one mail alone is more than the server takes, or has run out of its patience again and again.

        It would hold up all others.
        """
        if batch.mails != 1 or isinstance(error, OversizeFault):
            return batch.mails == 1
        if getattr(error, "sqlstate", None) not in OUT_OF_TIME:
            return False
        [[mail]] = batch.claimed.values()
        self.slow[mail.mail_id] += 1
        return self.slow[mail.mail_id] >= MOST_SLOW

    async def _try_again(self, error: Exception, batch: Batch) -> None:
        """Nobody's mail is at fault: do what the table of faults says, pause, and take the turns again."""
        self.shared.counters.retries += 1
        self.shared.counters.tell_fault(error)
        kind = kind_of(error)
        level = log.error if kind.loud else log.info if kind.remedy is Remedy.LEAVE else log.warning
        if kind.remedy is Remedy.SHRINK:
            self.most = max(min(self.size, self.most, batch.mails or self.most) // 2, 1)
        elif kind.remedy is Remedy.HUSH:
            self.quiet = True
        elif kind.remedy is Remedy.RECONNECT:
            await self.shared.pool.expire_connections()
        elif kind.remedy is Remedy.LEAVE:
            self._leave(batch)  # no trouble unless it lasts
            if self.shared.apart.trouble is not None:
                self.shared.on_trouble(self.shared.apart.trouble)
        if kind.remedy in {Remedy.RECONNECT, Remedy.WAIT}:
            self.shared.on_trouble(kind.word)
        level("turns rolled back, will be taken again", **told(error), batch_size=self.most)
        short = kind.remedy in {Remedy.RETRY, Remedy.LEAVE}
        await self._rest(PAUSE_SECONDS[1] if short else self.fault_pause)

    def _leave(self, batch: Batch) -> None:
        """Leave out the execution that somebody holds, where it is clear which; else the next batches look for it."""
        self.shared.apart.be_wary()
        if len(batch.claimed) == 1:
            self.shared.apart.leave(*batch.claimed)
        elif batch.careful:  # what is held is not what is written
            self.most = max((batch.mails or min(self.size, self.most)) // 2, 1)

    async def _rest(self, seconds: float) -> None:
        """Pause with jitter, longer each time."""
        await asyncio.sleep(random.uniform(0.5, 1.0) * seconds)  # noqa: S311 - jitter is no secret
        self.fault_pause = min(self.fault_pause * 2, FAULT_PAUSE_SECONDS[1])

    async def _set_aside(self, error: Exception, mail: list[Mail], look: unit.Look) -> None:
        """Move mail out of the way of the rest; where there is none, because it cannot be read, what was come upon."""
        reason = reason_of(error)
        try:
            async with lent(self.shared.pool, BATCH_SECONDS) as connection, transaction(connection):
                if mail:
                    execution_ids = await unit.set_aside(connection, mail, reason)
                else:
                    execution_ids = await unit.set_aside_unread(connection, look)
        except Exception as second:  # noqa: BLE001 - nothing is lost: the mail stays and is tried again
            log.warning("could not set mail aside", error=reason_of(second))
            await asyncio.sleep(self.fault_pause)
            return
        for execution_id in execution_ids:
            log.error("mail set aside", execution_id=execution_id, reason=reason)
            self.shared.counters.set_aside += 1

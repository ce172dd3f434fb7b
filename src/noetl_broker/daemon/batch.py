"""One batch of turns over many executions: lock, load, take turns, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from noetl_broker.broker.model.rules import Rules
from noetl_broker.daemon.decide import Decider, expected_wants, limit_mail
from noetl_broker.daemon.metrics.registry import BATCHES, CLAIM_TIME, EVALUATION_TIME, SET_ASIDE, TRANSACTION_TIME
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.playbook_cache import PlaybookCache
from noetl_broker.daemon.quarantine import EventFault, EventFaults, Outcomes, Quarantine
from noetl_broker.daemon.tracer import Tracer
from noetl_broker.errors import BrokerError
from noetl_broker.store.connect.connection import Connection, transaction
from noetl_broker.store.connect.sqlstates import is_fault_of_event, is_held, reason_of, trace_of
from noetl_broker.store.turn import turn_rows
from noetl_broker.store.turn.claim import Claim, ClaimStart, claim_mail, move_to_dead_letters, set_lock_timeout
from noetl_broker.store.turn.claimed_rows import Case, Mail, Outcome, open_case
from noetl_broker.store.turn.columns import Columns
from noetl_broker.store.turn.load import Wants, load_answers
from noetl_broker.store.turn.slots import Granted, wants_slots
from noetl_broker.store.turn.write import (
    is_lost_race,
    rollback_to_savepoint,
    set_savepoint,
    suppress_notifications,
    write_columns,
)
from noetl_broker.template.scope import NotLoaded

log = structlog.get_logger(__name__)

MAX_LOADS: Final = 1000  # rounds of loading; more than a few would be a bug
# Deciding takes microseconds, but a template may take a tenth of a second. After this time a batch writes what it has.
# So an execution waits for one slow decision of another, not for hundreds.
DECIDE_SECONDS: Final = 0.05
MAX_CHARS: Final = 8_388_608  # of template output, after which a batch writes what it has
COMPILE_SECONDS: Final = 0.05  # to wait for playbooks that are not compiled yet
LOCK_MILLISECONDS: Final = 100  # to wait for a lock, while locks are expected
RETRY_LOCK_MILLISECONDS: Final = 10  # to wait for an execution that was locked the last time
MAX_MISSED_LOCKS: Final = 10  # in one batch, which then writes what it has


class Batch:
    """One transaction. It keeps what it claimed, so that a fault can be assigned to the mail."""

    def __init__(
        self,
        rules: Rules,
        playbooks: PlaybookCache,
        metrics: MetricValues,
        *,
        max_gathered_bytes: int,
        isolating: bool = False,
        quarantine: Quarantine | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`rules` are for executions that start in this batch; `isolating` as `_write` says."""
        self.max_gathered_bytes = max_gathered_bytes
        self.isolating = isolating
        self.quarantine = Quarantine() if quarantine is None else quarantine
        self.rules = rules
        self.playbooks = playbooks
        self.metrics = metrics
        self.tracer = tracer
        self.claimed: dict[int, list[Mail]] = {}
        self.start = ClaimStart(0, newest=False)
        self.first_mail_id: int | None = None  # the first mail that the claim found, also when another broker holds it
        self.claim_seconds = 0.0
        self.decide_seconds_left = DECIDE_SECONDS
        self.compile_seconds_left = COMPILE_SECONDS
        self.chars_left = MAX_CHARS
        self.postponed = 0  # mails of executions that are locked, or whose playbook is being compiled
        self.missed_locks = 0
        self.granted = Granted()  # slots that turns were promised
        self.busy: set[int] = set()  # executions whose slots another broker has locked
        self.decided = 0  # mails decided or moved to the dead letters; the others stay in the inbox
        self.wrote_mail = False
        self.admits = False  # whether the batch gave slots to other executions
        self.timer_seconds: float | None = None  # until the first timer that the batch writes

    @property
    def mails(self) -> int:
        """The number of mails in the batch."""
        return sum(map(len, self.claimed.values()))

    async def run(
        self,
        connection: Connection,
        *,
        size: int,
        start: ClaimStart,
        quiet: bool = False,
        on_claim: Callable[[Claim, float], object] | None = None,
    ) -> Claim:
        """Claim, decide, write, commit; returns the claim.

        `quiet`: send no notification. `on_claim` is called after the claim with the seconds that it took.
        """
        self.start = start
        async with transaction(connection):
            if self.quarantine.expects_locks:
                await set_lock_timeout(connection, LOCK_MILLISECONDS)
            began = time.monotonic()
            claim = await claim_mail(connection, start, max_mail=size)
            self.postponed = self.quarantine.remove_postponed(claim)
            self.first_mail_id, self.claim_seconds = claim.first_mail_id, time.monotonic() - began
            if on_claim is not None:
                on_claim(claim, self.claim_seconds)
            if not claim.mail:
                return claim
            self.claimed = claim.mail
            faults: EventFaults = {}
            cases = await self._open(connection, claim, faults)
            if start.newest:
                cases.reverse()  # the newest first, before the time is over
            outcomes = await self._decide(connection, cases, faults)
            for execution_id in self.busy:
                claim.leave(execution_id)
            if quiet:
                await suppress_notifications(connection)
            outcomes, suspects = self.quarantine.split(outcomes)
            outcomes = await self._write(connection, outcomes, faults)
            if suspects:
                await set_lock_timeout(connection, RETRY_LOCK_MILLISECONDS)
                outcomes += await self._write_parts(connection, suspects, faults)
            self.postponed += self.quarantine.remove_postponed(claim)
            for fault in faults.values():
                await move_to_dead_letters(connection, fault.mail, reason_of(fault.error))
        self.metrics.observe(TRANSACTION_TIME, time.monotonic() - began)
        self.quarantine.on_written(outcomes)
        self._count(outcomes, faults)
        return claim

    async def _open(self, connection: Connection, claim: Claim, faults: EventFaults) -> list[Case]:
        """Each execution with its playbook, state and rules. An execution that cannot be read is a fault.

        While its playbook is being compiled, the mail of an execution is left for another batch.
        """
        cases = []
        for execution_id, execution in [*claim.executions.items()]:
            try:
                playbook = self.playbooks.compiled(execution.catalog_id)
                if playbook is None:
                    began = time.monotonic()
                    playbook = await self.playbooks.get(connection, execution, self.compile_seconds_left)
                    self.compile_seconds_left -= time.monotonic() - began
                if playbook is None:
                    self.postponed += claim.leave(execution_id)
                    continue
                cases.append(open_case(execution, claim.mail[execution_id], playbook, self.rules))
            except Exception as error:
                if not is_fault_of_event(error):
                    raise
                faults[execution_id] = EventFault(claim.mail[execution_id], error)
        return cases

    async def _write(self, connection: Connection, outcomes: Outcomes, faults: EventFaults) -> Outcomes:
        """Write what can be written, and return that.

        A batch that is `isolating` is halved after a failure until the failing outcome is alone. If the database
        refuses it, it is a fault; its mail stays locked, so no other lane meets it. If a row of it is locked, it is
        postponed.

        Batches do not isolate faults by default: their savepoints make the server keep a multixact for each mail, which
        every later claim would read. A batch of one execution never does.
        """
        isolating = self.isolating and len(self.claimed) > 1
        try:
            if isolating:
                await set_savepoint(connection)
            await self._write_all(connection, outcomes)
        except Exception as error:
            locked = is_held(error)
            if not isolating or is_lost_race(error) or not (locked or is_fault_of_event(error)):
                raise
            await rollback_to_savepoint(connection)
            self.missed_locks += locked
            if len(outcomes) > 1:
                middle = len(outcomes) // 2
                halves = [outcomes[:middle], outcomes[middle:]]
                if locked:
                    halves.reverse()  # a locked execution soon has the oldest mail
                return await self._write_parts(connection, halves, faults)
            if locked:
                self.quarantine.postpone(outcomes[0][0].execution.execution_id)
            else:
                self._blame(*outcomes[0], error, faults)
            return []
        return outcomes

    async def _write_parts(self, connection: Connection, parts: list[Outcomes], faults: EventFaults) -> Outcomes:
        """Write one part after the other; after too many missed locks the rest is left for another batch."""
        written: Outcomes = []
        for part in parts:
            if self.missed_locks < MAX_MISSED_LOCKS or part is parts[0]:
                written += await self._write(connection, part, faults)
        return written

    def _blame(self, case: Case, outcome: Outcome, error: Exception, faults: EventFaults) -> None:
        """The database refuses an outcome: its mail is at fault. Of several mails, decide them one by one next time."""
        execution_id = case.execution.execution_id
        if len(outcome.taken) == 1:
            faults[execution_id] = EventFault([outcome.taken[0].mail], error)
        else:
            faults.pop(execution_id, None)
            self.quarantine.one_by_one.add(execution_id)

    async def _write_all(self, connection: Connection, outcomes: Outcomes) -> None:
        columns = Columns()
        for case, outcome in outcomes:
            turn_rows.add_turns(columns, case, outcome)
        if columns.timers:
            self.timer_seconds = min(columns.timer_seconds, default=None)
        if outcomes:
            self.wrote_mail |= columns.has_family or bool(columns.rows.get("write_posts")) or bool(columns.slots)
            await write_columns(connection, columns, max_gathered_bytes=self.max_gathered_bytes)
            self.admits |= columns.admits

    async def _decide(self, connection: Connection, cases: list[Case], faults: EventFaults) -> Outcomes:
        """The outcome of each case. An execution whose decision raises is a fault, and is left out."""
        outcomes: Outcomes = []
        one_by_one = self.quarantine.one_by_one
        cases = [limit_mail(case, max_mail=1 if case.execution.execution_id in one_by_one else None) for case in cases]
        event_ids = {
            (case.execution.execution_id, case.execution.turn + index): mail.event_id
            for case in cases
            for index, mail in enumerate(case.mail, 1)
        }
        wants = expected_wants(cases)
        pending = [Decider(case) for case in cases]
        for _ in range(MAX_LOADS):
            if wants:
                answers = await load_answers(connection, wants, event_ids=event_ids, granted=self.granted)
                self.busy.update(wants_slots(wants) - answers.keys())
                pending = [decider for decider in pending if decider.add_answers(answers, wants)]
            pending, wants = self._decide_pending(pending, outcomes, faults)
            if not pending:
                return outcomes
        endless = BrokerError("the decision never stops asking for results")
        for decider in pending:
            _add_fault(decider, endless, outcomes, faults)
        return outcomes

    def _decide_pending(
        self, pending: list[Decider], outcomes: Outcomes, faults: EventFaults
    ) -> tuple[list[Decider], Wants]:
        """Decide what can be decided; returns the deciders that need values, none when the time is over."""
        waiting: list[Decider] = []
        wants: Wants = {}
        # Reading the thread's clock is a system call. It cannot run out before the wall clock does.
        soonest, until = time.perf_counter() + self.decide_seconds_left, time.thread_time() + self.decide_seconds_left
        for decider in pending:
            is_over = self.chars_left < 0 or (time.perf_counter() > soonest and time.thread_time() > until)
            if is_over and (outcomes or waiting):
                break
            try:
                outcomes.append((decider.case, decider.run(until=until, max_chars=self.chars_left)))
                self.chars_left -= decider.chars
            except NotLoaded as missing:
                wants[decider.case.execution.execution_id] = missing.wants
                waiting.append(decider)
            except Exception as error:  # noqa: BLE001 - a fault of one execution must not end the batch
                _add_fault(decider, error, outcomes, faults)
        self.decide_seconds_left = until - time.thread_time()  # loading does not count
        is_over = self.chars_left < 0 or self.decide_seconds_left < 0
        return ([], {}) if outcomes and is_over else (waiting, wants)

    def _count(self, outcomes: Outcomes, faults: EventFaults) -> None:
        metrics = self.metrics
        turns = sum(len(outcome.taken) for _, outcome in outcomes)
        set_aside = sum(len(fault.mail) for fault in faults.values())
        self.decided = turns + set_aside
        metrics.add(BATCHES)
        metrics.largest_batch = max(metrics.largest_batch, turns)
        metrics.add(SET_ASIDE, set_aside)
        claim_ms = round(self.claim_seconds * 1000, 3)
        log.debug("batch", executions=len(outcomes), turns=turns, set_aside=set_aside, claim_ms=claim_ms)
        for execution_id, fault in faults.items():
            log.error(
                "a decision failed; its mail is set aside",
                execution_id=execution_id,
                reason=reason_of(fault.error),
                **event_fields(fault.mail),
                exc_info=trace_of(fault.error),
            )
        if self.tracer is not None:
            self.tracer.record(outcomes)
        metrics.observe(CLAIM_TIME, self.claim_seconds)
        metrics.observe(EVALUATION_TIME, DECIDE_SECONDS - self.decide_seconds_left)
        for case, outcome in outcomes:
            metrics.count_turns(outcome.taken)
            if metrics.patterns:
                metrics.count_path(case.execution.path, outcome.taken)
            _log_turns(case, outcome)


def _log_turns(case: Case, outcome: Outcome) -> None:
    """Log each end, and each event that its sender may expect to change something and that did not."""
    for taken in outcome.taken:
        decision = taken.decision
        if decision.ended is not None:
            fields = {"execution_id": case.execution.execution_id, "path": case.execution.path}
            if decision.ended.error is not None:
                fields |= event_fields([taken.mail])
            log.info("execution ended", status=decision.ended.status, turn=taken.turn.number, **fields)
        elif decision.outcome in {"unknown_type", "unknown_execution", "unknown_step", "not_open"}:
            log.warning(
                "event ignored",
                reason=decision.outcome,
                event_type=taken.mail.event.type,
                execution_id=case.execution.execution_id,
                event_id=taken.mail.event_id,
                **event_fields([taken.mail]),
            )
        if decision.note:
            fields = {"execution_id": case.execution.execution_id, **event_fields([taken.mail])}
            log.warning("turn noted", note=decision.note, **fields)


def event_fields(mail: Sequence[Mail]) -> dict[str, Any]:
    """The step, visit, item and attempt of the first event, for a line of the log.

    Fields that the event does not name are left out.
    """
    if not mail:
        return {}
    event = mail[0].event
    fields = {"step": event.step, "visit": event.visit, "item": event.item_index, "attempt": event.attempt or None}
    return {name: value for name, value in fields.items() if value is not None}


def _add_fault(decider: Decider, error: Exception, outcomes: Outcomes, faults: EventFaults) -> None:
    """Add the mail that could not be decided to the faults. Turns before it stand; mail after it stays in the inbox.

    After a start that cannot be decided there is no execution, so all its mail goes with it.
    """
    case, outcome = decider.case, decider.outcome
    rest = case.mail[len(outcome.taken) :]
    if outcome.taken:
        outcomes.append((case, outcome))
    if outcome.taken or case.execution.turn:
        rest = rest[:1]
    faults[case.execution.execution_id] = EventFault(rest, error)

"""One batch of turns over many executions: lock, load, take turns, save."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from noetl_broker.broker.model import Rules
from noetl_broker.daemon.apart import AGAIN_MILLISECONDS, LOCK_MILLISECONDS, MOST_LOCKS, Apart, Fault, Faults, Outcomes
from noetl_broker.daemon.counters import Counters
from noetl_broker.daemon.deciding import Deciding, bounded, foreseen
from noetl_broker.daemon.playbooks import Playbooks
from noetl_broker.daemon.tracer import Tracer
from noetl_broker.errors import BrokerError
from noetl_broker.store import unit
from noetl_broker.store.columns import Columns
from noetl_broker.store.faults import is_held, is_of_the_mail, reason_of, trace_of
from noetl_broker.store.pool import Connection, transaction
from noetl_broker.store.rows import Case, Mail, Outcome, open_case
from noetl_broker.template.scope import NotLoaded

log = structlog.get_logger(__name__)

MOST_LOADS = 1000  # rounds of loading; a template names what it reads, so more than a few are a fault of ours
# Deciding takes microseconds; a template may take a tenth of a second. After so much of the processor's time a batch
# writes what it has, and the rest of its mail is claimed again: an execution may wait for one costly decision of
# another, never for hundreds.
PATIENCE_SECONDS = 0.05
MOST_CHARS = 8_388_608  # of what templates gave, after which a batch writes what it has


class Batch:
    """One transaction; what it claimed is kept, so that whoever catches its fault knows whose mail it was."""

    def __init__(
        self,
        rules: Rules,
        playbooks: Playbooks,
        counters: Counters,
        *,
        max_gathered_bytes: int,
        careful: bool = False,
        apart: Apart | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """A batch that has claimed nothing; `rules` for executions that start in it; `careful` as in `_write`.

        Executions of which the database refuses what is written, or somebody holds a row, are found out for `apart`.
        """
        self.max_gathered_bytes = max_gathered_bytes
        self.careful = careful
        self.apart = Apart() if apart is None else apart
        self.rules = rules
        self.playbooks = playbooks
        self.counters = counters
        self.tracer = tracer
        self.claimed: dict[int, list[Mail]] = {}
        self.look = unit.Look(0, newest=False)
        self.first: int | None = None  # mail that it came upon, whether it could have it or not
        self.look_seconds = 0.0  # that it took to come upon it
        self.patience = PATIENCE_SECONDS
        self.compile_patience = PATIENCE_SECONDS  # to wait for playbooks that nobody has compiled yet
        self.room = MOST_CHARS
        self.left_out = 0  # mails of executions that are held, or whose playbook is being compiled
        self.locks = 0  # not had
        self.taken = 0  # mails decided on or set aside; the rest of what was claimed is left
        self.posted = False  # whether it wrote mail itself

    @property
    def mails(self) -> int:
        """How many mails the batch holds."""
        return sum(map(len, self.claimed.values()))

    async def run(
        self,
        connection: Connection,
        *,
        size: int,
        look: unit.Look,
        quiet: bool = False,
        on_claim: Callable[[unit.Claim, float], object] | None = None,
    ) -> unit.Claim:
        """Claim, decide, write, commit; the claim says whether there was anything.

        `quiet`: notify nobody. `on_claim` is told what was claimed, and how many seconds that took, before all else.
        """
        self.look = look
        async with transaction(connection):
            if self.apart.is_wary:
                await unit.wait_at_most(connection, LOCK_MILLISECONDS)
            began = time.monotonic()
            claim = await unit.take(connection, look, max_mail=size)
            self.left_out = self.apart.leave_out(claim)
            self.first, self.look_seconds = claim.first_mail_id, time.monotonic() - began
            if on_claim is not None:
                on_claim(claim, self.look_seconds)
            if not claim.mail:
                return claim
            self.claimed = claim.mail
            faults: Faults = {}
            cases = await self._open(connection, claim, faults)
            if look.newest:
                cases.reverse()  # what is new comes first, so that patience does not run out before it
            outcomes = await self._decide(connection, cases, faults)
            if quiet:
                await unit.keep_quiet(connection)
            outcomes, suspects = self.apart.parted(outcomes)
            outcomes = await self._write(connection, outcomes, faults)
            if suspects:
                await unit.wait_at_most(connection, AGAIN_MILLISECONDS)
                outcomes += await self._write_parts(connection, suspects, faults)
            self.left_out += self.apart.leave_out(claim)
            for fault in faults.values():
                await unit.set_aside(connection, fault.mail, reason_of(fault.error))
        self.counters.transaction.observe(time.monotonic() - began)
        self.apart.forget(outcomes)
        self._count(outcomes, faults)
        return claim

    async def _open(self, connection: Connection, claim: unit.Claim, faults: Faults) -> list[Case]:
        """Each execution with its playbook, its state and its rules; one that cannot be read is a fault.

        Where the playbook is still being compiled, the mail of the execution is left for another batch.
        """
        cases = []
        for execution_id, execution in [*claim.executions.items()]:
            try:
                began = time.monotonic()
                playbook = await self.playbooks.of(connection, execution, self.compile_patience)
                self.compile_patience -= time.monotonic() - began
                if playbook is None:
                    self.left_out += claim.leave(execution_id)
                    continue
                cases.append(open_case(execution, claim.mail[execution_id], playbook, self.rules))
            except Exception as error:
                if not is_of_the_mail(error):
                    raise
                faults[execution_id] = Fault(claim.mail[execution_id], error)
        return cases

    async def _write(self, connection: Connection, outcomes: Outcomes, faults: Faults) -> Outcomes:
        """Write what can be written; gives what was written.

        Where it is careful, that is halved until what the database refuses, or somebody holds, stands alone: a fault,
        whose mail is still locked, so that nobody else stumbles over it, or what is left for a while. Not by default:
        mail that is locked before a savepoint and deleted after it costs the server a list of both, and every later
        claim a look into that. Nor where the batch holds one execution alone: whoever catches it knows whose it is.
        """
        careful = self.careful and len(self.claimed) > 1
        try:
            if careful:
                await unit.mark(connection)
            await self._write_all(connection, outcomes)
        except Exception as error:
            locked = is_held(error)
            if not careful or unit.is_lost_race(error) or not (locked or is_of_the_mail(error)):
                raise
            await unit.return_to_mark(connection)
            self.locks += locked
            if len(outcomes) > 1:
                middle = len(outcomes) // 2
                halves = [outcomes[:middle], outcomes[middle:]]
                if locked:
                    halves.reverse()  # what is held is soon old
                return await self._write_parts(connection, halves, faults)
            if locked:
                self.apart.leave(outcomes[0][0].execution.execution_id)
            else:
                self._blame(*outcomes[0], error, faults)
            return []
        return outcomes

    async def _write_parts(self, connection: Connection, parts: list[Outcomes], faults: Faults) -> Outcomes:
        """One after the other; after too many waits in vain the rest is left to another batch."""
        written: Outcomes = []
        for part in parts:
            if self.locks < MOST_LOCKS or part is parts[0]:
                written += await self._write(connection, part, faults)
        return written

    def _blame(self, case: Case, outcome: Outcome, error: Exception, faults: Faults) -> None:
        """The database refuses what follows from an execution's mail; which of several it is, is found out singly."""
        execution_id = case.execution.execution_id
        if len(outcome.taken) == 1:
            faults[execution_id] = Fault([outcome.taken[0].mail], error)
        else:
            faults.pop(execution_id, None)  # it is decided on again
            self.apart.singly.add(execution_id)

    async def _write_all(self, connection: Connection, outcomes: Outcomes) -> None:
        columns = Columns()
        for case, outcome in outcomes:
            columns.add(case, outcome)
        if outcomes:
            self.posted |= columns.has_family or bool(columns.posts)
            await unit.write(connection, columns, max_gathered_bytes=self.max_gathered_bytes)

    async def _decide(self, connection: Connection, cases: list[Case], faults: Faults) -> Outcomes:
        """The outcome of each case; an execution whose decision raises is left out, and is a fault."""
        outcomes: Outcomes = []
        cases = [bounded(case, most=1 if case.execution.execution_id in self.apart.singly else None) for case in cases]
        event_ids = {
            (case.execution.execution_id, case.execution.turn + place): mail.event_id
            for case in cases
            for place, mail in enumerate(case.mail, 1)
        }
        wants = foreseen(cases)
        pending = [Deciding(case) for case in cases]
        for _ in range(MOST_LOADS):
            if wants:
                answers = await unit.load(connection, wants, event_ids=event_ids)
                pending = [deciding for deciding in pending if deciding.tell(answers, wants)]
            pending, wants = self._decide_once(pending, outcomes, faults)
            if not pending:
                return outcomes
        never = BrokerError("the decision never stops asking for results")
        for deciding in pending:
            _set_apart(deciding, never, outcomes, faults)
        return outcomes

    def _decide_once(
        self, pending: list[Deciding], outcomes: Outcomes, faults: Faults
    ) -> tuple[list[Deciding], unit.Wants]:
        """Decide what can be decided; gives those that wait for results, none where there is no more time."""
        again: list[Deciding] = []
        wants: unit.Wants = {}
        # To look at the thread's own clock is a call of the system; it cannot be over before the clock on the wall.
        soonest, until = time.perf_counter() + self.patience, time.thread_time() + self.patience
        for deciding in pending:
            over = self.room < 0 or (time.perf_counter() > soonest and time.thread_time() > until)
            if over and (outcomes or again):
                break
            execution_id = deciding.case.execution.execution_id
            try:
                outcomes.append((deciding.case, deciding.go_on(until=until, room=self.room)))
                self.room -= deciding.chars
            except NotLoaded as missing:
                wants[execution_id] = missing.wants
                again.append(deciding)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this execution's alone
                _set_apart(deciding, error, outcomes, faults)
        self.patience = until - time.thread_time()  # what is loaded in between does not count
        return ([], {}) if outcomes and (self.room < 0 or self.patience < 0) else (again, wants)

    def _count(self, outcomes: Outcomes, faults: Faults) -> None:
        counters = self.counters
        turns = sum(len(outcome.taken) for _, outcome in outcomes)
        set_aside = sum(len(fault.mail) for fault in faults.values())
        self.taken = turns + set_aside
        counters.batches += 1
        counters.turns += turns
        counters.largest_batch = max(counters.largest_batch, turns)
        counters.set_aside += set_aside
        claim_ms = round(self.look_seconds * 1000, 3)
        log.debug("batch", executions=len(outcomes), turns=turns, set_aside=set_aside, claim_ms=claim_ms)
        for execution_id, fault in faults.items():
            log.error(
                "a decision failed; its mail is set aside",
                execution_id=execution_id,
                reason=reason_of(fault.error),
                exc_info=trace_of(fault.error),
            )
        if self.tracer is not None:
            self.tracer.note(outcomes)
        counters.claim.observe(self.look_seconds)
        counters.evaluation.observe(PATIENCE_SECONDS - self.patience)
        for case, outcome in outcomes:
            counters.tell_turns(outcome.taken)
            _report(case, outcome)


def _report(case: Case, outcome: Outcome) -> None:
    """One line for each event that changed nothing though its sender meant something, and for each end."""
    for taken in outcome.taken:
        decision = taken.decision
        if decision.ended is not None:
            counts = {"execution_id": case.execution.execution_id, "path": case.execution.path}
            log.info("execution ended", status=decision.ended.status, turn=taken.turn.number, **counts)
        elif decision.outcome in {"unknown_type", "unknown_execution", "unknown_step", "not_open"}:
            log.warning(
                "event ignored",
                reason=decision.outcome,
                event_type=taken.mail.event.type,
                execution_id=case.execution.execution_id,
                event_id=taken.mail.event_id,
            )
        if decision.note:
            log.warning("turn noted", note=decision.note, execution_id=case.execution.execution_id)


def _set_apart(deciding: Deciding, error: Exception, outcomes: Outcomes, faults: Faults) -> None:
    """The mail on which nobody can decide; turns before it stand, and what came after it is left to another batch.

    What came with a start that cannot be decided on is about an execution that there is not yet: it stays with it.
    """
    case, outcome = deciding.case, deciding.so_far
    rest = case.mail[len(outcome.taken) :]
    if outcome.taken:
        outcomes.append((case, outcome))
    if outcome.taken or case.execution.turn:
        rest = rest[:1]
    faults[case.execution.execution_id] = Fault(rest, error)

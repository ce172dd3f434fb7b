"""Checks the invariants of the tables in one snapshot, while brokers work.

Each check is a statement with one row for each fault. It must hold between any two commits. So an event without a turn
is no fault while its mail is unread. An unfinished visit is no fault while its job is open. Executions are checked in
pages, so each statement is short.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from noetl_broker.errors import BrokerError, ErasedFault, NotFoundFault
from noetl_broker.history.replay import replay_history, sentences
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.archive import archived_fault
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.history import load_history
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

IDS_AT_ONCE = 10_000
PAGE_EXECUTIONS = 5_000
PAGE_TURNS = 20_000  # a page ends with the execution that exceeds this; a turn has about four events
SILENCE_SECONDS = 300.0  # after which unread mail is a fault
BEFORE_ALL_IDS = -(2**63)
EVERYTHING = ("verify_everything", "verify_without_row")

Over = Literal["requested", "running", "mail"]


class Check(NamedTuple):
    """One check of an invariant: the statement returns a row for each fault.

    `over`: the executions that were requested, all running ones, or the mail. Without a statement, a replay decides.
    """

    invariant: str
    statement: str | None
    sentence: str
    over: Over = "requested"


CHECKS = (
    Check("I1", "verify_turns", "each event that asks for a decision has one turn, or is in the inbox"),
    Check("I1", "verify_ends_of_visits", "each visit whose action ended has one end event"),
    Check("I2", "verify_jobs", "each job has a started visit, and each visit has a job or an end"),
    Check("I2", "verify_cancelled_visits", "a cancelled visit has no open job and no running child"),
    Check(
        "I2",
        "verify_visits",
        "each open visit has an open job, a timer, a wait, or an answer to read",
        "running",
    ),
    Check("I2", "verify_waits", "each open wait has a visit, and each timer somebody who waits for it"),
    Check("I3", "verify_ends", "an ended execution has one end event; a running one has none"),
    Check("I3", "verify_standstill", "each running execution has a job, a child, a timer, a wait or mail", "running"),
    Check("I3", "verify_slots", "each execution that waits for a slot has a number, and the slot is not free"),
    Check("I3", "verify_held_jobs", "no job waits for a slot of a throttle that is free"),
    Check("I4", "verify_after_end", "no event after the end changes an execution"),
    Check("I5", "verify_mail", "no decided event is still in the inbox"),
    Check("I5", "verify_signals", "each signal that fits a wait is on its way, and comes once"),
    Check("I5", "verify_silence", "no mail or timer waits for a broker", "mail"),
    Check("I5", "verify_schedules", "no schedule waits for a broker, and each declared one is in its playbook", "mail"),
    Check("I6", "verify_rows", "each decided execution has its row"),
    Check("I6", "verify_items", "the status of each item agrees with its events"),
    Check("I6", "verify_undos", "what is to be undone agrees with the events, and each undo ended once"),
    Check("I7", "verify_turn_numbers", "the turn numbers of an execution have no gap"),
    Check("I8", "verify_causes", "the parent of each event exists and is earlier"),
    Check("I9", "verify_answers", "each attempt of a job ended once"),
    Check("I10", "verify_limits", "visits and open jobs are within their limits"),
    Check("I10", "verify_logs", "the log of an attempt is within its limits, and its job exists"),
    Check("I11", "verify_transactions", "all events of a turn were written in its transaction"),
    Check("I13", "verify_joins", "no transition led to more visits than it was taken"),
)
TABLES = Check("I6", None, "replayed turns give the rows of the execution")
TURNS = Check("I12", None, "a replay of each turn and condition decides the same")


class Violation(NamedTuple):
    """One violation of a check; `execution_id` is None if it concerns no execution."""

    execution_id: int | None
    detail: str


@dataclass(slots=True)
class Verdict:
    """The result of a check: the number of faults, and the first `most` of them (None: all)."""

    check: Check
    most: int | None
    broken: int = 0
    examples: list[Violation] = field(default_factory=list)

    def add(self, faults: Iterable[Violation]) -> None:
        """Count faults, and keep the first as examples."""
        for fault in faults:
            self.broken += 1
            if self.most is None or len(self.examples) < self.most:
                self.examples.append(fault)


class VerifyScope(NamedTuple):
    """What is checked: one execution with its children, those of a filter, or all."""

    execution_id: int | None = None
    which: Filter = Filter()


class VerifyReport(NamedTuple):
    """The verdicts; `executions` had their history checked, `running` their next move."""

    executions: int
    running: int
    verdicts: list[Verdict]

    @property
    def broken(self) -> int:
        """The number of faults of all checks."""
        return sum(verdict.broken for verdict in self.verdicts)


class Sized(NamedTuple):
    """An execution, and the number of its turns."""

    execution_id: int
    turns: int


ReplayDifferences = tuple[list[str], list[str]]  # how the rows differ that are rewritten, and how the turns do


async def verify(
    connection: Connection, scope: VerifyScope, *, examples: int | None = None, deep: PlaybookRules | None = None
) -> VerifyReport:
    """Run every check in one snapshot; `deep` (the rules of playbooks) adds those that replay the turns.

    At most `examples` faults of each check are kept (None: all). Raises NotFoundFault if the one execution of the scope
    does not exist.
    """
    checks = CHECKS if deep is None else (*CHECKS, TABLES, TURNS)
    verdicts = {check: Verdict(check, examples) for check in checks}
    executions = running = 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        requested = await _requested_ids(connection, scope)
        await connection.fetch(sql("verify_by_hash"))
        for statement in EVERYTHING if requested is None else EVERYTHING[:1]:
            async for page in _pages(connection, statement, requested):
                executions += len(page)
                await _check(connection, verdicts, "requested", page)
        only = [one.execution_id for one in requested or ()] if scope.execution_id is not None else None
        async for page in _pages(connection, "verify_running", await _running_executions(connection, requested, only)):
            running += len(page)
            await _check(connection, verdicts, "running", page)
        await _check(connection, verdicts, "mail", SILENCE_SECONDS, only)
        if deep is not None:
            await connection.fetch(sql("verify_one_by_one"))
            async for page in _pages(connection, "verify_everything", requested):
                await _check_deep(connection, verdicts, page, deep)
    return VerifyReport(executions, running, [*verdicts.values()])


async def _requested_ids(connection: Connection, scope: VerifyScope) -> list[Sized] | None:
    """The executions of the scope; None: all."""
    if scope.execution_id is not None:
        family = await connection.fetch(sql("verify_family"), scope.execution_id)
        if not family:
            raise await archived_fault(connection, scope.execution_id) or NotFoundFault(
                f"no execution {scope.execution_id}; noetl-broker executions lists them"
            )
        return [Sized(*row) for row in family]
    if scope.which != Filter():
        return [Sized(*row) for row in await connection.fetch(*scope.which.call("verify_changed"))]
    return None


async def _running_executions(
    connection: Connection, requested: list[Sized] | None, only: list[int] | None
) -> list[Sized] | None:
    """The running ones of `only`; None: all running ones, without one family in the scope."""
    if only is None:
        return None
    running = {row["execution_id"] for row in await connection.fetch(sql("verify_running_of"), only)}
    return [one for one in requested or () if one.execution_id in running]


async def _pages(connection: Connection, statement: str, requested: list[Sized] | None) -> AsyncIterator[list[int]]:
    """Pages of execution ids: those requested, or those that the statement returns."""
    if requested is not None:
        for page in _split_by_turns(requested):
            yield page
        return
    last = BEFORE_ALL_IDS
    while found := [Sized(*row) for row in await connection.fetch(sql(statement), last, IDS_AT_ONCE)]:
        for page in _split_by_turns(found):
            yield page
        last = found[-1].execution_id


def _split_by_turns(found: list[Sized]) -> Iterator[list[int]]:
    """Pages of about the same number of turns: executions differ in size."""
    page: list[int] = []
    turns = 0
    for execution_id, size in found:
        page.append(execution_id)
        turns += size
        if turns >= PAGE_TURNS or len(page) == PAGE_EXECUTIONS:
            yield page
            page, turns = [], 0
    if page:
        yield page


async def _check(connection: Connection, verdicts: dict[Check, Verdict], over: Over, *arguments: object) -> None:
    """Run the checks of one scope."""
    for check, verdict in verdicts.items():
        if check.over == over and check.statement is not None:
            verdict.add(Violation(*row) for row in await connection.fetch(sql(check.statement), *arguments))


async def _check_deep(
    connection: Connection, verdicts: dict[Check, Verdict], page: list[int], rules: PlaybookRules
) -> None:
    """Replay the turns of a page's executions, one by one."""
    for execution_id in page:
        tables, turns = await _replay_turns(connection, execution_id, rules)
        for check, differences in ((TABLES, tables), (TURNS, turns)):
            if differences:
                more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
                verdicts[check].add([Violation(execution_id, differences[0] + more)])


async def _replay_turns(connection: Connection, execution_id: int, rules: PlaybookRules) -> ReplayDifferences:
    try:
        history = await load_history(connection, execution_id, rules)
    except (NotFoundFault, ErasedFault):
        return [], []  # it has no turns yet, or no values
    try:
        _, found = replay_history(history)
    except BrokerError as fault:
        return [], [f"its turns cannot be replayed: {fault}"]
    tables = [difference for difference in found if difference.turn is None]
    turns = [difference for difference in found if difference.turn is not None]
    return sentences(tables), sentences(turns)

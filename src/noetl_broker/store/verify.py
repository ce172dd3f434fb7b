"""Whether what must always hold does hold: the invariants of the tables, asked in one snapshot of a database at work.

Each check is a statement that gives one row for each fault. It must be true at any moment, between any two commits:
an event without a turn is no fault while its mail lies unread, and a visit without an end is none while its job is
open. The executions are looked at a page at a time, so that no statement is long, however much there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from noetl_broker.broker.replay import compare_end, retake
from noetl_broker.errors import BrokerError, NotFoundFault
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.archive import archived_fault
from noetl_broker.store.history import load_history
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql

IDS_AT_ONCE = 10_000
PAGE_EXECUTIONS = 5_000
PAGE_TURNS = 20_000  # a page ends with the execution that brings it past this; a turn goes with about four events
SILENCE_SECONDS = 300.0  # after which mail that nobody reads is a fault
BEFORE_ALL_IDS = -(2**63)
EVERYTHING = ("verify_everything", "verify_without_row")

Over = Literal["asked", "running", "mail"]


class Check(NamedTuple):
    """What must hold, by its name in the specification, and the statement that gives a row for each fault.

    `over` says where: in the executions that were asked for, in all that run, or in the mail. Without a statement it is
    the core that tells.
    """

    invariant: str
    statement: str | None
    sentence: str
    over: Over = "asked"


CHECKS = (
    Check("I1", "verify_turns", "each event that asks for a decision has one turn, or is unread mail"),
    Check("I1", "verify_ends_of_visits", "each visit whose action ended has one end"),
    Check("I2", "verify_jobs", "each job has the event that began its visit, each visit a job or an end"),
    Check("I2", "verify_visits", "each live visit has an open job, or its answer is unread mail", "running"),
    Check("I3", "verify_ends", "an execution has one end event when it has ended, else none"),
    Check("I3", "verify_standstill", "each execution that runs has something that can move it", "running"),
    Check("I4", "verify_after_end", "nothing after the end of an execution changes anything"),
    Check("I5", "verify_mail", "no mail is left of an event that was read"),
    Check("I5", "verify_silence", "no mail waits while nobody reads any", "mail"),
    Check("I6", "verify_rows", "each execution that was decided on has its row"),
    Check("I6", "verify_items", "each item of an iterator stands where its events say"),
    Check("I7", "verify_turn_numbers", "the turns of an execution are numbered without a gap"),
    Check("I8", "verify_causes", "the parent of an event is there and came before it"),
    Check("I9", "verify_answers", "an attempt of a job ended once"),
    Check("I10", "verify_limits", "visits and open jobs are within their limits"),
    Check("I11", "verify_transactions", "all events of a turn were written in its transaction"),
    Check("I13", "verify_joins", "no step was entered over an arc more often than the arc was taken"),
)
TABLES = Check("I6", None, "the rows of an execution are what its turns, taken again, come to")
TURNS = Check("I12", None, "each turn decides the same when it is taken again, and each condition with it")


class Fault(NamedTuple):
    """One place where a check does not hold."""

    execution_id: int
    detail: str


@dataclass(slots=True)
class Verdict:
    """What a check came to: how many faults, and the first of them (`most` at most; None: all)."""

    check: Check
    most: int | None
    broken: int = 0
    examples: list[Fault] = field(default_factory=list)

    def add(self, faults: Iterable[Fault]) -> None:
        """Count faults, and keep them as examples while there is room."""
        for fault in faults:
            self.broken += 1
            if self.most is None or len(self.examples) < self.most:
                self.examples.append(fault)


class Scope(NamedTuple):
    """Whose history is looked at: one execution with its children, those changed in so many seconds, or all."""

    execution_id: int | None = None
    since_seconds: float | None = None


class Report(NamedTuple):
    """What was found; `executions` had their history looked at, `running` their next move."""

    executions: int
    running: int
    verdicts: list[Verdict]

    @property
    def broken(self) -> int:
        """The faults of all checks together."""
        return sum(verdict.broken for verdict in self.verdicts)


class Sized(NamedTuple):
    """An execution, and how much of it there is."""

    execution_id: int
    turns: int


Retaken = tuple[list[str], list[str]]  # how the rows differ that are rewritten, and how the turns do


async def verify(
    connection: Connection, scope: Scope, *, examples: int | None = None, deep: PlaybookRules | None = None
) -> Report:
    """Run every check in one snapshot; `deep` (what playbooks may hold) adds those that take the turns again.

    At most `examples` of each check's faults are kept (None: all). Raises NotFoundFault where the one execution that is
    asked for does not exist.
    """
    checks = CHECKS if deep is None else (*CHECKS, TABLES, TURNS)
    verdicts = {check: Verdict(check, examples) for check in checks}
    executions = running = 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        asked = await _asked(connection, scope)
        await connection.fetch(sql("verify_by_hash"))
        for statement in EVERYTHING if asked is None else EVERYTHING[:1]:
            async for page in _pages(connection, statement, asked):
                executions += len(page)
                await _check(connection, verdicts, "asked", page)
        only = [one.execution_id for one in asked or ()] if scope.execution_id is not None else None
        async for page in _pages(connection, "verify_running", await _that_run(connection, asked, only)):
            running += len(page)
            await _check(connection, verdicts, "running", page)
        await _check(connection, verdicts, "mail", SILENCE_SECONDS, only)
        if deep is not None:
            await connection.fetch(sql("verify_one_by_one"))
            async for page in _pages(connection, "verify_everything", asked):
                await _check_deep(connection, verdicts, page, deep)
    return Report(executions, running, [*verdicts.values()])


async def _asked(connection: Connection, scope: Scope) -> list[Sized] | None:
    """The executions that the scope names; None: all there are."""
    if scope.execution_id is not None:
        family = await connection.fetch(sql("verify_family"), scope.execution_id)
        if not family:
            raise await archived_fault(connection, scope.execution_id) or NotFoundFault(
                f"no execution {scope.execution_id}; noetl-broker executions lists them"
            )
        return [Sized(*row) for row in family]
    if scope.since_seconds is not None:
        return [Sized(*row) for row in await connection.fetch(sql("verify_changed"), scope.since_seconds)]
    return None


async def _that_run(connection: Connection, asked: list[Sized] | None, only: list[int] | None) -> list[Sized] | None:
    """Those of a family that run; None: all that run, where nobody asks for one family."""
    if only is None:
        return None
    running = {row["execution_id"] for row in await connection.fetch(sql("verify_running_of"), only)}
    return [one for one in asked or () if one.execution_id in running]


async def _pages(connection: Connection, statement: str, asked: list[Sized] | None) -> AsyncIterator[list[int]]:
    """Ids of executions by the page: of those asked for, or else of those that the statement gives."""
    if asked is not None:
        for page in _cut(asked):
            yield page
        return
    last = BEFORE_ALL_IDS
    while found := [Sized(*row) for row in await connection.fetch(sql(statement), last, IDS_AT_ONCE)]:
        for page in _cut(found):
            yield page
        last = found[-1].execution_id


def _cut(found: list[Sized]) -> Iterator[list[int]]:
    """Pages of about one size, by turns and not by executions: one may be as wide as thousands."""
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
    """Run the statements of one kind."""
    for check, verdict in verdicts.items():
        if check.over == over and check.statement is not None:
            verdict.add(Fault(*row) for row in await connection.fetch(sql(check.statement), *arguments))


async def _check_deep(
    connection: Connection, verdicts: dict[Check, Verdict], page: list[int], rules: PlaybookRules
) -> None:
    """Take the turns of a page's executions again, one execution after the other."""
    for execution_id in page:
        tables, turns = await _take_again(connection, execution_id, rules)
        for check, differences in ((TABLES, tables), (TURNS, turns)):
            if differences:
                more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
                verdicts[check].add([Fault(execution_id, differences[0] + more)])


async def _take_again(connection: Connection, execution_id: int, rules: PlaybookRules) -> Retaken:
    try:
        history = await load_history(connection, execution_id, rules)
    except NotFoundFault:
        return [], []  # nothing of it was read yet
    try:
        turns = [*retake(history)]
    except BrokerError as fault:
        return [], [f"its turns cannot be taken again: {fault}"]
    return compare_end(history, turns), [difference for turn in turns for difference in turn.differences]

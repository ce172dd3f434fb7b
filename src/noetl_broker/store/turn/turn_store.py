"""One transaction of the hot path: claim mail under locks, load what templates name, write everything or nothing.

Four round trips: begin, claim, write, commit. Changes of existing jobs, cancelled jobs, results to be loaded
and savepoints cost one more each. The transaction is READ COMMITTED, because the lock and the read under it must not
share a snapshot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from noetl_broker.broker.draft.known import Found, ItemState, UndoRow, result_of
from noetl_broker.broker.draft.wants import want_item_status
from noetl_broker.errors import BrokerError, OversizeFault
from noetl_broker.nodes import node_id, parse_node
from noetl_broker.store.connect.sqlstates import is_conflict, is_unreadable, reason_of
from noetl_broker.store.queries import sql
from noetl_broker.store.row_layout import columns_of
from noetl_broker.store.turn import places
from noetl_broker.store.turn.child_rows import child_answer_of_adopted
from noetl_broker.store.turn.claimed_rows import Execution, Mail, execution_of, mail_of
from noetl_broker.store.turn.columns import Columns
from noetl_broker.store.turn.effects import AFTER, BEFORE, Statement

if TYPE_CHECKING:
    from asyncpg import Record

    from noetl_broker.store.connect.connection import Connection

Want = tuple[object, ...]
Wants = dict[int, frozenset[Want]]  # by execution
Answers = dict[int, dict[Want, object]]  # by execution
TooLarge = set[int]  # executions whose answers do not fit beside those of the others


class ConflictFault(BrokerError):
    """Another broker has taken a turn of the same execution: roll back and claim again."""


def is_lost_race(error: BaseException) -> bool:
    """Whether a write failed because another broker was first."""
    return isinstance(error, ConflictFault) or is_conflict(error)


class ClaimStart(NamedTuple):
    """Where a claim begins: at a mail id, with the oldest or the newest mail first."""

    mail_id: int
    newest: bool


class Claim:
    """The result of one `take_mail`: the mail of each locked execution, and how much mail other brokers hold."""

    def __init__(self) -> None:
        """Nothing claimed yet."""
        self.mail: dict[int, list[Mail]] = defaultdict(list)
        self.executions: dict[int, Execution] = {}
        self.locked_elsewhere = 0
        self.first_mail_id: int | None = None  # also of mail that others hold
        self.last_mail_id = 0

    def leave(self, execution_id: int) -> int:
        """Leave the mail of an execution in the inbox, as if another broker held it; gives how much."""
        mails = len(self.mail.pop(execution_id))
        del self.executions[execution_id]
        self.locked_elsewhere += mails
        return mails

    @property
    def mails(self) -> int:
        """The number of mails that it found."""
        return sum(map(len, self.mail.values())) + self.locked_elsewhere


async def claim_mail(connection: Connection, start: ClaimStart, *, max_mail: int) -> Claim:
    """Claim up to `max_mail` events and lock their executions. Call it inside a transaction."""
    claim = Claim()
    rows = await connection.fetch(sql("take_mail"), max_mail, start.newest, start.mail_id)
    rows.sort(key=itemgetter("mail_id"))  # rows are wide: sorting here costs a tenth of sorting in SQL
    if rows:
        claim.first_mail_id, claim.last_mail_id = rows[0]["mail_id"], rows[-1]["mail_id"]
    for row in rows:
        if not row["locked"]:
            claim.locked_elsewhere += 1
            continue
        execution_id = row["execution_id"]
        if execution_id not in claim.executions:
            claim.executions[execution_id] = execution_of(row)
        claim.mail[execution_id].append(mail_of(row))
    return claim


class Content(NamedTuple):
    """The text of a catalog version (None: it is too large), its path, and its size."""

    text: str | None
    path: str
    size: int


async def load_content(connection: Connection, catalog_id: int, *, most_bytes: int) -> Content | None:
    """One catalog version, None if there is none. The text is None over `most_bytes`."""
    row = await connection.fetchrow(sql("load_content"), catalog_id, most_bytes)
    return Content(row["content"], row["path"], row["bytes"]) if row else None


async def load(
    connection: Connection,
    wants: Wants,
    *,
    event_ids: dict[tuple[int, int], int],
    granted: places.Granted | None = None,
) -> Answers:
    """Load what the core asks for, for all executions at once; `event_ids` has the events of unwritten turns.

    `granted`: the places that the batch was promised. The answers leave out executions that do not fit into this
    transaction, or whose places others have locked.
    """
    answers: Answers = {execution_id: {} for execution_id in wants}
    kinds: dict[str, list[tuple[int, Want]]] = defaultdict(list)
    results: list[tuple[int, Want]] = []
    for execution_id, wants_of_execution in wants.items():
        for want in wants_of_execution:
            (results if want[0] in {"step", "turn"} else kinds[str(want[0])]).append((execution_id, want))
    too_large = await _load_results(connection, results, answers, event_ids) if results else set()
    of_places = [want for kind in places.KINDS for want in kinds.pop(kind, ())] if kinds else []
    for kind, wants_of_kind in kinds.items():
        too_large |= await LOADERS[kind](connection, wants_of_kind, answers)
    if of_places:
        too_large |= await places.ask(connection, of_places, answers, places.Granted() if granted is None else granted)
    return {execution_id: answer for execution_id, answer in answers.items() if execution_id not in too_large}


async def write(connection: Connection, columns: Columns, *, max_gathered_bytes: int) -> None:
    """Write everything that the turns decided.

    Raises ConflictFault if another broker was first. Raises OversizeFault if it is too much for one statement: write
    fewer turns. `max_gathered_bytes` limits the gathered results of one iterator, uncompressed.
    """
    await _write(connection, BEFORE, columns, None)
    row = await _write_turns(connection, columns)
    for adoptions in columns.adoptions.values():  # each call sees the adoptions of the calls before
        ended = await connection.fetch(sql("adopt_children"), *columns_of(adoptions, 4))
        columns.child_answers += map(child_answer_of_adopted, ended)
    await _write(connection, AFTER, columns, row)
    if columns.places:
        columns.admits = await places.write_places(connection, columns.places)
    posts = columns.rows.get("write_posts")
    if posts:
        await connection.execute(sql("write_posts"), *columns_of(posts, 3), max_gathered_bytes)


async def _write(connection: Connection, statements: Iterable[Statement], columns: Columns, row: Record | None) -> None:
    """Run the statements that have something to write: few batches need one of them."""
    for statement in statements:
        arguments = statement.arguments(columns, row)
        if arguments is not None:
            await connection.execute(sql(statement.name), *arguments)


async def _write_turns(connection: Connection, columns: Columns) -> Record:
    try:
        statement = sql("write_first_turns" if columns.begun else "write_turns")
        row = await connection.fetchrow(statement, *columns.write_arguments())
    except asyncpg.ProgramLimitExceededError as error:
        # A jsonb holds 268 million bytes; several turns together may need more.
        raise OversizeFault(f"the turns are too large for one statement: {error}") from error
    if row is None:
        raise ConflictFault("write_turns returned no row")
    if (moved := row["moved"]) != columns.executions:
        message = f"{columns.executions - moved} of {columns.executions} executions were moved by another broker"
        raise ConflictFault(message)
    if row["ended"] != len(columns.ended):
        raise ConflictFault("an execution that ended has got a parent meanwhile")
    return row


async def set_savepoint(connection: Connection) -> None:
    """Set the savepoint: a write that fails after it can be undone without losing the locks."""
    await connection.execute(sql("set_savepoint"))


async def rollback_to_savepoint(connection: Connection) -> None:
    """Undo what was written since the savepoint."""
    await connection.execute(sql("rollback_to_savepoint"))


async def suppress_notifications(connection: Connection) -> None:
    """Send no notification from this transaction; workers and followers poll."""
    await connection.execute(sql("suppress_notifications"))


async def set_lock_timeout(connection: Connection, milliseconds: int) -> None:
    """Limit each lock wait of this transaction."""
    await connection.execute(sql("set_lock_timeout"), milliseconds)


async def move_to_dead_letters(connection: Connection, mail: list[Mail], reason: str) -> list[int]:
    """Move mail that is still in the inbox to the dead letters; gives the executions."""
    rows = await connection.fetch(sql("move_to_dead_letters"), [one.mail_id for one in mail], reason)
    return [row["execution_id"] for row in rows]


async def move_unreadable_to_dead_letters(connection: Connection, start: ClaimStart) -> list[int]:
    """Move the first mail of a claim to the dead letters if it cannot be read; gives the executions.

    The mail is claimed alone before. If another broker holds the mail that failed the claim, this finds the next mail.
    """
    mail_id = await connection.fetchval(sql("lock_newest_mail" if start.newest else "lock_oldest_mail"), start.mail_id)
    if mail_id is None:
        return []
    try:
        async with connection.transaction():
            await claim_mail(connection, ClaimStart(mail_id, newest=False), max_mail=1)
    except asyncpg.PostgresError as error:
        if not is_unreadable(error):
            raise
        rows = await connection.fetch(sql("move_to_dead_letters"), [mail_id], reason_of(error))
        return [row["execution_id"] for row in rows]
    return []


async def _load_results(
    connection: Connection, wants: list[tuple[int, Want]], answers: Answers, event_ids: dict[tuple[int, int], int]
) -> TooLarge:
    steps: list[tuple[int, object]] = []
    turns: list[tuple[int, object]] = []
    events: dict[tuple[int, int], Want] = {}
    for owner, want in wants:
        if want[0] == "step":
            answers[owner][want] = None  # unless it has one
            steps.append((owner, want[1]))
        elif (event_id := _event_of(owner, want, event_ids)) is None:
            turns.append((owner, want[1]))
        else:
            events[owner, event_id] = want
    rows = await connection.fetch(sql("load_results"), *_pairs(steps), *_pairs(turns), *_pairs(events))
    for row in rows:
        if not row["fits"]:
            continue
        answer, result = answers[row["execution_id"]], result_of(row["event_type"], row["result"], row["error"])
        if row["step_name"] is not None:
            answer["step", row["step_name"]] = Found(row["result_visit"], result)
        elif row["turn"] is not None:
            answer["turn", row["turn"]] = result
        else:
            answer[events[row["execution_id"], row["event_id"]]] = result
    return _too_large(rows)


def _event_of(owner: int, want: Want, event_ids: dict[tuple[int, int], int]) -> int | None:
    """The event with a result, if it is known: of an unwritten turn, or copied by a fork."""
    number = int(str(want[1]))
    return -number if number < 0 else event_ids.get((owner, number))


def _pairs(pairs: Iterable[tuple[object, object]]) -> tuple[list[object], list[object]]:
    firsts, seconds = [], []
    for first, second in pairs:
        firsts.append(first)
        seconds.append(second)
    return firsts, seconds


def _too_large(rows: list[Record]) -> TooLarge:
    return {row["execution_id"] for row in rows if not row["fits"]}


async def _load_workloads(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    rows = await connection.fetch(sql("load_workloads"), [owner for owner, _ in wants])
    for row in rows:
        answers[row["execution_id"]]["workload",] = row["workload"] or {}
    return _too_large(rows)


async def _load_actions(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The actions of the jobs of visits; an empty mapping without a job."""
    nodes = {(owner, node_id(owner, str(want[1]), int(str(want[2])))): (owner, want) for owner, want in wants}
    for owner, want in wants:
        answers[owner][want] = {}
    rows = await connection.fetch(sql("load_actions"), *map(list, zip(*nodes, strict=True)))
    for row in rows:
        owner, want = nodes[row["execution_id"], row["node_id"]]
        answers[owner][want] = row["action"]
    return _too_large(rows)


async def _load_items(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """Items of iterators, in their order."""
    nodes = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[3], w[4]) for owner, w in wants]
    rows = await connection.fetch(sql("load_items"), *map(list, zip(*nodes, strict=True)))
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["items", step, visit, row["first"], row["count"]] = row["items"]
    return _too_large(rows)


async def _load_item_statuses(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The statuses of items; None for an unknown item."""
    for owner, want in wants:
        answers[owner][want] = None
    nodes = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[3]) for owner, w in wants]
    for row in await connection.fetch(sql("load_item_statuses"), *map(list, zip(*nodes, strict=True))):
        step, visit, _ = parse_node(row["node_id"], None)
        stands = ItemState(row["status"], row["failures"], row["failed_attempt"], row["unsure"])
        answers[row["execution_id"]][want_item_status(step or "", visit or 1, row["index"])] = stands
    return set()


async def _load_open_items(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The indexes of the open items of iterators."""
    nodes = {(owner, node_id(owner, str(want[1]), int(str(want[2])))): (owner, want) for owner, want in wants}
    for row in await connection.fetch(sql("load_open_items"), *map(list, zip(*nodes, strict=True))):
        owner, want = nodes[row["execution_id"], row["node_id"]]
        answers[owner][want] = row["indexes"]
    return set()


async def _load_failed(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The failed items of iterators, each {index, error}."""
    nodes = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[1], w[2]) for owner, w in wants]
    rows = await connection.fetch(sql("load_failed"), *map(list, zip(*nodes, strict=True)))
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["failed", step, visit] = row["failed"]
    return _too_large(rows)


async def _load_children(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """Whether visits wait for these executions: True, or None."""
    for owner, want in wants:
        answers[owner][want] = None
    nodes = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[3]) for owner, w in wants]
    for row in await connection.fetch(sql("load_children"), *map(list, zip(*nodes, strict=True))):
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["child", step, visit, row["child_id"]] = True
    return set()


async def _load_signals(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The contexts of the events that brought signals."""
    turns = [(owner, want[1]) for owner, want in wants if int(str(want[1])) > 0]
    events = [(owner, -int(str(want[1]))) for owner, want in wants if int(str(want[1])) < 0]
    rows = await connection.fetch(sql("load_signals"), *_pairs(turns), *_pairs(events))
    for row in rows:
        number = -row["event_id"] if row["turn"] is None else row["turn"]
        answers[row["execution_id"]]["signal", number] = row["context"]
    return _too_large(rows)


async def _load_undos(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The rows that are to be undone next; None if there is none."""
    for owner, want in wants:
        answers[owner][want] = None
    rows = await connection.fetch(sql("load_undos"), *_pairs((owner, want[1]) for owner, want in wants))
    for row in rows:
        answers[row["execution_id"]]["undo", row["below"]] = UndoRow(
            row["step"],
            row["visit"],
            row["index"],
            row["turn"],
            row["child_execution_id"],
            row["inputs"],
            row["result"],
        )
    return _too_large(rows)


async def _load_item_actions(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The actions of the jobs of items."""
    nodes = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[3]) for owner, w in wants]
    rows = await connection.fetch(sql("load_item_actions"), *map(list, zip(*nodes, strict=True)))
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["item action", step, visit, row["index"]] = row["action"]
    return _too_large(rows)


async def _load_undone(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The statuses of rows of `noetl.undo`; None for none."""
    nodes = {(owner, _undone_node(owner, want)): (owner, want) for owner, want in wants}
    for owner, want in wants:
        answers[owner][want] = None
    for row in await connection.fetch(sql("load_undone"), *map(list, zip(*nodes, strict=True))):
        owner, want = nodes[row["execution_id"], row["node_id"]]
        answers[owner][want] = row["status"]
    return set()


async def _load_undo_actions(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The actions of undo jobs."""
    nodes = {(owner, _undone_node(owner, want, undo=True)): (owner, want) for owner, want in wants}
    rows = await connection.fetch(sql("load_actions"), *map(list, zip(*nodes, strict=True)))
    for row in rows:
        owner, want = nodes[row["execution_id"], row["node_id"]]
        answers[owner][want] = row["action"]
    return _too_large(rows)


def _undone_node(owner: int, want: Want, *, undo: bool = False) -> str:
    """The node of the visit or item that a want is about, or of its undo job."""
    step, visit, index = want[1:]
    return node_id(owner, str(step), int(str(visit)), index if isinstance(index, int) else None, undo=undo)


LOADERS: dict[str, Callable[[Connection, list[tuple[int, Want]], Answers], Awaitable[TooLarge]]] = {
    "workload": _load_workloads,
    "action": _load_actions,
    "items": _load_items,
    "item": _load_item_statuses,
    "open items": _load_open_items,
    "failed": _load_failed,
    "child": _load_children,
    "signal": _load_signals,
    "undo": _load_undos,
    "undone": _load_undone,
    "undo action": _load_undo_actions,
    "item action": _load_item_actions,
}

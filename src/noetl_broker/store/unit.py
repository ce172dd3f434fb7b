"""One transaction of the hot path: take mail under locks, load what is named, write everything, or nothing.

Four round trips: begin, take, write, commit; one more where executions start, where jobs that stand in the table
change or are withdrawn, where a template names a result that did not come along, and where it is written with care. The
transaction is READ COMMITTED, because the lock and what is read under it must not share a snapshot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from noetl_broker.broker.context import Found, result_of
from noetl_broker.errors import BrokerError, OversizeFault
from noetl_broker.store.columns import Columns
from noetl_broker.store.faults import is_conflict, is_unreadable, reason_of
from noetl_broker.store.queries import sql
from noetl_broker.store.rows import Execution, Mail, execution_of, mail_of, node_id, parse_node

if TYPE_CHECKING:
    from asyncpg import Record

    from noetl_broker.store.pool import Connection

Want = tuple[object, ...]
Wants = dict[int, frozenset[Want]]  # by execution
Answers = dict[int, dict[Want, object]]  # by execution
Left = set[int]  # executions whose answers would be too much beside those of the others


class ConflictFault(BrokerError):
    """Another broker has taken a turn of the same execution: roll back and look again."""


def is_lost_race(error: BaseException) -> bool:
    """Whether a write failed because another broker was first, which is nobody's fault."""
    return isinstance(error, ConflictFault) or is_conflict(error)


class Look(NamedTuple):
    """Which mail is looked for: from the one with the id `start` on, the oldest or the newest first."""

    start: int
    newest: bool


class Claim:
    """What one `take_mail` brought: the mail of each execution that is now locked, and how much others hold."""

    def __init__(self) -> None:
        """Nothing claimed yet."""
        self.mail: dict[int, list[Mail]] = defaultdict(list)
        self.executions: dict[int, Execution] = {}
        self.missed = 0
        self.first_mail_id: int | None = None  # of all that it came upon
        self.last_mail_id = 0

    def leave(self, execution_id: int) -> int:
        """Leave the mail of an execution in the inbox, as if another broker held it; gives how much."""
        mails = len(self.mail.pop(execution_id))
        del self.executions[execution_id]
        self.missed += mails
        return mails

    @property
    def mails(self) -> int:
        """How many mails it came upon."""
        return sum(map(len, self.mail.values())) + self.missed


async def take(connection: Connection, look: Look, *, max_mail: int) -> Claim:
    """Claim up to `max_mail` mails and lock their executions; call inside a transaction."""
    claim = Claim()
    rows = await connection.fetch(sql("take_mail"), max_mail, look.newest, look.start)
    rows.sort(key=itemgetter("mail_id"))  # wide rows: here it costs a tenth
    if rows:
        claim.first_mail_id, claim.last_mail_id = rows[0]["mail_id"], rows[-1]["mail_id"]
    for row in rows:
        if not row["locked"]:
            claim.missed += 1
            continue
        execution_id = row["execution_id"]
        if execution_id not in claim.executions:
            claim.executions[execution_id] = execution_of(row)
        claim.mail[execution_id].append(mail_of(row))
    return claim


async def load_content(
    connection: Connection, catalog_id: int, *, most_bytes: int
) -> tuple[str | None, str, int] | None:
    """The text, the path and the size of one catalog version; None when it is not there. No text: it has more bytes."""
    row = await connection.fetchrow(sql("load_content"), catalog_id, most_bytes)
    return (row["content"], row["path"], row["bytes"]) if row else None


async def load(connection: Connection, wants: Wants, *, event_ids: dict[tuple[int, int], int]) -> Answers:
    """Answer wishes of the core, all executions at once; `event_ids` names the events of turns not yet written.

    An execution whose answers would be too much beside those of the others has none: it is for another transaction.
    """
    answers: Answers = {execution_id: {} for execution_id in wants}
    kinds: dict[str, list[tuple[int, Want]]] = defaultdict(list)
    results: list[tuple[int, Want]] = []
    for execution_id, wishes in wants.items():
        for wish in wishes:
            (results if wish[0] in {"step", "turn"} else kinds[str(wish[0])]).append((execution_id, wish))
    left = await _load_results(connection, results, answers, event_ids) if results else set()
    for kind, wishes_of_kind in kinds.items():
        left |= await LOADERS[kind](connection, wishes_of_kind, answers)
    return {execution_id: answer for execution_id, answer in answers.items() if execution_id not in left}


async def write(connection: Connection, columns: Columns, *, max_gathered_bytes: int) -> None:
    """Write everything that the turns decided; raises ConflictFault where another broker was first.

    Raises OversizeFault where it is more than the server takes in one statement: fewer turns may pass.
    `max_gathered_bytes` bounds the results of one iterator together, uncompressed.
    """
    if columns.begun:
        await connection.execute(sql("begin_executions"), *columns.begin_arguments())
    if columns.changes:
        await connection.execute(sql("change_jobs"), *columns.job_change_arguments())
    if columns.withdrawn:
        await connection.execute(sql("withdraw_jobs"), *columns.withdrawal_arguments())
    row = await _write_turns(connection, columns)
    for arguments in columns.adoption_arguments():
        await connection.execute(sql("adopt_children"), *arguments)
    if columns.items:
        await connection.execute(sql("write_items"), *columns.item_arguments())
    if columns.item_changes:
        await connection.execute(sql("change_items"), *columns.item_change_arguments())
    if columns.has_family:
        child_ids = dict(zip(row["child_ordinals"] or (), row["child_ids"] or (), strict=True))
        await connection.execute(sql("write_family"), *columns.family_arguments(child_ids))
    if columns.posts:
        await connection.execute(sql("write_posts"), *columns.post_arguments(), max_gathered_bytes)


async def _write_turns(connection: Connection, columns: Columns) -> Record:
    try:
        row = await connection.fetchrow(sql("write_turns"), *columns.write_arguments())
    except asyncpg.ProgramLimitExceededError as error:
        # A jsonb holds 268 million bytes: all turns of the batch together may be more, where each alone is not.
        raise OversizeFault(f"the server has no room for what turns would write: {error}") from error
    if row is None:
        raise ConflictFault("the statement that writes turns gave no answer")
    if (moved := row["moved"]) != columns.executions:
        message = f"{columns.executions - moved} of {columns.executions} executions were moved by another broker"
        raise ConflictFault(message)
    if row["ended"] != len(columns.ended):
        raise ConflictFault("an execution that ended was given a parent meanwhile")
    return row


async def mark(connection: Connection) -> None:
    """Remember what is written so far: a write that fails after it can be undone, and the locks stay ours."""
    await connection.execute(sql("mark"))


async def return_to_mark(connection: Connection) -> None:
    """Undo what was written since the last mark."""
    await connection.execute(sql("return_to_mark"))


async def keep_quiet(connection: Connection) -> None:
    """Notify nobody of this transaction: workers and followers then look by themselves, after their own pauses."""
    await connection.execute(sql("keep_quiet"))


async def wait_at_most(connection: Connection, milliseconds: int) -> None:
    """Wait no longer than that for any lock of this transaction."""
    await connection.execute(sql("wait_at_most"), milliseconds)


async def set_aside(connection: Connection, mail: list[Mail], reason: str) -> list[int]:
    """Move mail to the dead letters, what there still is of it; whose it was."""
    rows = await connection.fetch(sql("set_aside"), [one.mail_id for one in mail], reason)
    return [row["execution_id"] for row in rows]


async def set_aside_unread(connection: Connection, look: Look) -> list[int]:
    """Move the first mail that this look comes upon to the dead letters, if it cannot be read; whose it was.

    It is tried once more, alone: where another broker holds what a claim stumbled over, the next one comes first.
    """
    mail_id = await connection.fetchval(sql("hold_newest" if look.newest else "hold_oldest"), look.start)
    if mail_id is None:
        return []
    try:
        async with connection.transaction():
            await take(connection, Look(mail_id, newest=False), max_mail=1)
    except asyncpg.PostgresError as error:
        if not is_unreadable(error):
            raise
        rows = await connection.fetch(sql("set_aside"), [mail_id], reason_of(error))
        return [row["execution_id"] for row in rows]
    return []


async def _load_results(
    connection: Connection, wishes: list[tuple[int, Want]], answers: Answers, event_ids: dict[tuple[int, int], int]
) -> Left:
    steps: list[tuple[int, object]] = []
    turns: list[tuple[int, object]] = []
    events: dict[tuple[int, int], Want] = {}
    for owner, wish in wishes:
        if wish[0] == "step":
            answers[owner][wish] = None  # unless it has one
            steps.append((owner, wish[1]))
        elif (event_id := _event_of(owner, wish, event_ids)) is None:
            turns.append((owner, wish[1]))
        else:
            events[owner, event_id] = wish
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
    return _left(rows)


def _event_of(owner: int, wish: Want, event_ids: dict[tuple[int, int], int]) -> int | None:
    """The event that carries a result, where it is known: of a turn not yet written, or brought along by a fork."""
    number = int(str(wish[1]))
    return -number if number < 0 else event_ids.get((owner, number))


def _pairs(pairs: Iterable[tuple[object, object]]) -> tuple[list[object], list[object]]:
    firsts, seconds = [], []
    for first, second in pairs:
        firsts.append(first)
        seconds.append(second)
    return firsts, seconds


def _left(rows: list[Record]) -> Left:
    return {row["execution_id"] for row in rows if not row["fits"]}


async def _load_workloads(connection: Connection, wishes: list[tuple[int, Want]], answers: Answers) -> Left:
    rows = await connection.fetch(sql("load_workloads"), [owner for owner, _ in wishes])
    for row in rows:
        answers[row["execution_id"]]["workload",] = row["workload"] or {}
    return _left(rows)


async def _load_actions(connection: Connection, wishes: list[tuple[int, Want]], answers: Answers) -> Left:
    """What the job of a visit says; an empty mapping where there is no job."""
    nodes = {(owner, node_id(owner, str(wish[1]), int(str(wish[2])))): (owner, wish) for owner, wish in wishes}
    for owner, wish in wishes:
        answers[owner][wish] = {}
    rows = await connection.fetch(sql("load_actions"), *map(list, zip(*nodes, strict=True)))
    for row in rows:
        owner, wish = nodes[row["execution_id"], row["node_id"]]
        answers[owner][wish] = row["action"]
    return _left(rows)


async def _load_items(connection: Connection, wishes: list[tuple[int, Want]], answers: Answers) -> Left:
    """Some items of iterators, in their order."""
    asked = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[3], w[4]) for owner, w in wishes]
    rows = await connection.fetch(sql("load_items"), *map(list, zip(*asked, strict=True)))
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["items", step, visit, row["first"], row["count"]] = row["items"]
    return _left(rows)


async def _load_item_statuses(connection: Connection, wishes: list[tuple[int, Want]], answers: Answers) -> Left:
    """Where items stand; one that does not exist stands nowhere."""
    for owner, wish in wishes:
        answers[owner][wish] = None
    asked = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[3]) for owner, w in wishes]
    for row in await connection.fetch(sql("load_item_statuses"), *map(list, zip(*asked, strict=True))):
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["item", step, visit, row["place"]] = row["status"]
    return set()


async def _load_failed(connection: Connection, wishes: list[tuple[int, Want]], answers: Answers) -> Left:
    """The failed items of iterators, each {index, error}."""
    asked = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[1], w[2]) for owner, w in wishes]
    rows = await connection.fetch(sql("load_failed"), *map(list, zip(*asked, strict=True)))
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["failed", step, visit] = row["failed"]
    return _left(rows)


async def _load_children(connection: Connection, wishes: list[tuple[int, Want]], answers: Answers) -> Left:
    """Whether visits wait for these executions."""
    for owner, wish in wishes:
        answers[owner][wish] = None
    asked = [(owner, node_id(owner, str(w[1]), int(str(w[2]))), w[3]) for owner, w in wishes]
    for row in await connection.fetch(sql("load_children"), *map(list, zip(*asked, strict=True))):
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["child", step, visit, row["child_id"]] = True
    return set()


LOADERS: dict[str, Callable[[Connection, list[tuple[int, Want]], Answers], Awaitable[Left]]] = {
    "workload": _load_workloads,
    "action": _load_actions,
    "items": _load_items,
    "item": _load_item_statuses,
    "failed": _load_failed,
    "child": _load_children,
}

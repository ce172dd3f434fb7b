"""Load what the core asks for: `LOADERS` has a function a kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.draft.known import Found, ItemState, UndoRow, result_of
from noetl_broker.broker.draft.wants import want_item_status
from noetl_broker.node_ids import node_id, parse_node
from noetl_broker.store.queries import sql
from noetl_broker.store.row_layout import columns_of
from noetl_broker.store.turn import slots

if TYPE_CHECKING:
    from asyncpg import Record

    from noetl_broker.store.connect.connection import Connection

Want = tuple[object, ...]
Wants = dict[int, frozenset[Want]]  # by execution
Answers = dict[int, dict[Want, object]]  # by execution
TooLarge = set[int]  # executions whose answers do not fit beside those of the others


class Content(NamedTuple):
    """The text of a catalog version (None: it is too large), its path, and its size."""

    text: str | None
    path: str
    size: int


async def load_content(connection: Connection, catalog_id: int, *, most_bytes: int) -> Content | None:
    """One catalog version, None if there is none. The text is None over `most_bytes`."""
    row = await connection.fetchrow(sql("load_content"), catalog_id, most_bytes)
    return Content(row["content"], row["path"], row["bytes"]) if row else None


async def load_answers(
    connection: Connection,
    wants: Wants,
    *,
    event_ids: dict[tuple[int, int], int],
    granted: slots.Granted | None = None,
) -> Answers:
    """Load what the core asks for, for all executions at once; `event_ids` has the events of unwritten turns.

    `granted`: the slots that the batch was promised. The answers leave out executions that do not fit into this
    transaction, or whose slots others have locked.
    """
    answers: Answers = {execution_id: {} for execution_id in wants}
    kinds: dict[str, list[tuple[int, Want]]] = defaultdict(list)
    results: list[tuple[int, Want]] = []
    for execution_id, wants_of_execution in wants.items():
        for want in wants_of_execution:
            (results if want[0] in {"step", "turn"} else kinds[str(want[0])]).append((execution_id, want))
    too_large = await _load_results(connection, results, answers, event_ids) if results else set()
    of_slots = [want for kind in slots.KINDS for want in kinds.pop(kind, ())] if kinds else []
    for kind, wants_of_kind in kinds.items():
        too_large |= await LOADERS[kind](connection, wants_of_kind, answers)
    if of_slots:
        too_large |= await slots.ask(connection, of_slots, answers, slots.Granted() if granted is None else granted)
    return {execution_id: answer for execution_id, answer in answers.items() if execution_id not in too_large}


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
    rows = await connection.fetch(
        sql("load_results"), *columns_of(steps, 2), *columns_of(turns, 2), *columns_of(events, 2)
    )
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


def _too_large(rows: list[Record]) -> TooLarge:
    return {row["execution_id"] for row in rows if not row["fits"]}


async def _load_workloads(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    rows = await connection.fetch(sql("load_workloads"), [owner for owner, _ in wants])
    for row in rows:
        answers[row["execution_id"]]["workload",] = row["workload"] or {}
    return _too_large(rows)


async def _load_actions(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The actions of the jobs of visits; an empty mapping without a job."""
    for owner, want in wants:
        answers[owner][want] = {}
    nodes = {(owner, _visit_node(owner, want)): want for owner, want in wants}
    return _too_large(await _load_of_nodes(connection, "load_actions", nodes, answers, "action"))


async def _load_items(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """Items of iterators, in their order."""
    nodes = [(owner, _visit_node(owner, want), want[3], want[4]) for owner, want in wants]
    rows = await connection.fetch(sql("load_items"), *columns_of(nodes, 4))
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["items", step, visit, row["first"], row["count"]] = row["items"]
    return _too_large(rows)


async def _load_item_statuses(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The statuses of items; None for an unknown item."""
    _answer_none(wants, answers)
    items = [(owner, _visit_node(owner, want), want[3]) for owner, want in wants]
    for row in await connection.fetch(sql("load_item_statuses"), *columns_of(items, 3)):
        step, visit, _ = parse_node(row["node_id"], None)
        stands = ItemState(row["status"], row["failures"], row["failed_attempt"], row["unsure"])
        answers[row["execution_id"]][want_item_status(step or "", visit or 1, row["index"])] = stands
    return set()


async def _load_open_items(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The indexes of the open items of iterators."""
    nodes = {(owner, _visit_node(owner, want)): want for owner, want in wants}
    await _load_of_nodes(connection, "load_open_items", nodes, answers, "indexes")
    return set()


async def _load_failed(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The failed items of iterators, each {index, error}."""
    nodes = [(owner, _visit_node(owner, want), want[1], want[2]) for owner, want in wants]
    rows = await connection.fetch(sql("load_failed"), *columns_of(nodes, 4))
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["failed", step, visit] = row["failed"]
    return _too_large(rows)


async def _load_children(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """Whether visits wait for these executions: True, or None."""
    _answer_none(wants, answers)
    children = [(owner, _visit_node(owner, want), want[3]) for owner, want in wants]
    for row in await connection.fetch(sql("load_children"), *columns_of(children, 3)):
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["child", step, visit, row["child_id"]] = True
    return set()


async def _load_signals(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The contexts of the events that brought signals."""
    turns = [(owner, want[1]) for owner, want in wants if int(str(want[1])) > 0]
    events = [(owner, -int(str(want[1]))) for owner, want in wants if int(str(want[1])) < 0]
    rows = await connection.fetch(sql("load_signals"), *columns_of(turns, 2), *columns_of(events, 2))
    for row in rows:
        number = -row["event_id"] if row["turn"] is None else row["turn"]
        answers[row["execution_id"]]["signal", number] = row["context"]
    return _too_large(rows)


async def _load_undos(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The rows that are to be undone next; None if there is none."""
    _answer_none(wants, answers)
    places = [(owner, *(want[1] if isinstance(want[1], tuple) else (None,) * 4), want[2]) for owner, want in wants]
    for row in await connection.fetch(sql("load_undos"), *columns_of(places, 6)):
        owner, turn, *place = row[:5]
        below = None if turn is None else (turn, *place)
        found = row["row_step"], row["row_visit"], row["index"], row["row_turn"]
        answers[owner]["undo", below, row["again"]] = UndoRow(*found, tuple(row["children"] or ()), row["unsure"])
    return set()


async def _load_item_actions(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The actions of the jobs of items."""
    items = [(owner, _visit_node(owner, want), want[3]) for owner, want in wants]
    rows = await connection.fetch(sql("load_item_actions"), *columns_of(items, 3))
    for row in rows:
        step, visit, _ = parse_node(row["node_id"], None)
        answers[row["execution_id"]]["item action", step, visit, row["index"]] = row["action"]
    return _too_large(rows)


async def _load_undone(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The rows of `noetl.undo` of visits and items, with their statuses; None for none."""
    _answer_none(wants, answers)
    nodes = {(owner, _undone_node(owner, want)): want for owner, want in wants}
    for row in await connection.fetch(sql("load_undone"), *columns_of(nodes, 2)):
        found = UndoRow(
            row["step"], row["visit"], row["index"], row["turn"], tuple(row["children"] or ()), row["unsure"]
        )
        answers[row["execution_id"]][nodes[row["execution_id"], row["node_id"]]] = found, row["status"]
    return set()


async def _load_undo_actions(connection: Connection, wants: list[tuple[int, Want]], answers: Answers) -> TooLarge:
    """The actions of undo jobs; an empty mapping without a job."""
    for owner, want in wants:
        answers[owner][want] = {}
    nodes = {(owner, _undone_node(owner, want, undo=True)): want for owner, want in wants}
    return _too_large(await _load_of_nodes(connection, "load_actions", nodes, answers, "action"))


async def _load_of_nodes(
    connection: Connection, statement: str, nodes: dict[tuple[int, str], Want], answers: Answers, column: str
) -> list[Record]:
    """Answer each want with a column of the row of its node; returns the rows."""
    rows = await connection.fetch(sql(statement), *columns_of(nodes, 2))
    for row in rows:
        owner = row["execution_id"]
        answers[owner][nodes[owner, row["node_id"]]] = row[column]
    return rows


def _answer_none(wants: list[tuple[int, Want]], answers: Answers) -> None:
    """The answers of wants for which no row may be found."""
    for owner, want in wants:
        answers[owner][want] = None


def _visit_node(owner: int, want: Want) -> str:
    """The node of the visit that a want is about."""
    return node_id(owner, str(want[1]), int(str(want[2])))


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

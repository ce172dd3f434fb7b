"""What the store remembers of one execution, in the form in which the core retakes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

from noetl_broker.broker.context import Found, result_of, want_step, want_turn
from noetl_broker.broker.forks import Malformed, decode_fork, fork_of
from noetl_broker.broker.model import EXECUTION_START, Emitted, Ended, Rules, Turn
from noetl_broker.broker.replay import History, RecordedJob, RecordedRow, RecordedTurn
from noetl_broker.errors import NotFoundFault, PlaybookFault
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.playbook.model import Playbook
from noetl_broker.store.codec import load_json
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql
from noetl_broker.store.rows import mail_of, parse_node

PAGE = 1000


async def load_history(connection: Connection, execution_id: int, rules: PlaybookRules) -> History:
    """Everything about one execution; raises NotFoundFault where the broker has never read an event of it."""
    found = await connection.fetchrow(sql("history_execution"), execution_id)
    if found is None or found["turn"] is None:
        raise NotFoundFault(f"no execution {execution_id} that the broker has read; noetl-broker executions lists them")
    ended = None
    if found["status"] not in {None, "RUNNING"}:
        ended = Ended(found["status"], found["result"], found["error"])
    turns, strays = await _turns(connection, execution_id)
    return History(
        execution_id=execution_id,
        playbook=playbook_of(found, rules),
        rules=Rules(**found["rules"]) if found["rules"] else Rules(),
        turns=turns,
        strays=strays,
        jobs={_node(row["node_id"]): _job(row) for row in await connection.fetch(sql("history_jobs"), execution_id)},
        rows={
            row["step_id"]: RecordedRow(row["status"], row["visits"], row["result_visit"])
            for row in await connection.fetch(sql("history_rows"), execution_id)
        },
        taken=await _taken(connection, execution_id, turns),
        job_scope={
            "workload": found["workload"],
            "path": found["path"],
            "version": found["version"],
            "catalog_id": found["catalog_id"],
            "execution_id": execution_id,
        },
        workload=found["workload"],
        ended=ended,
        state=found["tokens"],
    )


async def all_executions(connection: Connection) -> AsyncIterator[int]:
    """The ids of all executions that the broker has read, oldest first, a page in memory at a time."""
    last = 0
    while True:
        page = [row["execution_id"] for row in await connection.fetch(sql("history_ids"), last, PAGE)]
        for execution_id in page:
            yield execution_id
        if len(page) < PAGE:
            return
        last = page[-1]


async def _turns(connection: Connection, execution_id: int) -> tuple[tuple[RecordedTurn, ...], tuple[str, ...]]:
    """The turns with the events that they wrote, and the events that claim a turn which did not write them."""
    written: dict[tuple[int, int], list[Emitted]] = {}
    for row in await connection.fetch(sql("history_events"), execution_id):
        written.setdefault((row["meta"]["turn"], row["parent_event_id"]), []).append(_emitted(row))
    turns = []
    for row in await connection.fetch(sql("history_turns"), execution_id):
        events = tuple(written.pop((row["turn"], row["event_id"]), ()))
        turn = Turn(execution_id, row["turn"], row["decided_at"])
        turns.append(RecordedTurn(turn, mail_of(row).event, row["outcome"], row["note"], events))
    strays = tuple(
        f"turn {turn}: it wrote no {event.type} of {event.step or 'the execution'}, but the log has one"
        for (turn, _), events in written.items()
        for event in events
    )
    return tuple(turns), strays


async def _taken(
    connection: Connection, execution_id: int, turns: tuple[RecordedTurn, ...]
) -> dict[tuple[object, ...], object]:
    """What a fork brought along, by the wishes that ask for it; nothing of an execution that is none."""
    told = [fork_of(turn.event.meta) for turn in turns if turn.event.kind == EXECUTION_START]
    answers: dict[tuple[object, ...], object] = {}
    for document in told[:1]:
        if document is None:
            continue
        try:
            fork = decode_fork(document)
        except Malformed:
            continue
        places = {taken.event_id: taken for taken in fork.results}
        for row in await connection.fetch(sql("history_taken"), execution_id, [*places]):
            taken, result = places[row["event_id"]], result_of(row["event_type"], row["result"], row["error"])
            answers[want_turn(-taken.event_id)] = result
            before = answers.get(want_step(taken.step))
            if not isinstance(before, Found) or before.visit < taken.visit:
                answers[want_step(taken.step)] = Found(taken.visit, result)
    return answers


def _emitted(row: Any) -> Emitted:
    step: str | None = None
    visit = 0
    if ":" in (row["node_id"] or ""):  # else it speaks of the whole execution
        step, visit, _ = _node(row["node_id"])
    return Emitted(
        row["event_type"],
        row["status"],
        step,
        visit,
        row["node_type"],
        row["meta"],
        row["result"],
        row["error"],
        _without_child(row["context"]),
    )


def _without_child(context: Any) -> Any:
    """What the core decided of an event's context: the id of a child is the store's."""
    return {key: item for key, item in context.items() if key != "child_execution_id"} if context else None


def _job(row: Any) -> RecordedJob:
    action = load_json(row["action"])
    return RecordedJob(
        row["node_type"], action, row["context"], row["priority"], row["max_attempts"], row["timeout_seconds"]
    )


def _node(node: str) -> tuple[str, int, int | None]:
    step, visit, place = parse_node(node, node)
    return step or node, visit or 1, place


def playbook_of(found: Any, rules: PlaybookRules) -> Playbook | str:
    """The playbook of a row with `content`, `path`, `version` and `catalog_id`, or the sentence why there is none."""
    return _compile(found["content"], found["path"] or "", rules) if found["content"] else _missing(found)


@lru_cache(maxsize=64)
def _compile(content: str, path: str, rules: PlaybookRules) -> Playbook | str:
    try:
        return compile_playbook(content, file=path, rules=rules)
    except PlaybookFault as fault:
        return f"playbook {path} does not compile: {fault}"


def _missing(found: Any) -> str:
    if found["catalog_id"] is not None:
        return f"the catalog has no row {found['catalog_id']} (playbook {found['path']})"
    version = "" if found["version"] is None else f" version {found['version']}"
    return f"no playbook {found['path']}{version} is registered"

"""Loads recorded executions as `History`, which replay re-runs.

Each is read in one snapshot: a running execution must not be read partly before and partly after a turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from noetl_broker.broker.draft.known import Found, result_of, taken_items
from noetl_broker.broker.draft.wants import want_failed, want_step, want_turn
from noetl_broker.broker.model.decision import ExecutionEnd
from noetl_broker.broker.model.event import Emitted, Turn
from noetl_broker.broker.model.rules import Rules, stored_rules
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import is_live
from noetl_broker.errors import NotFoundFault, PlaybookFault
from noetl_broker.history.record import History, Node, RecordedJob, RecordedRow, RecordedTurn, UsedVersion
from noetl_broker.node_ids import node_of_job
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Playbook
from noetl_broker.store.admin.archive import archived_fault
from noetl_broker.store.admin.erasures import refuse_erased
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.json_codec import load_json
from noetl_broker.store.queries import sql
from noetl_broker.store.turn.claimed_rows import event_of
from noetl_broker.store.turn.load import Content, load_content

MOST_PLAYBOOKS = 256
Rows = Sequence[Any]
Jobs = dict[Node, RecordedJob]
_execution = itemgetter("execution_id")


class Versions:
    """The playbooks of histories, each compiled once; a version never changes."""

    def __init__(self, rules: PlaybookRules) -> None:
        """Empty; `rules` limit playbooks."""
        self._rules = rules
        self._kept: OrderedDict[int, Playbook | str] = OrderedDict()

    async def load(self, connection: Connection, catalog_ids: set[int]) -> None:
        """Compile the versions that are not cached."""
        for catalog_id in sorted(catalog_ids - self._kept.keys()):
            found = await load_content(connection, catalog_id, most_bytes=self._rules.max_document_bytes)
            if found is not None:
                self._kept[catalog_id] = _compile(found, self._rules.of_registered())
        while len(self._kept) > max(MOST_PLAYBOOKS, len(catalog_ids)):
            self._kept.popitem(last=False)

    def of(self, head: Any) -> Playbook | str:
        """The playbook of an execution, or a sentence that says why there is none."""
        refused = _refused(head)
        if refused is not None:
            return refused
        if head["catalog_id"] is None:
            version = "" if head["version"] is None else f" version {head['version']}"
            return f"no playbook {head['path']}{version} is registered"
        return self._kept.get(
            head["catalog_id"], f"the catalog has no row {head['catalog_id']} (playbook {head['path']})"
        )

    def of_undos(self, head: Any) -> dict[int, UsedVersion]:
        """By number, the versions whose `compensate` an undo of the execution used."""
        found = [(row["version"], row["catalog_id"]) for row in head["undo_versions"] or ()]
        return {version: UsedVersion(catalog_id, self._kept[catalog_id]) for version, catalog_id in found}


def catalog_ids_of(heads: Rows) -> set[int]:
    """The versions that these executions ran and were undone with."""
    undone = {found["catalog_id"] for head in heads for found in head["undo_versions"] or ()}
    return ({head["catalog_id"] for head in heads} | undone) - {None}


def _refused(head: Any) -> str | None:
    """Why the playbook did not compile when the execution started; whether it does today does not matter."""
    error = head["error"] if head["rules"] is None else None
    message = error.get("message") if isinstance(error, dict) else None
    if isinstance(message, str) and message.startswith(f"playbook {head['path']} does not compile: "):
        return message
    return None


@lru_cache(maxsize=64)
def _compile(content: Content, rules: PlaybookRules) -> Playbook | str:
    if content.text is None:
        return f"playbook {content.path} does not compile: the document has {content.size:,} bytes"
    try:
        return compile_playbook(content.text, file=content.path, path=content.path, rules=rules)
    except PlaybookFault as fault:
        return f"playbook {content.path} does not compile: {fault}"


async def load_history(connection: Connection, execution_id: int, rules: PlaybookRules) -> History:
    """The history of one execution; raises NotFoundFault if the broker never decided on it, and ErasedFault."""
    await refuse_erased(connection, execution_id)
    for history in await load_histories(connection, [execution_id], Versions(rules)):
        return history
    raise await unread_history_fault(connection, execution_id)


async def load_histories(connection: Connection, execution_ids: Sequence[int], versions: Versions) -> Iterator[History]:
    """The histories of executions in one snapshot, oldest first; executions without a turn are omitted.

    All rows are loaded when this returns. Each becomes a history when the iterator reaches it.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        heads = [row for row in await connection.fetch(sql("history_heads"), execution_ids) if row["turn"] is not None]
        turns = await connection.fetch(sql("history_turns"), execution_ids)
        events = await connection.fetch(sql("history_events"), execution_ids)
        jobs = await connection.fetch(sql("history_jobs"), execution_ids)
        rows = await connection.fetch(sql("history_rows"), execution_ids)
        taken = await load_taken(connection, execution_ids)
        undone = await connection.fetch(sql("history_undone"), execution_ids)
        await versions.load(connection, catalog_ids_of(heads))
    return _assemble(heads, (turns, events, jobs, rows, taken, undone), [versions.of(head) for head in heads], versions)


def _assemble(
    heads: Rows, parts: tuple[Rows, ...], playbooks: Sequence[Playbook | str], versions: Versions
) -> Iterator[History]:
    grouped = ({key: [*group] for key, group in groupby(part, _execution)} for part in parts)
    turns, events, jobs, rows, taken, undone = grouped
    for head, playbook in zip(heads, playbooks, strict=True):
        key = head["execution_id"]
        try:
            found, unlinked = turns_of(turns.get(key, ()), events.get(key, ()))
            read = {turn.event_id for turn in found}
            yield history_of(
                head,
                playbook,
                rows.get(key, ()),
                taken.get(key, ()),
                turns=found,
                unlinked=tuple(_unlinked_event_text(row) for row in unlinked if row["event_id"] not in read),
                jobs=jobs_of(jobs.get(key, ()), head["workload"]),
                undo_versions=versions.of_undos(head),
                undone={(row["step"], row["visit"], row["index"]): row["status"] for row in undone.get(key, ())},
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            yield unreadable(head, playbook, error)


def history_of(head: Any, playbook: Playbook | str, rows: Rows, taken: Rows, **more: Any) -> History:
    """The history of a head row; `more` are further fields."""
    ended = None
    unborn = head["path"] is None and head["status"] == "CANCELLED"  # it ended with its parent, without a turn
    if head["status"] is not None and not is_live(head["status"]) and not unborn:
        ended = ExecutionEnd(head["status"], head["result"], head["error"])
    return History(
        execution_id=head["execution_id"],
        playbook=playbook,
        rules=stored_rules(head["rules"]) if head["rules"] else Rules(),
        rows={row["step_id"]: RecordedRow(row["status"], row["visits"], row["result_visit"]) for row in rows},
        taken=_taken_of(taken),
        job_scope={
            "workload": head["workload"],
            "path": head["path"],
            "version": head["version"],
            "catalog_id": head["catalog_id"],
            "execution_id": head["execution_id"],
        },
        workload=head["workload"],
        ended=ended,
        state=head["tokens"],
        path=head["path"],
        name=head["name"],
        broken=None if head["status"] is not None else "noetl.execution has no row of it",
        set_aside=head["set_aside"],
        **more,
    )


async def load_taken(connection: Connection, execution_ids: Sequence[int]) -> Rows:
    """What forks took over: results and items; by execution."""
    rows = [*await connection.fetch(sql("history_taken"), execution_ids)]
    rows += await connection.fetch(sql("history_items"), execution_ids)
    return sorted(rows, key=_execution)


def _taken_of(rows: Rows) -> dict[tuple[object, ...], object]:
    """The results that a fork took over, by the core's keys; empty if it is no fork."""
    items, results = [row for row in rows if "items" in row], [row for row in rows if "event_id" in row]
    answers: dict[tuple[object, ...], object] = {}
    for row in items:
        answers |= taken_items(row["step"], row["visit"], row["items"], row["again"])
    for row in results:
        step, visit, _ = node_of_job(row["node_id"])
        result = result_of(row["event_type"], row["result"], row["error"])
        answers[want_turn(-row["event_id"])] = result
        if row["failed"] is not None:
            answers[want_failed(step, visit)] = row["failed"]
        before = answers.get(want_step(step))
        if not isinstance(before, Found) or before.visit < visit:
            answers[want_step(step)] = Found(visit, result)
    return answers


def unreadable(head: Any, playbook: Playbook | str, error: Exception) -> History:
    """The history of an execution whose rows cannot be read."""
    return History(
        execution_id=head["execution_id"],
        playbook=playbook,
        rules=Rules(),
        path=head["path"],
        broken=f"its rows are not such as the broker writes ({type(error).__name__}: {error})",
    )


def turns_of(turns: Rows, events: Rows) -> tuple[tuple[RecordedTurn, ...], list[Any]]:
    """The turns with the events that they wrote, and the events that name a turn which did not write them.

    `events` are those of these and of earlier turns; both are in turn order.
    """
    written: dict[tuple[object, int], list[Any]] = {}
    for row in events:
        number = row["meta"]["turn"]
        written.setdefault((number if type(number) is int else None, row["parent_event_id"]), []).append(row)
    found = []
    for row in turns:
        execution_id, number, event_id = row["execution_id"], row["turn"], row["event_id"]
        own = written.pop((number, event_id), ())
        turn = Turn(execution_id, number, row["decided_at"])
        found.append(
            RecordedTurn(
                turn,
                event_of(row)[0]._replace(slots=row["slots"]),
                row["outcome"],
                row["note"],
                tuple([_emitted(event) for event in own]),
                event_id,
                tuple([event["node_name"] for event in own]),
            )
        )
    return tuple(found), [row for rows in written.values() for row in rows]


def jobs_of(rows: Rows, workload: JSON) -> Jobs:
    """The jobs by node; all contexts share one copy of the workload."""
    jobs: Jobs = {}
    for row in rows:
        context = row["context"]
        if row["same_workload"]:
            context["workload"] = workload
        jobs[node_of_job(row["node_id"])] = RecordedJob(
            row["node_type"],
            load_json(row["action"]),
            context,
            row["priority"],
            row["max_attempts"],
            row["timeout_seconds"],
        )
    return jobs


async def unlinked_events(connection: Connection, execution_id: int, rows: Rows) -> tuple[str, ...]:
    """Sentences about events that name a turn which did not write them, and that no turn read."""
    if not rows:
        return ()
    read = await connection.fetch(sql("events_read"), execution_id, [row["event_id"] for row in rows])
    others = {row["event_id"] for row in read}
    return tuple(_unlinked_event_text(row) for row in rows if row["event_id"] not in others)


async def unread_history_fault(connection: Connection, execution_id: int) -> NotFoundFault:
    """The fault that says why an execution has no turns."""
    if (archived := await archived_fault(connection, execution_id)) is not None:
        return archived
    found = await connection.fetchrow(sql("was_never_read"), execution_id)
    if found is None or not found["known"]:
        return NotFoundFault(f"no execution {execution_id}; noetl-broker executions lists them")
    if found["set_aside"] is not None:
        return NotFoundFault(
            f"execution {execution_id} has no turns: deciding on its start failed ({found['set_aside']})"
        )
    if found["unread"]:
        return NotFoundFault(f"execution {execution_id} has no turns yet: its start waits for a broker to read it")
    return NotFoundFault(
        f"execution {execution_id} has events but no turns: it ran before this broker took over, or was removed"
    )


async def find_turn(connection: Connection, execution_id: int, event_id: int) -> int:
    """The turn that read an event, or wrote it, or came last before it; raises NotFoundFault if there is none."""
    found = await connection.fetchrow(sql("turn_of_event"), execution_id, event_id)
    if found is None:
        raise await archived_fault(connection, execution_id) or NotFoundFault(
            f"execution {execution_id} has no event {event_id}; write turn:4 for its fourth turn, "
            f"or look with noetl-broker events {execution_id} --json"
        )
    if found["turn"] is None:
        raise NotFoundFault(f"event {event_id} of execution {execution_id} came before its first turn")
    return int(found["turn"])


def _unlinked_event_text(row: Any) -> str:
    event = _emitted(row)
    whose = event.step or "the execution"
    return f"turn {row['meta']['turn']}: it wrote no {event.type} of {whose}, but the log has one"


def _emitted(row: Any) -> Emitted:
    step: str | None = None
    visit = 0
    node_type = row["node_type"]
    if node_type != "playbook" or ":" in (row["node_id"] or ""):
        step, visit, _ = node_of_job(row["node_id"])
    context = row["context"]
    if context and "child_execution_id" in context:  # the store adds it
        context = {key: item for key, item in context.items() if key != "child_execution_id"}
    return Emitted(
        row["event_type"], row["status"], step, visit, node_type, row["meta"], row["result"], row["error"], context
    )

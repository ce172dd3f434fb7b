"""The tables of the store in memory, with the behaviour of migrations/ that executions depend on.

Rows are dictionaries by column name. The keys of JSON columns have the order of `jsonb`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from noetl_broker.store.json_codec import load_json

Row = dict[str, Any]

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
INFINITY = datetime.max.replace(tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LIVE = frozenset({"QUEUED", "RUNNING", "PAUSED", "COMPENSATING"})  # statuses of executions that have not ended
ENDED_JOBS = frozenset({"done", "dead", "cancelled"})  # statuses that a job keeps
NO_MAIL = frozenset({"action_started", "step_result"})


class Tables:
    """All rows, the clock of the database, and its ids."""

    def __init__(self) -> None:
        """Create empty tables."""
        self.now = BEGINNING
        self.catalog: dict[int, Row] = {}
        self.events: dict[int, Row] = {}  # inserted by `insert_event`
        self.events_of: defaultdict[int, list[Row]] = defaultdict(list)  # by execution, oldest insert first
        self.inbox: dict[int, Row] = {}
        self.turns: dict[tuple[int, int], Row] = {}
        self.queue: dict[tuple[int, str], Row] = {}  # inserted by `insert_job`
        self._open_jobs: dict[tuple[int, str], Row] = {}
        self._most_open = 8  # then those that have ended are left out
        self.executions: dict[int, Row] = {}
        self.states: dict[int, Row] = {}
        self.workflow: dict[tuple[int, str], Row] = {}
        self.iterations: dict[tuple[int, str, int], Row] = {}
        self.waits: dict[tuple[int, str], Row] = {}
        self.timers: list[Row] = []
        self.signals: dict[int, Row] = {}
        self.looks: dict[int, Row] = {}
        self.taken: dict[tuple[int, int], int] = {}  # by execution and signal: the event
        self.undos: dict[tuple[int, str], Row] = {}
        self.defects: frozenset[str] = frozenset()
        self.dead_letters: list[Row] = []
        self.paused_paths: set[str] = set()
        self.leased_while_paused: list[str] = []  # nodes
        self.last_id = 0

    def clock(self) -> datetime:
        """Return the time; each call returns a later one."""
        self.now += MICROSECOND
        return self.now

    def next_id(self) -> int:
        """Return a new id."""
        self.last_id += 1
        return self.last_id

    def insert_event(self, event: Row, *, is_mail: bool = True) -> Row:
        """Insert an event, and its mail, as the trigger does; `is_mail` is false for events of the broker."""
        row = {**EVENT, **event}
        row["event_id"] = row["event_id"] or self.next_id()
        row["created_at"] = row["created_at"] or self.clock()
        if row["catalog_id"] is None:
            own = self.executions.get(row["execution_id"], {})
            parent = self.executions.get(own.get("parent_execution_id") or 0, {}) if own.get("path") else {}
            row["catalog_id"] = own.get("catalog_id") or parent.get("catalog_id")
        self.events[row["event_id"]] = row
        self.events_of[row["execution_id"]].append(row)
        if is_mail and row["event_type"].lower() not in NO_MAIL:
            self.add_mail(row["execution_id"], row["event_id"], row.pop("mail_id", None))
        return row

    def add_mail(self, execution_id: int, event_id: int, mail_id: int | None = None) -> None:
        """Add an event to the inbox."""
        number = self.next_id() if mail_id is None else mail_id
        self.inbox[number] = {"mail_id": number, "execution_id": execution_id, "event_id": event_id}

    def insert_job(self, job: Row) -> None:
        """Insert a job."""
        if len(self._open_jobs) >= self._most_open:
            self._open_jobs = {key: row for key, row in self._open_jobs.items() if row["status"] not in ENDED_JOBS}
            self._most_open = 2 * len(self._open_jobs) + 8
        key = job["execution_id"], job["node_id"]
        self.queue[key] = self._open_jobs[key] = job

    def open_jobs(self) -> Iterable[Row]:
        """Return the jobs that have not ended, and some that have, oldest insert first."""
        return self._open_jobs.values()

    def name_of(self, execution_id: int) -> str | None:
        """Return the name of an execution's playbook."""
        execution = self.executions[execution_id]
        found: str | None = self.catalog.get(execution["catalog_id"] or 0, {}).get("name")
        return found or execution["path"]

    def children_of(self, execution_id: int, node_id: str | None = None) -> list[Row]:
        """Return the executions that an execution, or one visit of it, started."""
        return [
            row
            for row in self.executions.values()
            if row["parent_execution_id"] == execution_id and node_id in {None, row["parent_node_id"]}
        ]


EVENT: Row = dict.fromkeys(
    (
        "execution_id", "event_id", "catalog_id", "parent_event_id", "parent_execution_id", "created_at", "event_type",
        "node_id", "node_name", "node_type", "status", "context", "result", "meta", "error", "worker_id",
    )
)  # fmt: skip

EXECUTION: Row = {
    **dict.fromkeys(
        (
            "catalog_id", "path", "version", "ended_at", "parent_execution_id", "parent_event_id", "parent_node_id",
            "parent_index", "rules", "workload", "result", "error",
        )
    ),
    "status": "RUNNING",
}  # fmt: skip


ENVELOPE = frozenset({"id", "status", "data", "error", "meta", "duration"})  # the keys of a result in an envelope


def execution_event(execution_id: int, event_type: str, status: str, **columns: Any) -> Row:
    """Return an event of a whole execution."""
    node = {"node_id": str(execution_id), "node_type": "playbook"}
    return {"execution_id": execution_id, "event_type": event_type, "status": status, **node, **columns}


def jsonb(text: str | None) -> Any:
    """Return the value that a jsonb column returns for a JSON text."""
    return None if text is None else jsonb_order(load_json(text))


def jsonb_order(value: Any) -> Any:
    """Return a value with keys in the order of jsonb: shorter keys first."""
    if isinstance(value, dict):
        return {key: jsonb_order(value[key]) for key in sorted(value, key=_rank)}
    return [jsonb_order(item) for item in value] if isinstance(value, list) else value


def _rank(key: str) -> tuple[int, bytes]:
    encoded = key.encode()
    return len(encoded), encoded


def item_node_id(node_id: str, index: int) -> str:
    """Return the node id of an iterator's item, as `noetl.item_node_id` does."""
    return f"{node_id if '#' in node_id else node_id + '#1'}.{index}"

"""Every key and every statement of the hot path names its execution.

Partition pruning needs it, and so would a database that distributes rows by `execution_id`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import asyncpg
import pytest

from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import SCHEMA, Database, named

# Unique keys without the `execution_id` of their table, each with its reason.
KEYS_OF_THEIR_OWN = {
    "inbox_pkey",  # only the broker that has just read the mail uses it
    "match_request_pkey",  # of few rows, for the broker that has just read them
    "signal_idempotency",  # unique by name and key: signals could be distributed by the key
    "signal_pkey",  # the order of signals; most are for a key, not for an execution
    "start_key_pkey",  # unique by key and path: could be distributed by the key
    "timer_pkey",  # of rows that are read by their moment
}
# The columns by which statements of the hot path find rows, other than the execution.
# The inbox is read from its head. The catalog is small, and could be copied to every node. Children are found by
# their parent, or by a scan while few executions run.
FOUND_OTHERWISE = {
    ("inbox", "mail_id"), ("inbox", ""), ("catalog", "catalog_id"), ("catalog", "path"),
    ("execution", "parent_execution_id"), ("execution", ""), ("schema_version", ""),
    ("match_request", ""), ("timer", "due_at"), ("timer", "timer_id"), ("start_schedule", ""),  # read from their heads
    ("path_pause", ""), ("path_pause", "path"),  # a small table
    ("release_request", ""), ("release_request", "due_at"), ("release_request", "request_id"),  # as `match_request`
    ("queue", "limit_name"),  # where the numbers of a limit have changed
    ("signal", "signal_id"), ("signal_copy", ""), ("signal_copy", "target"),  # of a bucket: what is to be copied
}  # fmt: skip

PLAYBOOK = """
workflow:
- step: start
  next: [{step: many}, {step: one}]
- step: many
  type: iterator
  collection: "{{ workload.items }}"
  element: item
  distribute: true
  task: {type: python, code: "def main(): pass", args: {n: "{{ item }}"}}
  next: meet
- {step: one, type: playbook, path: child, next: meet}
- step: meet
  type: python
  code: "def main(): pass"
  args: {all: "{{ many }}", one: "{{ one }}"}
  retry: {max_attempts: 2}
  next: [{when: "{{ meet.n > 0 and workload.items | length > 1 }}", step: end}]
- step: end
"""
CHILD = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: "def main(): pass", next: end}
- {step: end, result: {n: "{{ work.n }}"}}
"""


@pytest.mark.changes_tables
async def test_every_unique_key_includes_the_execution_id(database: Database) -> None:
    """Of all tables with that column, partitioned or not."""
    keys = """
        select i.indexrelid::regclass::text
        from pg_index i
        join pg_class c on c.oid = i.indrelid and c.relnamespace = 'noetl'::regnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attname = 'execution_id'
        where i.indisunique
          and not a.attnum = any(i.indkey::smallint[])
    """
    assert {name.removeprefix(named("noetl.")) for (name,) in await rows(database, keys)} == KEYS_OF_THEIR_OWN


@pytest.mark.filterwarnings(
    "ignore::asyncpg.exceptions.InterfaceWarning"
)  # closing the connection removes the listener
@pytest.mark.changes_tables
async def test_every_statement_of_the_hot_path_finds_rows_by_execution_id(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the plans of all statements of a broker, also in functions: each scan has it in its condition."""
    for setting in (
        "session_preload_libraries = 'auto_explain'", "auto_explain.log_min_duration = 0", "client_min_messages = log",
        "auto_explain.log_nested_statements = on", "auto_explain.log_verbose = on", "auto_explain.log_format = json",
    ):  # fmt: skip
        await execute(database, f'alter database "{database.name}" set {setting}')
    messages: list[str] = []

    async def listen(connection: Any) -> None:
        connection.add_log_listener(lambda _connection, message: messages.append(message.message))

    monkeypatch.setattr(asyncpg, "create_pool", partial(asyncpg.create_pool, setup=listen))
    await register(database, PLAYBOOK)
    await register(database, CHILD, path="child")
    await start(database, payload={"items": [1, 2, 3]}, count=3)
    await drain(database)
    while await complete_jobs(database, {"n": 1}):
        await drain(database)
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 6
    assert await broken_invariants(database) == {}
    scans = {(name, condition) for text in messages if "plan:" in text for name, condition in _scans(_plan(text))}
    assert {name for name, _ in scans} > {"event", "queue", "execution", "execution_state", "workflow", "iteration"}
    otherwise = {scan for scan in scans if scan[1] != "execution_id" and scan not in FOUND_OTHERWISE}
    assert sorted(otherwise) == []


def _plan(text: str) -> dict[str, Any]:
    return dict(json.loads(text.partition("plan:")[2])["Plan"])


def _scans(node: dict[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Give each scan below a plan node: its table (for a partition the parent), and the column that finds rows."""
    name, kind = node.get("Relation Name", within), node["Node Type"]
    if node.get("Schema") == named("noetl_history"):
        name = name.rpartition("_")[0]
    if not node.get("Schema", SCHEMA).startswith(SCHEMA):
        name = within = ""
    if kind == "Bitmap Heap Scan":
        within = name
    elif name and "Scan" in kind:
        columns = re.findall(r"\((?:\w+\.)?(\w+) (?:=|>)", node.get("Index Cond", ""))
        yield name, "execution_id" if "execution_id" in columns else columns[0] if columns else ""
    for child in node.get("Plans", ()):
        yield from _scans(child, within)

"""What a login with the role noetl_reader alone sees of executions: the views without payloads, results and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from noetl_broker.errors import NotFoundFault
from noetl_broker.explain.progress import Progress
from noetl_broker.node_ids import parse_node
from noetl_broker.store.admin.blocks import MOST_LISTED
from noetl_broker.store.admin.progress import MOST_VISITS, reported_progress
from noetl_broker.store.admin.undo import load_undo
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

Entry = dict[str, Any]

MOST_JOBS = 50  # in one answer


async def load_execution_details(connection: Connection, execution_id: int) -> Entry:
    """One execution in one snapshot, as `executions.load_execution_details` gives it, without values.

    These are missing: `result`, `error`, the names of signals, the workers of jobs and the reasons of dead letters. The
    pace of iterators whose items are rows is missing, too, and the live steps of blocks. Raises NotFoundFault.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(sql("find_execution_for_readers"), execution_id)
        if row is None:
            raise NotFoundFault(f"no execution {execution_id}; noetl-broker executions lists them")
        entry = dict(row)
        for key, statement, arguments in (
            ("steps", "list_steps_for_readers", ()),
            ("waits", "list_waits_for_readers", ()),
            ("jobs", "list_jobs_for_readers", (MOST_JOBS,)),
            ("dead_letters", "list_dead_letters_for_readers", ()),
            ("iterators", "list_items_for_readers", (MOST_VISITS,)),
            ("reports", "list_reports_for_readers", (MOST_VISITS,)),
            ("blocks", "list_blocks_for_readers", (MOST_LISTED,)),
        ):
            entry[key] = [dict(row) for row in await connection.fetch(sql(statement), execution_id, *arguments)]
        entry["undo"] = await load_undo(connection, execution_id, as_reader=True)
    jobs = [job.pop("all_jobs") for job in entry["jobs"]]
    entry["slots"] = []  # their keys are values
    entry["draining"] = []
    entry["unserved"] = []  # needs the function of operators
    entry["path_pause"] = None
    entry["unlisted_jobs"] = max(jobs, default=0) - len(jobs)
    entry["iterators"] = [_progress(**row) for row in entry["iterators"]] + [*_reported(entry.pop("reports"))]
    return entry


def _reported(rows: list[Entry]) -> Iterator[Progress]:
    for row in rows:
        node = parse_node(row["node_id"], None)
        if node.item_index is None:  # the items of an iterator are counted by their rows
            yield reported_progress(node.step or row["node_id"], node.visit or 1, row)


def _progress(*, node_id: str, **counts: int) -> Progress:
    node = parse_node(node_id, None)
    return Progress(
        step=node.step or node_id,
        visit=node.visit or 1,
        total=counts["total"],
        started=counts["started"],
        ended=counts["ended"],
        failed=counts["failed"],
        cancelled=counts["cancelled"],
        retrying=0,  # the views say neither
        held=0,
        is_open=counts["ended"] + counts["cancelled"] < counts["total"],
        errors=[],
        other_errors=counts["failed"],
        other_types=0,
        last_ended_at=None,
        pace=None,
        seconds_left=None,
    )

"""Prints `status`: a headline, the steps, the open jobs, the result or error; `--watch` shows changes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from rich.console import Group
from rich.live import Live

from noetl_broker.cli import output
from noetl_broker.cli.output import Lines, Part, Rows
from noetl_broker.cli.start import describe_failure
from noetl_broker.cli.tail import polls, step_name
from noetl_broker.explain.error_text import attempt_text, traceback_of
from noetl_broker.explain.progress import failures_text, progress_text
from noetl_broker.explain.slots import slot_of_row, slot_text
from noetl_broker.explain.undo_text import draining_text, undo_lines
from noetl_broker.explain.wait_text import awaited_by, too_early
from noetl_broker.node_ids import name_of_node, node_of_job, parse_node, visit_name
from noetl_broker.store.admin import executions
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.connect.schema_name import with_schema
from noetl_broker.text import join_names

OPEN_STEP = "RUNNING"
WATCH_SECONDS = 0.25  # between two polls of `--watch`
JOB_WAITS = {
    "failed": "waits for the broker's decision",
    "held": "until the execution is resumed",
    "dead": "it failed, and has no attempt left",
    "delegated": "the broker runs its child executions or items",
}


def status_parts(found: dict[str, Any], schema: str, *, traceback: bool = False) -> Iterator[Part]:
    """Give the parts of an answer from `load_execution_details`; `traceback`: with the traceback of the error.

    The commands that it names get the schema.
    """
    yield Lines((_headline(found), *(with_schema(line, schema) for line in _kept_by(found))))
    yield from _table(found["steps"], _step_columns(found), "items")
    yield from _paragraph(filter(None, map(failures_text, found["iterators"])))
    wait_columns: output.Columns = {
        "wait of": lambda wait: name_of_node(wait["node_id"]),
        "for": lambda wait: awaited_by(wait, found["execution_id"]),
        "since": lambda wait: took(wait["since"], found["read_at"]),
        "until": "due_at",
    }
    yield from _table(found["waits"], wait_columns, "for")
    if early := tuple(too_early(found["waits"])):
        yield Lines(early)
    job_columns: output.Columns = {
        "job of": step_name, "type": "type", "status": "status", "leases": "attempts",
        "worker": lambda job: job.get("worker_id"), "next": lambda job: _job_waits(job, found),
    }  # fmt: skip
    yield from _table(found["jobs"], job_columns, "worker")
    block_columns: output.Columns = {
        "block": _block_name, "execution": "execution_id", "status": "status", "at": lambda one: join_names(one["at"])
    }  # fmt: skip
    yield from _table(found.get("blocks") or (), block_columns)
    if found["unlisted_jobs"]:
        yield Lines((f"and {found['unlisted_jobs']:,} more open jobs of items",))
    yield from _paragraph(filter(None, (draining_text(found["draining"]),)))
    if found["undo"] is not None:
        undone = undo_lines(found["execution_id"], found["status"], found["undo"])
        yield from _paragraph(with_schema(line, schema) for line in undone)
    yield from _paragraph(ending(found, traceback=traceback))


def _table(rows: Sequence[Any], columns: output.Columns, *folding: str) -> Iterator[Part]:
    """A table after a blank line, if it has rows."""
    if rows:
        yield Lines(("",))
        yield Rows.of(rows, columns, frozenset(folding))


def _paragraph(lines: Iterable[str]) -> Iterator[Part]:
    """Lines after a blank one, if there are any."""
    if found := tuple(lines):
        yield Lines(("", *found))


def _kept_by(found: dict[str, Any]) -> Iterator[str]:
    """Lines about the pause of its playbook, and about the slots that it holds or waits for."""
    pause = found["path_pause"]
    if pause is not None:
        reason = f": {pause['reason']}" if pause["reason"] else ""
        yield f"its playbook is paused{reason} (noetl-broker resume --path {found['path']} admits it)"
    yield from (slot_text(slot_of_row(slot)) for slot in found["slots"])


def _block_name(block: dict[str, Any]) -> str:
    """The visit or item that a block belongs to: `pay`, `ship[3]`."""
    step, visit, _ = node_of_job(block["node_id"])
    return visit_name(step, visit, block["index"])


def _step_columns(found: dict[str, Any]) -> output.Columns:
    """The columns of steps, with one for the progress of iterators if there are any."""
    progress: dict[str, list[str]] = {}
    for one in found["iterators"]:
        progress.setdefault(one["step"], []).append(progress_text(one))
    items: output.Columns = {"items": lambda step: "; ".join(progress.get(step["step"], ()))} if progress else {}
    return {
        "step": "step", "type": "type", "status": "status", **items, "visits": "visits", "started": "started_at",
        "took": lambda step: _step_took(step, found),
    }  # fmt: skip


def _headline(found: dict[str, Any]) -> str:
    version = "" if found["version"] is None else f" version {found['version']}"
    time = took(found["started_at"], found["ended_at"] or found["read_at"])
    manner = "for" if found["ended_at"] is None else "after"
    playbook = f"{found['path'] or 'without a playbook'}{version}"
    line = f"execution {found['execution_id']}  {playbook}  {found['status']} {manner} {time}"
    kin = {"parent_execution_id": "child of", "forked_from": "continues", "recovered_as": "continued as"}
    return ", ".join([line, *(f"{words} {found[kind]}" for kind, words in kin.items() if found[kind] is not None)])


def _step_took(step: dict[str, Any], found: dict[str, Any]) -> str | None:
    running = step["status"] == OPEN_STEP and found["ended_at"] is None
    return took(step["started_at"], found["read_at"] if running else step["ended_at"])


def _job_waits(job: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Say what a job waits for; `read_at` is the database's clock."""
    now = found["read_at"]
    if job["status"] == "leased" and job["lease_until"] is not None:
        remaining = (job["lease_until"] - now).total_seconds()
        if remaining <= 0:
            return f"lease ran out {output.span(-remaining)} ago"
        told = "its worker is to stop; " if job["stop"] else ""
        return f"{told}lease ends in {output.span(remaining)}"
    waits_for_throttle = job.get("held_for") == ["limit"]
    if job["status"] in {"queued", "retry"} or waits_for_throttle:
        remaining = (job["available_at"] - now).total_seconds()
        if remaining > 0:
            return f"{'again in' if job['attempts'] else 'in'} {output.span(remaining)}"
        if waits_for_throttle:
            return f"waits for a slot of the throttle {job['limit_name']}"
        return f"waits for a worker since {output.span(-remaining)}"
    return JOB_WAITS.get(job["status"])


def ending(found: dict[str, Any], *, traceback: bool = False) -> list[str]:
    """Give lines about the result or error, unread events and dead letters."""
    lines = []
    if "result" not in found:
        lines.append("values are shown to logins with the role noetl_operator")
    elif found["error"] is not None:
        lines.append(describe_failure(found["status"], found["error"], _attempt(found)))
        if isinstance(found["error"], dict) and found["error"].get("template"):
            lines.append(f"template: {found['error']['template']}")
        if traceback:
            lines += output.traceback_lines(traceback_of(found["error"]))
    elif found["status"] == "COMPLETED":
        lines.append(f"result: {output.compact_json(found['result'], longest=2000)}")
    if found.get("archived"):
        lines.append("archived: its steps, events and jobs are in the schema of the archive")
    if found["unread"]:
        lines.append(f"events that wait for a broker to read them: {found['unread']}")
    lines += [
        f"set aside: {letter['event_type']} {letter['node_name']} ({letter['event_id']}): {letter['reason']}"
        if "reason" in letter
        else f"set aside: event {letter['event_id']}"
        for letter in found["dead_letters"]
    ]
    return lines


def _attempt(found: dict[str, Any]) -> str:
    """Give the attempt that failed the execution, from the job of its step; lost leases are no attempts."""
    step = found["error"].get("step") if isinstance(found["error"], dict) else None
    jobs = [job for job in found["jobs"] if job["step"] == step and not _is_item(job)]
    return attempt_text(jobs[-1]["attempts"] - jobs[-1]["lost_leases"], jobs[-1]["max_attempts"]) if jobs else ""


def _is_item(job: dict[str, Any]) -> bool:
    return parse_node(job["node_id"], None).item_index is not None


def took(started: datetime | None, ended: datetime | None) -> str | None:
    """Give the time between two moments as text; None if one of them is missing."""
    return None if started is None or ended is None else output.span((ended - started).total_seconds())


Found = dict[str, Any]


class State(NamedTuple):
    """The state of a part as text. A line shows it when `mark` has changed."""

    text: str
    mark: str


# The state of each part, by kind, name and (a step may have many jobs) the id of a job.
States = dict[tuple[str, str, int], State]


async def watch(source: LastingSession, execution_id: int, *, as_json: bool, traceback: bool = False) -> Found:
    """Show the state of an execution until it ends; gives the last one.

    On a terminal it redraws one picture; a pipe gets a line for each change, with `as_json` a document for each.
    """
    read = partial(executions.load_execution_details, execution_id=execution_id)
    states = polls(source, read, lambda: WATCH_SECONDS)
    if not as_json and sys.stdout.isatty():
        return await _draw(states, source.schema, traceback=traceback)
    found: Found = {}
    before: States = {}
    async for found in states:
        now = part_states(found)
        changed = [*changes(before, now)]
        if as_json and changed:
            output.show_json_line(found)
        for line in () if as_json else changed:
            output.say(f"{output.moment(found['read_at'])}  {line}")
        before = now
    for part in () if as_json else _paragraph(ending(found, traceback=traceback)):
        part.show()
    return found


async def _draw(states: AsyncIterator[Found], schema: str, *, traceback: bool) -> Found:
    found: Found = {}
    with Live(console=output.console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        async for found in states:
            parts = status_parts(found, schema, traceback=traceback)
            live.update(Group(*(part.drawn() for part in parts)), refresh=True)
        live.vertical_overflow = "visible"  # the last picture stays, whole
    return found


def part_states(found: Found) -> States:
    """Give the state of the execution, of each step that has started, of iterators, and of open jobs of steps."""
    time_taken = took(found["started_at"], found["ended_at"])
    states = {
        ("execution", str(found["execution_id"]), 0): _joined(found["status"], time_taken and f"after {time_taken}")
    }
    for step in found["steps"]:
        if step["visits"]:
            visit = f"visit {step['visits']}" if step["visits"] > 1 else None
            ended = step["status"] != OPEN_STEP and took(step["started_at"], step["ended_at"])
            states["step", str(step["step"]), 0] = _joined(step["status"], visit, ended and f"after {ended}")
    for one in found["iterators"]:
        # a line for each percent: an item may end every millisecond
        percent = str(100 * one["ended"] // one["total"])
        states["items of", visit_name(one["step"], one["visit"]), 0] = State(progress_text(one), percent)
    for job in found["jobs"]:
        if _is_item(job):
            continue
        lease = f"lease {job['attempts']}" if job["attempts"] > 1 else None
        worker = f"by {job['worker_id']}" if job["status"] == "leased" else None
        states["job of", step_name(job), job["queue_id"]] = _joined(job["status"], worker, lease)
    return states


def changes(before: States, now: States) -> Iterator[str]:
    """Give a line for each part whose state has changed; a job that is gone shows in its step."""
    for part, state in now.items():
        if part not in before or before[part].mark != state.mark:
            what, name, _ = part
            yield output.one_line(f"{what} {name}  {state.text}")


def _joined(*words: object) -> State:
    text = "  ".join(str(word) for word in words if word)
    return State(text, text)

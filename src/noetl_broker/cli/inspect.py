"""The commands `executions`, `status` and `events`."""

from __future__ import annotations

import asyncio
import sys
from operator import itemgetter
from typing import Any

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command, execution_id, step_argument, with_traceback
from noetl_broker.cli.face import Answer, ask, ask_all, service
from noetl_broker.cli.selection import Selection, selection
from noetl_broker.cli.status_view import status_parts, watch
from noetl_broker.cli.tail import event_cells, event_line, follow
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.explain.error_text import failure_text, traceback_lines, traceback_of
from noetl_broker.explain.item import item_headline, item_outcome
from noetl_broker.explain.status_text import took
from noetl_broker.explain.undo_text import left_text
from noetl_broker.playbook.blocks import is_block
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.template.durations import moment_text


@command(
    "executions",
    example=(
        "noetl-broker executions --status failed --path 'examples/*'\nnoetl-broker executions --limit 1000 --json\n"
        "noetl-broker executions --tag customer=7 --tag region=eu\nnoetl-broker executions --key 'order 17'\n"
        "noetl-broker executions --text 'order 17'\nnoetl-broker executions --undone"
    ),
)
@selection(ids=False, required=False)
@click.option(
    "--text", metavar="TEXT", help="Only those with this text in id, path, error, idempotency key or short workload."
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most.")
@click.option("--undone", is_flag=True, help="Only executions that ended and left something undone.")
def executions(call: Call, *, chosen: Selection, text: str | None, limit: int, undone: bool) -> None:
    """List executions, newest first; those of blocks below their parents.

    The column who has the tags of each, else its idempotency key. --text and --error search the newest 10,000.
    --tag and --key find executions of any age.
    """
    if undone:
        if chosen.named or text is not None:
            raise OperatorFault("--undone takes no filters: leave them out")
        left: output.Columns = {
            "execution": "execution_id", "path": "path", "status": "status", "ended": "ended_at", "left": left_text,
        }  # fmt: skip
        found = ask_all(call, "health.list_left_undone", most=limit + 1)
        call.show_rows(found[:limit], left, folding=frozenset({"path"}), none="no execution has left anything undone")
        _note_more(call, found, limit)
        return
    which, path = chosen.which.model_dump(exclude={"all"}), chosen.which.path
    found = ask_all(call, "executions.list_executions", most=limit + 1, **which, text=text)
    entries = found[:limit]
    if not call.as_json and not entries and path is not None and "*" not in path:
        meant = ask(call, "playbooks.suggest_path", path=path)
        if meant is not None:
            output.note(f"no playbook {path} is registered; {meant}")
    if not call.printed(entries):
        columns: output.Columns = {
            "execution": "execution_id", "path": _shown_path, "v" if sys.stdout.isatty() else "version": "version",
            "status": "status", "who": shown_key, "started": "started_at",
            "took": lambda entry: took(entry["started_at"], entry["ended_at"]), "error": _remarks,
        }  # fmt: skip
        places = _lineages(entries)
        rows = [{**entry, "place": places[entry["execution_id"]]} for entry in entries]
        output.Rows.of(sorted(rows, key=itemgetter("place")), columns, frozenset({"path"})).show()
    _note_more(call, found, limit)


def _note_more(call: Call, found: list[Answer], limit: int) -> None:
    """Say that a list was cut, if more were found than its limit."""
    if len(found) > limit and not call.as_json:
        output.note(f"the newest {limit:,}; --limit shows more")


def _remarks(entry: dict[str, Any]) -> str:
    remarks = (
        entry.get("error") and failure_text(entry["status"], entry["error"]),
        entry["forked_from"] and f"continues {entry['forked_from']}",
        entry["left_undone"] and f"left undone: {left_text(entry['left_undone'])}",
        entry["undo_status"] if entry["undo_status"] in {"undoing", "undone"} else None,
        entry["late_at"] and f"late since {moment_text(entry['late_at'])}",
        entry["recovered_as"] and f"continued as {entry['recovered_as']}",
    )
    return "; ".join(filter(None, remarks))


def shown_key(entry: Answer) -> str:
    """What says which one an execution is: its tags, else its idempotency key."""
    tags = entry.get("tags")
    return ", ".join(f"{name}={value}" for name, value in tags.items()) if tags else entry.get("key") or ""


def _shown_path(entry: Answer) -> str:
    return "  " * (len(entry["place"]) - 1) + str(entry["path"])


def _lineages(entries: list[Answer]) -> dict[int, tuple[int, ...]]:
    """By id, the place of each execution: newest first, but each block below its parent, if that is listed."""
    listed = {entry["execution_id"]: entry for entry in entries}

    def lineage(entry: Answer) -> tuple[int, ...]:
        parent = listed.get(entry["parent_execution_id"]) if is_block(entry["path"] or "") else None
        return (*(() if parent is None else lineage(parent)), -entry["execution_id"])

    return {execution_id: lineage(entry) for execution_id, entry in listed.items()}


@command(
    "status",
    example=(
        "noetl-broker status 58123456789012345\n"
        "noetl-broker status 58123456789012345 --watch\n"
        "noetl-broker status 58123456789012345 'fetch[3]'  # one item of an iterator"
    ),
)
@execution_id
@step_argument
@click.option("--watch", "live", is_flag=True, help="Show changes until it ends; exit 1 if it fails.")
@with_traceback
def status(call: Call, *, execution_id: int, step: str | None, live: bool, traceback: bool) -> int:
    """Show the state of an execution, step by step.

    Prints its steps, its open jobs with their leases and next attempts, its result or its error. With --watch, a
    terminal shows it live. A pipe gets a line for each change; with --json, the whole document for each. STEP shows one
    item of an iterator: fetch[3], or fetch#2[3] of the second visit.
    """
    if step is not None and live:
        raise OperatorFault(f"--watch shows a whole execution, not {step}: leave one of them out")
    if step is not None:
        return _show_item(call, execution_id, step, traceback=traceback)

    if live:

        async def follow_it() -> dict[str, Any]:
            async with LastingSession(call.database, name="status", say=output.note, of=execution_id) as source:
                return await watch(source, execution_id, as_json=call.as_json, traceback=traceback)

        return 0 if asyncio.run(follow_it())["status"] == "COMPLETED" else EXIT_FAILED
    found = ask(call, "executions.show_execution", execution_id=execution_id)
    if not call.printed(found):
        for part in status_parts(found, call.database.schema, traceback=traceback):
            part.show()
    return 0


@command(
    "events",
    example=(
        "noetl-broker events 58123456789012345\n"
        "noetl-broker events 58123456789012345 --follow --json\n"
        "noetl-broker events 58123456789012345 'fetch[3]'  # of one item of an iterator"
    ),
)
@execution_id
@step_argument
@click.option("--follow", "live", is_flag=True, help="Show new events until the execution ends (--json: one a line).")
@with_traceback
def events(call: Call, *, execution_id: int, step: str | None, live: bool, traceback: bool) -> None:
    """Show the events of an execution in the order of its turns.

    Each event is followed by what the broker decided on it. --json prints objects with the columns of noetl.event.
    STEP: only those of a step; of load#2, its second visit; or of load[3], an item of an iterator.
    """
    shown: set[int] | None = set() if traceback else None
    if not live:
        entries = ask(call, "executions.read_events", execution_id=execution_id, step=step)
        if call.printed(entries):
            return
        if not traceback:
            output.Rows(("time", "event", "step", "detail"), [event_cells(event) for event in entries]).show()
        for event in entries if traceback else ():
            _show_event(event, shown)
        return

    async def follow_them() -> None:
        async with LastingSession(call.database, name="events", say=output.note, of=execution_id) as source:
            async for new in follow(source, execution_id, service("executions").events_of(step)):
                for event in new:
                    if call.as_json:
                        output.show_json_line(event)
                    else:
                        _show_event(event, shown)

    asyncio.run(follow_them())


def _show_item(call: Call, execution_id: int, step: str, *, traceback: bool) -> int:
    item = ask(call, "executions.show_item", execution_id=execution_id, step=step)
    if call.printed(item):
        return 0
    child = item["child_execution_id"]
    lines = [item_headline(item), child and f"its execution is {child}, {item['child_status']}", item_outcome(item)]
    output.Lines(tuple(line for line in lines if line)).show()
    if traceback:
        output.Lines(tuple(traceback_lines(traceback_of(item["error"])))).show()
    return 0


def _show_event(event: dict[str, Any], shown: set[int] | None) -> None:
    """Print an event with its traceback; None: without.

    The failures of an action, of its step and of its execution have the same traceback: it is `shown` once.
    """
    output.say(event_line(event))
    text = "" if shown is None else traceback_of(event["error"])
    if shown is not None and hash(text) not in shown:
        shown.add(hash(text))
        output.Lines(tuple(traceback_lines(text))).show()

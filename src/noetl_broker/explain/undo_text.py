"""Sentences about what an execution has undone, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from noetl_broker.node_ids import visit_name
from noetl_broker.text import join_names

MOST_NAMES = 5
DRAINING = "if it still succeeds, that is undone"
COUNTED = (("done", "done"), ("settled", "settled"), ("failed", "failed"), ("unknown", "unknown"), ("open", "left"))


def left_text(counts: Mapping[str, int]) -> str:
    """How much an execution, or all of them, left undone."""
    words = (("failed", "failed"), ("open", "not tried"), ("unknown", "of unknown outcome"))
    return ", ".join(f"{counts[key]:,} {said}" for key, said in words if counts[key])


def draining_text(visits: Iterable[Mapping[str, Any]]) -> str | None:
    """The visits that are over, but whose success would be undone; None if there are none."""
    names = [visit_name(visit["step"], visit["visit"]) for visit in visits]
    return f"draining: {join_names(names, most=MOST_NAMES)} ({DRAINING})" if names else None


def undo_lines(execution_id: int, status: str, undo: Mapping[str, Any]) -> Iterator[str]:
    """The undone actions and those left to undo, with the remedy; nothing for a completed execution without undo.

    `undo` is what `store.undo.load_undo` gives.
    """
    counts: Mapping[str, int] = undo["counts"]
    undoes = status == "COMPENSATING" or undo["status"] == "undoing"
    if status in {"RUNNING", "PAUSED", "QUEUED"} or (status == "COMPLETED" and undo["status"] is None):
        return
    if undo["status"] == "undoing":
        yield "it is undoing what it did"
    numbers = [f"{counts[key]:,} {words}" for key, words in COUNTED if counts.get(key)]
    if numbers:
        yield f"undo: {', '.join(numbers)}"
    yield from _tried(undo["left"])
    for key, words in (("unknown", "it is unknown whether this happened"), ("open", "not undone")):
        rows = [row for row in undo["left"] if row["status"] == key]
        told = [row for row in rows if key == "unknown" and _message(row)]  # by `_tried`
        names = [_name(row) for row in rows if row not in told][:MOST_NAMES]
        if names and not (undoes and key == "open"):
            more = counts[key] - len(names) - len(told)
            yield f"{words}: {', '.join(names)}" + (f" and {more:,} more" if more else "")
    if not undoes:
        yield from _remedy(execution_id, undo)


def _tried(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The running undo, the failed undos, and an abandoned undo."""
    for row in rows:
        if row["status"] == "running":
            yield f"undoing {_name(row)}"
        message = _message(row)
        if row["status"] == "unknown" and message:
            yield f"it is unknown whether the undo of {_name(row)} happened: {message}"
        elif row["status"] == "failed":
            yield f"the undo of {_name(row)} failed" + (f": {message}" if message else "")


def _message(row: Mapping[str, Any]) -> str | None:
    error = row.get("error")
    return error.get("message") if isinstance(error, dict) else None


def _remedy(execution_id: int, undo: Mapping[str, Any]) -> Iterator[str]:
    counts: Mapping[str, int] = undo["counts"]
    for row in undo["left"]:
        child, error = row.get("child_execution_id"), row.get("error")
        if row["status"] == "failed" and child is not None:
            child = error.get("child_execution_id", child) if isinstance(error, dict) else child
            yield f"noetl-broker status {child} names what that child has left"
    if any(is_of_template(row.get("error")) for row in undo["left"] if row["status"] == "failed"):
        yield mend_remedy(execution_id)
    elif counts.get("failed") or counts.get("open"):
        further = "; --unknown also undoes what is unknown" if counts.get("unknown") else ""
        yield f"noetl-broker undo {execution_id} goes on with what is left{further}"
    elif counts.get("unknown"):
        yield f"noetl-broker undo {execution_id} --unknown undoes what may not have happened"


def is_of_template(error: object) -> bool:
    """Whether an undo failed on a template: then it fails again until its playbook is mended."""
    return isinstance(error, dict) and "template" in error


def mend_remedy(execution_id: int) -> str:
    """The remedy after an undo failed on a template."""
    return f"mend `compensate`, register it, then noetl-broker undo {execution_id} --version latest"


def _name(row: Mapping[str, Any]) -> str:
    return visit_name(row["step"], row["visit"], row["index"])

"""How each status looks: a colour that means the same in pictures, a symbol, and a word."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from noetl_broker.diagram.shapes import SYMBOLS

Tone = Literal["ok", "run", "bad", "warn", "gone", "idle"]


class Look(NamedTuple):
    """The class of the colour, the path of the symbol on its disc, and the word beside it."""

    tone: Tone
    symbol: str
    word: str


_DONE, _ACTIVE, _FAILED = SYMBOLS["completed"], SYMBOLS["running"], SYMBOLS["failed"]
_WAITING, _HELD, _AGAIN, _CLOSED = SYMBOLS["waiting"], SYMBOLS["held"], SYMBOLS["retrying"], SYMBOLS["cancelled"]

# Statuses of executions, steps, visits and items are upper case, those of jobs and of the rest lower case.
LOOKS: Final[dict[str, Look]] = {
    "COMPLETED": Look("ok", _DONE, "Completed"),
    "FAILED": Look("bad", _FAILED, "Failed"),
    "CANCELLED": Look("gone", _CLOSED, "Cancelled"),
    "RUNNING": Look("run", _ACTIVE, "Running"),
    "STARTED": Look("run", _ACTIVE, "Running"),
    "WAITING": Look("run", _WAITING, "Waiting"),
    "QUEUED": Look("idle", _WAITING, "Queued"),
    "PAUSED": Look("idle", _HELD, "Paused"),
    "COMPENSATING": Look("warn", _AGAIN, "Compensating"),
    "PENDING": Look("idle", "", "Pending"),
    "SKIPPED": Look("idle", _CLOSED, "Skipped"),
    "CAUGHT": Look("warn", _FAILED, "Caught"),
    "went_on": Look("warn", _FAILED, "Went on"),
    "queued": Look("idle", _WAITING, "Queued"),
    "leased": Look("run", _ACTIVE, "Leased"),
    "delegated": Look("run", _ACTIVE, "Delegated"),
    "held": Look("idle", _HELD, "Held"),
    "done": Look("ok", _DONE, "Done"),
    "failed": Look("bad", _FAILED, "Failed"),
    "retry": Look("warn", _AGAIN, "Retrying"),
    "dead": Look("bad", _FAILED, "Failed for good"),
    "cancelled": Look("gone", _CLOSED, "Cancelled"),
    "open": Look("run", _WAITING, "Open"),
    "signalled": Look("run", _WAITING, "Deciding"),
    "approved": Look("ok", _DONE, "Approved"),
    "rejected": Look("bad", _FAILED, "Rejected"),
    "expired": Look("idle", _CLOSED, "Expired"),
    "running": Look("run", _ACTIVE, "Running"),
    "not_undone": Look("bad", _WAITING, "Not undone"),
    "unknown": Look("warn", _WAITING, "Unknown"),
    "superseded": Look("idle", _CLOSED, "Replaced"),
    "taken": Look("idle", _CLOSED, "Taken over"),
    "active": Look("ok", _DONE, "Active"),
    "paused": Look("idle", _HELD, "Paused"),
    "ok": Look("ok", _DONE, "Good"),
    "warning": Look("warn", _WAITING, "Warning"),
    "error": Look("bad", _FAILED, "Error"),
}


def look_of(status: str | None) -> Look:
    """How a status looks; one that is not in the table is grey, with its own word."""
    known = LOOKS.get(status or "")
    return Look("idle", "", status or "Not begun") if known is None else known

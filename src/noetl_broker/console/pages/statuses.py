"""How each status looks: a colour that means the same in pictures, a symbol, and a word."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from noetl_broker.diagram.shapes import SYMBOLS

Tone = Literal["ok", "run", "bad", "warn", "gone", "idle"]


class StatusBadge(NamedTuple):
    """The class of the colour, the path of the symbol on its disc, and the word beside it."""

    tone: Tone
    symbol: str
    word: str


_DONE, _ACTIVE, _FAILED = SYMBOLS["completed"], SYMBOLS["running"], SYMBOLS["failed"]
_WAITING, _HELD, _AGAIN, _CLOSED = SYMBOLS["waiting"], SYMBOLS["held"], SYMBOLS["retrying"], SYMBOLS["cancelled"]

# Statuses of executions, steps, visits and items are upper case. All others are lower case, and may look as these.
STYLES: Final[dict[str, StatusBadge]] = {
    "COMPLETED": StatusBadge("ok", _DONE, "Completed"),
    "FAILED": StatusBadge("bad", _FAILED, "Failed"),
    "CANCELLED": StatusBadge("gone", _CLOSED, "Cancelled"),
    "RUNNING": StatusBadge("run", _ACTIVE, "Running"),
    "STARTED": StatusBadge("run", _ACTIVE, "Running"),
    "WAITING": StatusBadge("run", _WAITING, "Waiting"),
    "QUEUED": StatusBadge("idle", _WAITING, "Queued"),
    "PAUSED": StatusBadge("idle", _HELD, "Paused"),
    "COMPENSATING": StatusBadge("warn", _AGAIN, "Compensating"),
    "PENDING": StatusBadge("idle", "", "Pending"),
    "SKIPPED": StatusBadge("idle", _CLOSED, "Skipped"),
    "CAUGHT": StatusBadge("warn", _FAILED, "Caught"),
    "went_on": StatusBadge("warn", _FAILED, "Went on"),
    "leased": StatusBadge("run", _ACTIVE, "Leased"),
    "delegated": StatusBadge("run", _ACTIVE, "Delegated"),
    "held": StatusBadge("idle", _HELD, "Held"),
    "done": StatusBadge("ok", _DONE, "Done"),
    "retry": StatusBadge("warn", _AGAIN, "Retrying"),
    "dead": StatusBadge("bad", _FAILED, "Failed for good"),
    "cancelled": StatusBadge("gone", _CLOSED, "Cancelled"),
    "open": StatusBadge("run", _WAITING, "Open"),
    "signalled": StatusBadge("run", _WAITING, "Deciding"),
    "approved": StatusBadge("ok", _DONE, "Approved"),
    "rejected": StatusBadge("bad", _FAILED, "Rejected"),
    "expired": StatusBadge("idle", _CLOSED, "Expired"),
    "not_undone": StatusBadge("bad", _WAITING, "Not undone"),
    "unknown": StatusBadge("warn", _WAITING, "Unknown"),
    "superseded": StatusBadge("idle", _CLOSED, "Replaced"),
    "taken": StatusBadge("idle", _CLOSED, "Taken over"),
    "active": StatusBadge("ok", _DONE, "Active"),
    "ok": StatusBadge("ok", _DONE, "Good"),
    "warning": StatusBadge("warn", _WAITING, "Warning"),
    "error": StatusBadge("bad", _FAILED, "Error"),
}


def style_of(status: str | None) -> StatusBadge:
    """The badge of a status; a status that is not in the table is grey, with its own word."""
    name = status or ""
    return STYLES.get(name) or STYLES.get(name.upper()) or StatusBadge("idle", "", name or "Not begun")

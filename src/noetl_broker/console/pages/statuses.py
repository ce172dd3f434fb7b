"""How each status looks: a colour that means the same in pictures, a symbol, and a word."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from noetl_broker.diagram.model import State
from noetl_broker.diagram.shapes import SYMBOLS

Tone = Literal["ok", "run", "bad", "warn", "gone", "idle"]


class StatusBadge(NamedTuple):
    """The class of the colour, the path of the symbol on its disc, and the word beside it."""

    tone: Tone
    symbol: str
    word: str


# Statuses of executions, steps, visits and items are upper case. All others are lower case, and may look as these.
_LOOKS: Final[tuple[tuple[Tone, State, str], ...]] = (
    ("ok", "completed", "COMPLETED done settled approved active ok"),
    ("bad", "failed", "FAILED dead rejected error"),
    ("bad", "waiting", "not_undone"),
    ("warn", "failed", "CAUGHT went_on"),
    ("warn", "waiting", "unknown warning"),
    ("warn", "retrying", "COMPENSATING retry retrying"),
    ("run", "running", "RUNNING STARTED leased delegated"),
    ("run", "waiting", "WAITING open signalled asking due_later"),
    ("idle", "waiting", "QUEUED"),
    ("idle", "held", "PAUSED held"),
    ("idle", "cancelled", "SKIPPED expired superseded"),
    ("idle", "pending", "PENDING unreached"),
    ("gone", "cancelled", "CANCELLED"),
)
_WORDS: Final = {
    "STARTED": "Running", "retry": "Retrying", "dead": "Failed for good", "signalled": "Deciding",
    "superseded": "Replaced", "settled": "Settled by hand", "ok": "Good",
}  # fmt: skip
STYLES: Final = {
    name: StatusBadge(tone, SYMBOLS[symbol], _WORDS.get(name, name.replace("_", " ").capitalize()))
    for tone, symbol, names in _LOOKS
    for name in names.split()
}


def style_of(status: str | None) -> StatusBadge:
    """The badge of a status; a status that is not in the table is grey, with its own word."""
    name = status or ""
    return STYLES.get(name) or STYLES.get(name.upper()) or StatusBadge("idle", "", name or "Not begun")

"""What a picture says in its boxes and on its arcs: short texts, cut where they would be too long to be drawn."""

from __future__ import annotations

import re
from typing import NamedTuple

from noetl_broker.broker.course import Items
from noetl_broker.drawing.picture import Line, Node, State, Stay
from noetl_broker.times import clock, span
from noetl_broker.visible import visible

LONGEST_LINE = 40  # characters of one line in a box
LONGEST_CONDITION = 34  # characters of one line of a condition
MOST_LINES = 3  # of a condition
CUT = "…"
GAP = " · "


class Look(NamedTuple):
    """How a state is told where colour does not reach: a symbol, and words."""

    symbol: str
    words: str


STATES: dict[State, Look] = {
    "pending": Look("○", "not yet"),
    "unreached": Look("○", "not run"),
    "waiting": Look("◔", "waits for others"),
    "queued": Look("◔", "waits for a worker"),
    "running": Look("▶", "running"),
    "retrying": Look("↻", "failed, is tried again"),
    "completed": Look("✓", "completed"),
    "failed": Look("✗", "failed"),
    "went_on": Look("✗", "failed, went on"),
    "cancelled": Look("⊘", "cancelled"),
}
# States that look alike, by the name under which both forms style them.
LOOKS: dict[State, str] = {
    **dict.fromkeys(("pending", "unreached"), "idle"),
    **dict.fromkeys(("waiting", "queued", "retrying"), "waits"),
    "running": "running",
    "completed": "completed",
    "failed": "failed",
    "went_on": "went_on",
    "cancelled": "cancelled",
}
TIMED = frozenset({"completed", "failed", "went_on", "cancelled", "running"})
JOINS = {"all": "waits for all", "any": "runs at the first", "each": "runs for each"}


class Texts(NamedTuple):
    """The lines of a box: its name, what it is, what is special about it, and of an execution what became of it."""

    name: str
    kind: str
    each: str
    traits: str
    state: str
    times: str
    message: str


def texts_of(node: Node) -> Texts:
    """What the box of a step says; a line that has nothing to say is empty."""
    stay = node.stay
    return Texts(
        shortened(node.step, LONGEST_LINE),
        _kind(node),
        shortened(node.each, LONGEST_LINE),
        shortened(GAP.join(traits_of(node)), LONGEST_LINE + 8),
        "" if stay is None else GAP.join(_state(node, stay)),
        "" if stay is None else GAP.join(times_of(node, stay)),
        "" if stay is None or stay.message is None else shortened(stay.message, LONGEST_LINE + 4),
    )


def is_mark(node: Node) -> bool:
    """Whether a box only marks where the workflow begins, parts or ends: no worker runs it, and it takes no time."""
    return node.shape == "router" or (node.shape in {"start", "end"} and node.type == node.shape)


def _kind(node: Node) -> str:
    """What a step is; `start`, `end` and routers without an action show it by their shape."""
    if node.type in {node.shape, "route"}:
        return cut_at_front(node.task, LONGEST_LINE)
    return GAP.join(part for part in (node.type, cut_at_front(node.task, LONGEST_LINE - 10)) if part)


def traits_of(node: Node) -> list[str]:
    """What is special about a step."""
    traits = [] if node.join is None else [JOINS[node.join]]
    if node.continues:
        traits.append("goes on if it fails")
    if node.attempts is not None:
        traits.append(f"{node.attempts} attempts")
    return traits


def _state(node: Node, stay: Stay) -> list[str]:
    words = [STATES[stay.state].words]
    if stay.items is not None:
        words.append(progress(stay.items))
    if stay.state in TIMED and stay.seconds is not None and not is_mark(node):
        words.append(span(stay.seconds))
    if stay.arrived:
        words.append(f"{stay.arrived} here")
    if stay.again_at is not None:
        words.append(f"at {clock(stay.again_at)}")
    return words


def progress(items: Items) -> str:
    """How far an iterator has got: 37/100, 2 failed."""
    failed = f", {items.failed} failed" if items.failed else ""
    return f"{items.completed + items.failed}/{items.total}{failed}"


def times_of(node: Node, stay: Stay) -> list[str]:
    """When a step began, how often it did, and who does it."""
    words = [] if stay.started_at is None or is_mark(node) else [clock(stay.started_at)]
    if stay.visits > 1:
        words.append(f"{stay.visits} visits")
    if stay.retries:
        words.append(f"{stay.retries} retr{'y' if stay.retries == 1 else 'ies'}")
    if stay.worker:
        words.append(shortened(f"by {stay.worker}", LONGEST_LINE - 12))
    if len(stay.children) == 1:
        words.append(f"execution {stay.children[0]}")
    return words


class Label(NamedTuple):
    """What stands on an arc; `held`: how the condition came out, where it was read and always came out the same."""

    lines: tuple[str, ...]
    tally: str  # ×3; of a condition that came out both ways: ✓ 3 ✗ 1
    held: bool | None = None


def label_of(line: Line) -> Label | None:
    """The label of an arc; None where there is nothing to say."""
    lines = _condition(line)
    tally, held = "", None
    if line.outcomes is not None and line.manner in {"when", "unless"}:
        fired, not_fired = line.outcomes if line.manner == "when" else reversed(line.outcomes)
        if fired and not_fired:
            tally = f"✓ {fired}  ✗ {not_fired}"
        elif fired or not_fired:
            held = bool(fired)
            tally = f"×{fired + not_fired}" if fired + not_fired > 1 else ""
    elif line.taken is not None and line.taken > 1:
        tally = f"×{line.taken}"
    return Label(lines, tally, held) if lines or tally else None


def _condition(line: Line) -> tuple[str, ...]:
    if line.manner == "plain":
        return ()
    if line.condition is None:
        return (line.manner,)
    order = "" if line.order is None else f"{line.order}: "
    unless = "unless " if line.manner == "unless" else ""
    return wrapped(f"{order}{unless}{bare(line.condition)}", LONGEST_CONDITION, MOST_LINES)


def bare(condition: str) -> str:
    """A condition on one line, without the braces around it."""
    text = " ".join(condition.split())
    inside = re.fullmatch(r"\{\{-?\s*(.*?)\s*-?\}\}", text)
    return inside[1] if inside is not None and "}}" not in inside[1] else text


def shortened(text: str, most: int) -> str:
    """A text on one line, cut at its end if it has more characters."""
    line = printable(text)
    return line if len(line) <= most else line[: most - 1].rstrip() + CUT


def cut_at_front(text: str, most: int) -> str:
    """A path on one line, without its beginning if it has more characters: its end says most."""
    line = printable(text)
    return line if len(line) <= most else CUT + line[1 - most :]


def printable(text: str) -> str:
    """A text on one line, with an escape for each letter that nobody would see as itself."""
    return visible(" ".join(text.split()))


def wrapped(text: str, width: int, most: int) -> tuple[str, ...]:
    """A text on at most so many lines, broken between words where that is possible, cut at its end if it is longer."""
    rest = printable(text)
    lines: list[str] = []
    while len(rest) > width and len(lines) < most - 1:
        blank = rest.rfind(" ", width // 2, width + 1)
        cut = blank if blank > 0 else width
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return (*lines, shortened(rest, width))

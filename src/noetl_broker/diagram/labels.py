"""The texts in boxes and on edges, cut to what fits."""

from __future__ import annotations

import re
from typing import NamedTuple

from noetl_broker.diagram.model import DiagramNode, Edge, State, StepProgress
from noetl_broker.history.path import Items
from noetl_broker.text import clock, span
from noetl_broker.visible import visible

LONGEST_LINE = 40  # characters of one line in a box
LONGEST_CONDITION = 34  # characters of one line of a condition
MOST_LINES = 3  # of a condition
CUT = "…"
GAP = " · "
UNDO_MARK = "↶"


class StateLabel(NamedTuple):
    """A state without colour: a symbol, and words."""

    symbol: str
    words: str


STATES: dict[State, StateLabel] = {
    "pending": StateLabel("○", "not yet"),
    "unreached": StateLabel("○", "not run"),
    "waiting": StateLabel("◔", "waits for others"),
    "queued": StateLabel("◔", "waits for a worker"),
    "asking": StateLabel("◔", "waits for a person"),
    "due_later": StateLabel("◔", "waits for its moment or signal"),
    "held": StateLabel("‖", "held, the execution is paused"),
    "running": StateLabel("▶", "running"),
    "retrying": StateLabel("↻", "failed, is tried again"),
    "completed": StateLabel("✓", "completed"),
    "failed": StateLabel("✗", "failed"),
    "went_on": StateLabel("✗", "failed, went on"),
    "cancelled": StateLabel("⊘", "cancelled"),
}
# The style class of each state.
STYLES: dict[State, str] = {
    **dict.fromkeys(("pending", "unreached"), "idle"),
    **dict.fromkeys(("waiting", "queued", "held", "asking", "due_later", "retrying"), "waits"),
    "running": "running",
    "completed": "completed",
    "failed": "failed",
    "went_on": "went_on",
    "cancelled": "cancelled",
}
TIMED = frozenset({"completed", "failed", "went_on", "cancelled", "running"})
JOINS = {"all": "waits for all", "any": "runs at the first", "each": "runs for each"}


class Texts(NamedTuple):
    """The lines of a box: name, kind and traits of the step, and its state in an execution."""

    name: str
    kind: str
    each: str
    traits: str
    state: str
    times: str
    message: str


def step_texts(node: DiagramNode) -> Texts:
    """The lines of a step's box; a line may be empty."""
    progress = node.progress
    return Texts(
        shortened(node.step, LONGEST_LINE),
        _kind(node),
        shortened(node.each, LONGEST_LINE),
        shortened(GAP.join(step_traits(node)), LONGEST_LINE + 8),
        "" if progress is None else GAP.join(_state(node, progress)),
        "" if progress is None else GAP.join(step_times(node, progress)),
        "" if progress is None or progress.message is None else shortened(progress.message, LONGEST_LINE + 4),
    )


def is_marker(node: DiagramNode) -> bool:
    """Whether a step only marks a place (start, router, end): no worker runs it, and it takes no time."""
    return node.shape == "router" or (node.shape in {"start", "end"} and node.type == node.shape)


def _kind(node: DiagramNode) -> str:
    """The kind of a step; markers show it by their shape."""
    if node.type in {node.shape, "route"}:
        return cut_at_front(node.task, LONGEST_LINE)
    return GAP.join(part for part in (node.type, cut_at_front(node.task, LONGEST_LINE - 10)) if part)


def step_traits(node: DiagramNode) -> list[str]:
    """Join, `on_error`, attempts and undo of a step."""
    traits = [] if node.join is None else [JOINS[node.join] if node.need == 1 else f"runs at arrival {node.need}"]
    if node.cancels:
        traits.append("cancels the others")
    if node.continues:
        traits.append("continues on error")
    if node.attempts is not None:
        traits.append(f"{node.attempts} attempts")
    if node.undo:
        traits.append(f"{UNDO_MARK} {cut_at_front(node.undo, LONGEST_LINE - 10)}")
    return traits


def _state(node: DiagramNode, progress: StepProgress) -> list[str]:
    words = [STATES[progress.state].words]
    if progress.step.items is not None:
        words.append(items_text(progress.step.items))
    if progress.state in TIMED and progress.seconds is not None and not is_marker(node):
        words.append(span(progress.seconds))
    if progress.undo:
        words.append(f"{UNDO_MARK} {progress.undo}")
    if progress.step.arrived:
        words.append(f"{progress.step.arrived} here")
    if progress.again_at is not None:
        words.append(f"at {clock(progress.again_at)}")
    return words


def items_text(items: Items) -> str:
    """The progress of an iterator: `37/100, 2 failed`."""
    failed = f", {items.failed} failed" if items.failed else ""
    return f"{items.completed + items.failed}/{items.total}{failed}"


def step_times(node: DiagramNode, progress: StepProgress) -> list[str]:
    """When a step started, how often, and on which worker."""
    words = [] if progress.step.started_at is None or is_marker(node) else [clock(progress.step.started_at)]
    if progress.step.visits > 1:
        words.append(f"{progress.step.visits} visits")
    if progress.retries:
        words.append(f"{progress.retries} retr{'y' if progress.retries == 1 else 'ies'}")
    if progress.worker:
        words.append(shortened(f"by {progress.worker}", LONGEST_LINE - 12))
    if len(progress.step.children) == 1:
        words.append(f"execution {progress.step.children[0]}")
    return words


class Label(NamedTuple):
    """The label of an edge; `held` is the outcome of its condition, None if it varied or was not evaluated."""

    lines: tuple[str, ...]
    tally: str  # ×3; of a condition with both outcomes: ✓ 3 ✗ 1
    held: bool | None = None


def edge_label(edge: Edge) -> Label | None:
    """The label of an edge; None if it is empty."""
    lines = _condition(edge)
    tally, held = "", None
    if edge.outcomes is not None and edge.manner in {"when", "unless", "catch"}:
        fired, not_fired = reversed(edge.outcomes) if edge.manner == "unless" else edge.outcomes
        if fired and not_fired:
            tally = f"✓ {fired}  ✗ {not_fired}"
        elif fired or not_fired:
            held = bool(fired)
            tally = f"×{fired + not_fired}" if fired + not_fired > 1 else ""
    elif edge.taken is not None and edge.taken > 1:
        tally = f"×{edge.taken}"
    return Label(lines, tally, held) if lines or tally else None


def _condition(edge: Edge) -> tuple[str, ...]:
    if edge.manner == "plain":
        return ()
    if edge.condition is None:
        return (edge.manner,)
    order = "" if edge.order is None else f"{edge.order}: "
    word = f"{edge.manner} " if edge.manner in {"unless", "catch"} else ""
    return wrapped(f"{order}{word}{bare(edge.condition)}", LONGEST_CONDITION, MOST_LINES)


def bare(condition: str) -> str:
    """A condition on one line, without its outer braces."""
    text = " ".join(condition.split())
    inside = re.fullmatch(r"\{\{-?\s*(.*?)\s*-?\}\}", text)
    return inside[1] if inside is not None and "}}" not in inside[1] else text


def shortened(text: str, most: int) -> str:
    """A text on one line of at most so many characters, cut at its end."""
    line = printable(text)
    return line if len(line) <= most else line[: most - 1].rstrip() + CUT


def cut_at_front(text: str, most: int) -> str:
    """A path on one line of at most so many characters, cut at its start."""
    line = printable(text)
    return line if len(line) <= most else CUT + line[1 - most :]


def printable(text: str) -> str:
    """A text on one line, with invisible characters escaped."""
    return visible(" ".join(text.split()))


def wrapped(text: str, width: int, most: int) -> tuple[str, ...]:
    """A text on at most so many lines, broken between words where possible, cut at its end."""
    rest = printable(text)
    lines: list[str] = []
    while len(rest) > width and len(lines) < most - 1:
        blank = rest.rfind(" ", width // 2, width + 1)
        cut = blank if blank > 0 else width
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return (*lines, shortened(rest, width))

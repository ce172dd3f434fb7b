"""SVG path data: the outlines of boxes, the symbols of states, the heads of arrows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from noetl_broker.diagram.layout import Box, Point
from noetl_broker.diagram.model import Shape, State

CORNER = 7.0  # radius
SLANT = 14.0  # width of a hexagon's points
STACK = 4.0  # offset of each sheet of a stack
SIDE = 7.0  # width of the bars that mark a called playbook
SNIP = 12.0  # size of the cut corner of a step that continues on error
HEAD_LENGTH, HEAD_WIDTH = 8.0, 3.6


def number(value: float) -> str:
    """A coordinate to a tenth, without trailing zeros."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def at(x: float, y: float) -> str:
    """A point as path data."""
    return f"{number(x)} {number(y)}"


def rounded(box: Box, radius: float = CORNER) -> str:
    """A rectangle with round corners."""
    x, y, width, height = box
    r = min(radius, width / 2, height / 2)
    arc = f"a{number(r)} {number(r)} 0 0 1"
    return (
        f"M{at(x + r, y)}h{number(width - 2 * r)}{arc} {at(r, r)}v{number(height - 2 * r)}{arc} {at(-r, r)}"
        f"h{number(2 * r - width)}{arc} {at(-r, -r)}v{number(2 * r - height)}{arc} {at(r, -r)}z"
    )


def snipped(box: Box) -> str:
    """A rectangle without its upper right corner."""
    x, y, width, height = box
    r = CORNER
    arc = f"a{number(r)} {number(r)} 0 0 1"
    return (
        f"M{at(x + r, y)}h{number(width - r - SNIP)}l{at(SNIP, SNIP)}v{number(height - SNIP - r)}{arc} {at(-r, r)}"
        f"h{number(2 * r - width)}{arc} {at(-r, -r)}v{number(2 * r - height)}{arc} {at(r, -r)}z"
    )


def pill(box: Box) -> str:
    """A rectangle with nearly half-circular short sides."""
    return rounded(box, 20.0)


def hexagon(box: Box) -> str:
    """A hexagon with its points at the sides."""
    x, y, width, height = box
    return (
        f"M{at(x + SLANT, y)}h{number(width - 2 * SLANT)}l{at(SLANT, height / 2)}l{at(-SLANT, height / 2)}"
        f"h{number(2 * SLANT - width)}l{at(-SLANT, -height / 2)}z"
    )


OUTLINES: Mapping[Shape, Callable[[Box], str]] = {
    "start": pill,
    "end": pill,
    "router": hexagon,
    "action": rounded,
    "playbook": rounded,
    "iterator": rounded,
    "wait": pill,
    "approval": pill,
    "signal": pill,
    "fail": hexagon,
}


def inside(shape: Shape, box: Box) -> list[str]:
    """The marks inside a shape: a second outline, or bars at the sides."""
    x, y, width, height = box
    if shape == "end":
        return [pill(Box(x + 3, y + 3, width - 6, height - 6))]
    if shape == "playbook":
        return [f"M{at(left, y)}v{number(height)}" for left in (x + SIDE, x + width - SIDE)]
    return []


def behind(shape: Shape, box: Box) -> list[str]:
    """The marks behind a shape: the sheets of a stack."""
    if shape != "iterator":
        return []
    x, y, width, height = box
    edge = f"v{number(height - 2 * CORNER)}a{number(CORNER)} {number(CORNER)} 0 0 1 {at(-CORNER, CORNER)}"
    return [
        f"M{at(x + width + back, y + CORNER + back)}{edge}h{number(2 * CORNER - width)}" for back in (STACK, 2 * STACK)
    ]


def join_bar(join: str, box: Box) -> str:
    """The bar at the top of a join: one part for `all`, two for `any`, four for `each`."""
    inset = 18.0
    left, right, y = box.x + inset, box.x + box.width - inset, box.y
    parts = {"all": 1, "any": 2, "each": 4}[join]
    gap = 12.0
    length = (right - left - gap * (parts - 1)) / parts
    return "".join(f"M{at(left + index * (length + gap), y)}h{number(length)}" for index in range(parts))


def polyline(points: Sequence[Point], radius: float = 8.0) -> str:
    """A line through the points, with round bends."""
    path = f"M{at(*points[0])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        r = min(radius, _distance(before, corner) / 2, _distance(corner, after) / 2)
        path += f"L{at(*_towards(corner, before, r))}Q{at(*corner)} {at(*_towards(corner, after, r))}"
    return f"{path}L{at(*points[-1])}"


def arrow_head(points: Sequence[Point]) -> str:
    """The head at the end of a line through the points."""
    tip, before = points[-1], points[-2]
    back = _towards(tip, before, HEAD_LENGTH)
    length = max(_distance(tip, before), 1e-6)
    across = ((tip[1] - before[1]) / length * HEAD_WIDTH, (before[0] - tip[0]) / length * HEAD_WIDTH)
    left, right = (back[0] + across[0], back[1] + across[1]), (back[0] - across[0], back[1] - across[1])
    return f"M{at(*tip)}L{at(*left)}L{at(*right)}z"


def without_head(points: Sequence[Point]) -> list[Point]:
    """The line without the part that its head covers, so that a thick line is not seen beside the tip."""
    return [*points[:-1], _towards(points[-1], points[-2], HEAD_LENGTH - 1)]


def _distance(one: Point, other: Point) -> float:
    return float(((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5)


def _towards(start: Point, goal: Point, length: float) -> Point:
    part = length / max(_distance(start, goal), 1e-6)
    return (start[0] + (goal[0] - start[0]) * part, start[1] + (goal[1] - start[1]) * part)


# Around (0, 0), within a radius of 4, drawn on the disc of a state.
SYMBOLS: Mapping[State, str] = {
    "pending": "",
    "unreached": "",
    "waiting": "M-3 0h0.01M0 0h0.01M3 0h0.01",
    "queued": "M-3 0h0.01M0 0h0.01M3 0h0.01",
    "asking": "M-3 0h0.01M0 0h0.01M3 0h0.01",
    "due_later": "M-3 0h0.01M0 0h0.01M3 0h0.01",
    "held": "M-1.8 -2.8v5.6M1.8 -2.8v5.6",
    "running": "M-1.6 -2.8L2.8 0L-1.6 2.8z",
    "retrying": "M2.9 -1.2a3.1 3.1 0 1 0 0.1 2.4M3.2 -3.6v2.6h-2.6",
    "completed": "M-2.9 0.2L-0.8 2.4L3 -2.2",
    "failed": "M-2.4 -2.4L2.4 2.4M2.4 -2.4L-2.4 2.4",
    "went_on": "M-2.4 -2.4L2.4 2.4M2.4 -2.4L-2.4 2.4",
    "cancelled": "M-2.7 2.7L2.7 -2.7",
}

"""Reads a rendered SVG: the places of its boxes, labels and edges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"
_TOKEN = re.compile(r"[a-zA-Z]|-?\d+(?:\.\d+)?")
_NUMBERS = {"M": 2, "L": 2, "l": 2, "h": 1, "v": 1, "a": 7, "Q": 4, "z": 0}

Point = tuple[float, float]


class Bounds(NamedTuple):
    """A rectangle by two corners."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Bounds) -> bool:
        """Whether the two have an area in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def has_on_edge(self, point: Point, *, tolerance: float = 1.0) -> bool:
        """Whether a point is on the edge or near it."""
        x, y = point
        inside = self.left - tolerance <= x <= self.right + tolerance and (
            self.top - tolerance <= y <= self.bottom + tolerance
        )
        deep = self.left + tolerance < x < self.right - tolerance and (
            self.top + tolerance < y < self.bottom - tolerance
        )
        return inside and not deep


class Arc(NamedTuple):
    """One arc: the names in its caption, its classes, where its line begins, where its head points, its label."""

    source: str
    target: str
    fate: str
    begins: Point
    points_at: Point
    label: Bounds | None
    texts: tuple[str, ...]


class Drawing:
    """A picture as it was drawn."""

    def __init__(self, text: str) -> None:
        self.root = ET.fromstring(text)  # noqa: S314 - our own text

    @property
    def boxes(self) -> dict[str, Bounds]:
        """The outline of each step."""
        return {_caption(group): _bounds(_only(group, "box")) for group in self._groups("step")}

    @property
    def styles(self) -> dict[str, str]:
        """How each step is styled."""
        return {_caption(group): group.get("class", "").removeprefix("step ") for group in self._groups("step")}

    @property
    def arcs(self) -> list[Arc]:
        """The arcs, in the order in which they are drawn."""
        return [_arc(group) for group in self._groups("line")]

    @property
    def words(self) -> set[str]:
        """Every text that is drawn."""
        return {text.text or "" for text in self.root.iter(f"{SVG}text")}

    def _groups(self, name: str) -> Iterator[ET.Element]:
        main = next(self.root.iter(f"{SVG}g"), self.root)  # blocks have places of their own
        return (group for group in main.iter(f"{SVG}g") if group.get("class", "").split()[:1] == [name])


def _arc(group: ET.Element) -> Arc:
    source, _, target = _caption(group).partition(" → ")
    chips = [path for path in group.iter(f"{SVG}path") if path.get("class") == "chip"]
    first = next(path for path in group.iter(f"{SVG}path") if path.get("class") == "arc")
    return Arc(
        source,
        target,
        group.get("class", "").removeprefix("line").strip(),
        _points(first)[0],
        _points(_only(group, "head"))[0],
        _bounds(chips[0]) if chips else None,
        tuple(text.text or "" for text in group.iter(f"{SVG}text")),
    )


def _caption(group: ET.Element) -> str:
    return (group.findtext(f"{SVG}title") or "").partition("\n")[0]


def _only(group: ET.Element, name: str) -> ET.Element:
    [found] = [path for path in group.iter(f"{SVG}path") if path.get("class") == name]
    return found


def _bounds(path: ET.Element) -> Bounds:
    points = _points(path)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Bounds(min(xs), min(ys), max(xs), max(ys))


def _points(path: ET.Element) -> list[Point]:
    """The points that a path passes."""
    tokens = _TOKEN.findall(path.get("d", ""))
    points: list[Point] = []
    x = y = 0.0
    while tokens:
        command = tokens.pop(0)
        numbers = [float(tokens.pop(0)) for _ in range(_NUMBERS[command])]
        if command in "ML":
            x, y = numbers
        elif command == "Q":
            x, y = numbers[2:]
        elif command in "la":
            x, y = x + numbers[-2], y + numbers[-1]
        elif command == "h":
            x += numbers[0]
        elif command == "v":
            y += numbers[0]
        points.append((x, y))
    return points

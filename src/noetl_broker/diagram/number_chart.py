"""Renders numbers along the time as SVG with axes: stacked columns, or lines of durations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import log
from typing import NamedTuple
from xml.etree import ElementTree as ET

from noetl_broker.diagram.shapes import number
from noetl_broker.diagram.svg import STYLE
from noetl_broker.diagram.text_width import text_width
from noetl_broker.diagram.time_chart import CHART_STYLE, TICKS, short_span

LEFT, RIGHT, TOP, AXIS = 52.0, 12.0, 10.0, 22.0  # around the plot; AXIS has the times
WIDE, NARROW, HEIGHT = 1040.0, 452.0, 132.0  # of the plot
UNEVEN = 50.0  # from this ratio of the longest to the shortest on, the scale of lines is logarithmic
DECADES = (0.001, 0.01, 0.1, 1, 10, 60, 600, 3_600, 36_000, 86_400, 864_000, 8_640_000, 86_400_000)  # its marks
LEAST = 2.0  # height of a piece that is not 0
PER_MARK = 75.0  # width for one of the times
MARKS = (1, 2, 3, 6, 12, 24, 48, 72, 168, 336)  # hours between them
ROWS = 4  # of the scale, about
DAY = timedelta(days=1)


class Column(NamedTuple):
    """One time: what its tooltip says, where it leads, and its pieces from the bottom, each a tone and a number.

    `values` are the points of lines, in the order of their names; None: there is none.
    """

    at: datetime
    tip: str
    href: str | None = None
    pieces: tuple[tuple[str, float], ...] = ()
    values: tuple[float | None, ...] = ()
    is_missing: bool = False


class NumberChart:
    """Draws columns in their order of time. `lines` are classes of lines; with them, the values are seconds."""

    def __init__(
        self, title: str, columns: Sequence[Column], *, lines: Sequence[str] = (), width: float = WIDE
    ) -> None:
        self.title, self.columns, self.lines, self.width = title, columns, lines, width
        self.step = width / max(len(columns), 1)
        found = [value for column in columns for value in column.values if value is not None]
        highest = max([*found, *(sum(size for _, size in column.pieces) for column in columns)], default=0)
        self.is_uneven = bool(found) and highest > UNEVEN * max(min(found), DECADES[0])
        if self.is_uneven:
            self.scale = [*_decades(min(found), highest)]
        else:
            self.scale = [*_scale(highest, TICKS if lines else _whole_numbers())]
        self.size = LEFT + width + RIGHT, TOP + HEIGHT + AXIS

    def svg(self, *, style: bool = True) -> str:
        """The chart as the text of an SVG file."""
        width, height = map(number, self.size)
        is_linked = any(column.href for column in self.columns)
        root = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "class": "nb numbers",
                "viewBox": f"0 0 {width} {height}",
                "width": width,
                "height": height,
                "role": "group" if is_linked else "img",  # an image has no links for who does not see it
                "aria-label": self.title,
            },
        )
        if style:
            text = f"\n{STYLE.read_text(encoding='utf-8')}{CHART_STYLE.read_text(encoding='utf-8')}"
            ET.SubElement(root, "style").text = text
        ET.SubElement(root, "rect", {"class": "paper", "width": "100%", "height": "100%"})
        self._draw_scale(root)
        self._draw_marks(root)
        for index, column in enumerate(self.columns):
            self._draw_column(root, index, column)
        for index, name in enumerate(self.lines):
            self._draw_line(root, index, name)
        return f"{ET.tostring(root, encoding='unicode')}\n"

    def _x(self, index: float) -> float:
        return LEFT + index * self.step

    def _y(self, value: float) -> float:
        lowest, highest = self.scale[0], self.scale[-1]
        if self.is_uneven:
            return TOP + HEIGHT * (1 - log(max(value, lowest) / lowest) / log(highest / lowest))
        return TOP + HEIGHT * (1 - min(value / (highest or 1), 1))

    def _draw_scale(self, root: ET.Element) -> None:
        for value in self.scale:
            _line(root, (LEFT, self._y(value)), (LEFT + self.width, self._y(value)))
            text = short_span(value) if self.lines else f"{value:,.0f}"
            _text(root, "tick end", LEFT - 6, self._y(value) + 4, text)

    def _draw_marks(self, root: ET.Element) -> None:
        """The times below the plot."""
        if not self.columns:
            return
        hours = max((self.columns[-1].at - self.columns[0].at).total_seconds() / 3600, 1)
        step = next((each for each in MARKS if hours / each <= self.width / PER_MARK), MARKS[-1])
        free = 0.0
        for index, column in enumerate(self.columns):
            at = column.at.astimezone(UTC)
            if int(at.timestamp() // 3600) % step or at.minute:
                continue
            x = self._x(index)
            text = f"{at.day} {at:%b}" if step >= DAY.total_seconds() / 3600 or not at.hour else f"{at:%H:%M}"
            half = text_width(text, 11.0) / 2
            if x - half < free or x + half > self.size[0]:
                continue
            free = x + half + 8
            _line(root, (x, TOP + HEIGHT), (x, TOP + HEIGHT + 4))
            _text(root, "tick", x, TOP + HEIGHT + 16, text)

    def _draw_column(self, root: ET.Element, index: int, column: Column) -> None:
        where = root if column.href is None else ET.SubElement(root, "a", {"href": column.href, "tabindex": "-1"})
        group = ET.SubElement(where, "g")
        ET.SubElement(group, "title").text = column.tip
        _rect(group, "gap" if column.is_missing else "hit", (self._x(index), TOP, self.step, HEIGHT))
        inset = min(1.5, self.step * 0.12)
        bottom = TOP + HEIGHT
        for tone, size in column.pieces:
            if size:
                height = max(TOP + HEIGHT - self._y(size), LEAST)
                bottom = max(bottom - height, TOP)
                toned = ET.SubElement(group, "g", {"class": tone})
                _rect(toned, "work", (self._x(index) + inset, bottom, self.step - 2 * inset, height))

    def _draw_line(self, root: ET.Element, index: int, name: str) -> None:
        """A line through the middles of the columns; it has a gap where there is no value."""
        points = [
            None if value is None else (self._x(place + 0.5), self._y(value))
            for place, column in enumerate(self.columns)
            for value in [column.values[index]]
        ]
        path = "".join(
            f"{'M' if before is None else 'L'}{number(point[0])} {number(point[1])}"
            for before, point in pairwise([None, *points])
            if point is not None
        )
        if path:
            ET.SubElement(root, "path", {"class": f"trend {name}", "d": path})
        for before, point, after in zip([None, *points], points, [*points[1:], None], strict=False):
            if point is not None and before is None and after is None:
                where = {"cx": number(point[0]), "cy": number(point[1]), "r": "2.5"}
                ET.SubElement(root, "circle", {"class": f"dot {name}", **where})


def _scale(highest: float, steps: Iterator[float] | Sequence[float]) -> Iterator[float]:
    """The values of the scale, from 0 to at least the highest."""
    step = next((each for each in steps if highest / each <= ROWS), highest / ROWS)
    value = 0.0
    yield value
    while value < highest or not value:
        value += step
        yield value


def _decades(lowest: float, highest: float) -> Iterator[float]:
    """The marks of a logarithmic scale, the first at most the lowest, the last at least the highest."""
    first = max((index for index, each in enumerate(DECADES) if each <= lowest), default=0)
    for each in DECADES[first:]:
        yield each
        if each >= highest:
            return


def _whole_numbers() -> Iterator[float]:
    size = 1
    while True:
        yield from (size, 2 * size, 5 * size)
        size *= 10


def _text(parent: ET.Element, name: str, x: float, y: float, text: str) -> ET.Element:
    element = ET.SubElement(parent, "text", {"class": name, "x": number(x), "y": number(y)})
    element.text = text
    return element


def _line(parent: ET.Element, begin: tuple[float, float], end: tuple[float, float]) -> None:
    where = {"x1": number(begin[0]), "y1": number(begin[1]), "x2": number(end[0]), "y2": number(end[1])}
    ET.SubElement(parent, "line", {"class": "grid", **where})


def _rect(parent: ET.Element, name: str, box: tuple[float, float, float, float]) -> None:
    x, y, width, height = map(number, box)
    ET.SubElement(parent, "rect", {"class": name, "x": x, "y": y, "width": width, "height": height})

"""Renders the visits of an execution along the time as SVG: a lane a step, a bar a visit; many bars become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from math import inf
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from noetl_broker.diagram.labels import printable, shortened
from noetl_broker.diagram.shapes import number
from noetl_broker.diagram.svg import STYLE
from noetl_broker.diagram.text_width import text_width
from noetl_broker.history.visit_spans import (
    Attempt,
    ChildSpan,
    ExecutionSpans,
    StepLane,
    VisitSpan,
    times_of,
    times_text,
)
from noetl_broker.node_ids import visit_name
from noetl_broker.text import moment, span

CHART_STYLE = Path(__file__).with_name("time_chart.css")
WIDTH = 660.0  # of the plot
RIGHT = 244.0  # of it, for the labels of bars that end last
MARGIN = 12.0
AXIS = 26.0  # height
GUTTER = 176.0  # for the names of steps
BAR, CHILD_BAR = 14.0, 8.0  # heights
ROW, CHILD_ROW = 20.0, 11.0  # heights of a row of bars
GAP = 6.0  # between lanes
NARROWEST = 3.0  # width of a bar
FOLDED = 36.0  # width from which bars that touch are no longer folded into one
MOST_LANES, MOST_ROWS, MOST_CHILD_ROWS = 80, 4, 6
FEWEST_TICKS = 6
TICKS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600),
    *(7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000, 2_592_000, 7_776_000, 31_536_000),
)  # seconds
# The class of a bar by the status of its visit, the worst first.
STYLES = {
    "FAILED": "bad",
    "CAUGHT": "warn",
    "RUNNING": "run",
    "QUEUED": "run",
    "PAUSED": "run",
    "COMPENSATING": "warn",
    "WAITING": "due",
    "CANCELLED": "gone",
    "COMPLETED": "ok",
}
WORDS = {"CAUGHT": "failed, went on", "WAITING": "waits"}
RANK = {status: index for index, status in enumerate(STYLES)}

Link = Callable[[str, int | None], str]  # the address of a step or of a visit of it


class Bar(NamedTuple):
    """One visit or child, or several that lie close together; `x` and `until` are places in the plot."""

    x: float
    until: float
    status: str
    number: int
    visit: VisitSpan | ChildSpan  # the first of them
    last: VisitSpan | ChildSpan


class Placed(NamedTuple):
    """A lane with the rows of its visits and of its children, and its place; `hidden` bars have no room."""

    lane: StepLane
    rows: tuple[tuple[Bar, ...], ...]
    children: tuple[tuple[Bar, ...], ...]
    top: float
    height: float
    hidden: int


class TimeChart:
    """Draws the spans of an execution. `at`: the moment of a turn, which is marked; what is later is pale."""

    def __init__(
        self, spans: ExecutionSpans, *, names: bool = True, link: Link | None = None, at: datetime | None = None
    ) -> None:
        """`names`: with a column of names; without, the caller shows them. `link` makes bars links."""
        self.spans = spans
        self.seconds = max((spans.until_at - spans.began_at).total_seconds(), 0.001)
        self.left = MARGIN + (GUTTER if names else 0.0)
        self.names, self.link, self.at = names, link, at
        self.queued = self.left if spans.queued_until is None else self.x_of(spans.queued_until)
        self.lanes = tuple(self._place(spans.lanes[:MOST_LANES]))
        self.height = (self.lanes[-1].top + self.lanes[-1].height if self.lanes else AXIS + ROW) + GAP
        self.size = self.left + WIDTH + RIGHT, self.height

    def svg(self, *, style: bool = True) -> str:
        """The chart as the text of an SVG file."""
        root = self._root(style=style)
        self._draw_axis(root)
        self._draw_queued(root)
        for placed in self.lanes:
            self._draw_lane(root, placed)
        if self.at is not None:
            self._draw_cursor(root, self.at)
        return f"{ET.tostring(root, encoding='unicode')}\n"

    def x_of(self, at: datetime) -> float:
        """The place of a moment."""
        part = (at - self.spans.began_at).total_seconds() / self.seconds
        return self.left + WIDTH * min(max(part, 0.0), 1.0)

    def _place(self, lanes: Iterable[StepLane]) -> Iterable[Placed]:
        top = AXIS
        for lane in lanes:
            rows, more = self._rows(lane.visits, MOST_ROWS)
            children, hidden = self._rows(lane.children, MOST_CHILD_ROWS)
            hidden += more
            height = ROW * max(len(rows), 1) + CHILD_ROW * len(children) + GAP
            yield Placed(lane, rows, children, top, height, hidden)
            top += height

    def _rows(self, visits: Sequence[VisitSpan | ChildSpan], most: int) -> tuple[tuple[tuple[Bar, ...], ...], int]:
        """Bars side by side in as few rows as they need; those that find no room in `most` rows are counted."""
        rows: list[list[Bar]] = []
        hidden = 0
        for visit in visits:
            x, until = self.x_of(visit.began_at), self.x_of(visit.ended_at or self.spans.until_at)
            bar = Bar(x, max(until, x + NARROWEST), visit.status, 1, visit, visit)
            free = next((row for row in rows if row[-1].until <= x + NARROWEST), None)
            touched = next((row for row in rows if _fold(row[-1], bar)), None)
            if touched is not None and (free is None or free is touched or len(visits) > MOST_LANES):
                touched[-1] = _folded(touched[-1], bar)
            elif free is not None:
                free.append(bar._replace(x=max(x, free[-1].until)) if free[-1].until > x else bar)
            elif len(rows) < most:
                rows.append([bar])
            else:
                hidden += 1
        return tuple(map(tuple, rows)), hidden

    def _root(self, *, style: bool) -> ET.Element:
        width, height = map(number, self.size)
        root = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "class": "nb time",
                "viewBox": f"0 0 {width} {height}",
                "width": width,
                "height": height,
                "role": "img" if self.link is None else "group",  # an image has no links for who does not see it
                "aria-label": f"timeline of execution {self.spans.execution_id}",
            },
        )
        if style:
            text = f"\n{STYLE.read_text(encoding='utf-8')}{CHART_STYLE.read_text(encoding='utf-8')}"
            ET.SubElement(root, "style").text = text
        ET.SubElement(root, "rect", {"class": "paper", "width": "100%", "height": "100%"})
        return root

    def _draw_axis(self, root: ET.Element) -> None:
        step = next((tick for tick in reversed(TICKS) if self.seconds / tick >= FEWEST_TICKS), TICKS[0])
        count = int(self.seconds / step)
        bottom = number(self.height - GAP)
        for index in range(count + 1):
            x = self.left + WIDTH * index * step / self.seconds
            where = {"x1": number(x), "x2": number(x), "y1": number(AXIS - 6), "y2": bottom}
            ET.SubElement(root, "line", {"class": "grid", **where})
            _text(root, "tick", x, 14, short_span(index * step))
        for placed in self.lanes[1:]:
            y = number(placed.top - GAP / 2)
            ET.SubElement(root, "line", {"class": "rule", "x1": "0", "x2": number(self.size[0]), "y1": y, "y2": y})

    def _draw_queued(self, root: ET.Element) -> None:
        """The time before the first step in which the execution was queued, in the room of the first lane."""
        if self.spans.queued_until is None:
            return
        took = span((self.spans.queued_until - self.spans.began_at).total_seconds())
        width = max(self.queued - self.left, NARROWEST)
        group = ET.SubElement(root, "g")
        ET.SubElement(group, "title").text = f"queued for {took}, before the first step"
        _rect(group, "held", (self.left, AXIS + 5, width, BAR - 6))
        text = f"queued {took}"
        if text_width(text, 11.0) + 24 < width:
            _plate(group, self.left + 8, AXIS + 2, text)

    def _draw_lane(self, root: ET.Element, placed: Placed) -> None:
        lane = placed.lane
        group = ET.SubElement(root, "g")
        if self.names:
            name = _text(_linked(group, self._href(lane.step, None)), "lane", MARGIN, placed.top + 14, _cut(lane.step))
            ET.SubElement(name, "title").text = printable(lane.step)
        for row, bars in enumerate(placed.rows):
            y = placed.top + 2 + ROW * row
            for index, bar in enumerate(bars):
                self._draw_visit(group, lane, bar, y)
                before = bars[index - 1].until if index else self.queued
                following = bars[index + 1].x if index + 1 < len(bars) else inf
                is_last = index + 1 == len(bars) and row == 0
                self._draw_label(group, bar, y, (before, following), lane.note if is_last else "")
        for row, bars in enumerate(placed.children):
            y = placed.top + ROW * max(len(placed.rows), 1) + CHILD_ROW * row
            for bar in bars:
                self._draw_child(group, bar, y)
        if placed.hidden:
            y = placed.top + placed.height - GAP
            _text(group, "note", self.left + WIDTH - 120, y, f"and {placed.hidden:,} more")

    def _draw_visit(self, group: ET.Element, lane: StepLane, bar: Bar, y: float) -> None:
        first = bar.visit
        assert isinstance(first, VisitSpan)  # noqa: S101 - rows of visits hold visits
        inner = ET.SubElement(_linked(group, self._href(lane.step, first.visit)), "g", {"class": _style(bar.status)})
        ET.SubElement(inner, "title").text = self._tooltip(lane.step, bar)
        _rect(inner, "span", (bar.x, y, bar.until - bar.x, BAR))
        if bar.number > 1:
            if bar.until - bar.x > text_width(f"×{bar.number}", 10.0, bold=True) + 4:
                _text(inner, "many", (bar.x + bar.until) / 2, y + 10.5, f"×{bar.number}")
            return
        times = times_of(first, self.spans.until_at)
        if times is not None:
            held, queued = (min(self.x_of(at), bar.until) for at in (times.held_until, times.queued_until))
            _rect(inner, "held", (bar.x, y + 3, held - bar.x, BAR - 6))
            _rect(inner, "queue", (held, y + 3, queued - held, BAR - 6))
        elif (lane.note or lane.children) and first.status != "WAITING":  # others work for it
            _rect(inner, "work", (bar.x, y + 3, bar.until - bar.x, BAR - 6))
        for attempt in first.attempts:
            x, until = self._part(bar, attempt)
            _rect(inner, "work lost" if attempt.failed else "work", (x, y + 3, until - x, BAR - 6))

    def _part(self, bar: Bar, attempt: Attempt) -> tuple[float, float]:
        x = max(self.x_of(attempt.began_at), bar.x)
        until = min(self.x_of(attempt.ended_at or self.spans.until_at), bar.until)
        return min(x, bar.until - 1.5), max(until, min(x, bar.until - 1.5) + 1.5)

    def _draw_label(self, group: ET.Element, bar: Bar, y: float, room: tuple[float, float], note: str) -> None:
        """The duration, and a note, beside the bar: on its right, else on its left, where there is room."""
        took = ((bar.last.ended_at or self.spans.until_at) - bar.visit.began_at).total_seconds()
        retries = len(bar.visit.attempts) - 1 if bar.number == 1 and isinstance(bar.visit, VisitSpan) else 0
        words = [span(took), f"{retries + 1} attempts" if retries > 0 else "", note]
        text = " · ".join(word for word in words if word)
        width = text_width(text, 11.0) + 8
        before, following = room
        if bar.until + width < min(following, self.size[0]):
            _text(group, "note", bar.until + 6, y + 11, text)
        elif following == inf and bar.x - width > before:
            _text(group, "note", bar.x - width + 2, y + 11, text)
        elif following == inf and bar.number == 1 and bar.until - bar.x > width:
            _plate(group, bar.x + 8, y, text)

    def _draw_child(self, group: ET.Element, bar: Bar, y: float) -> None:
        child = bar.visit
        assert isinstance(child, ChildSpan)  # noqa: S101 - rows of children hold children
        href = None if self.link is None else f"/executions/{child.execution_id}"
        inner = ET.SubElement(_linked(group, href if bar.number == 1 else None), "g", {"class": _style(bar.status)})
        took = span(((bar.last.ended_at or self.spans.until_at) - child.began_at).total_seconds())
        whose = (
            f"{bar.number} children" if bar.number > 1 else f"child {child.execution_id} {printable(child.path or '')}"
        )
        ET.SubElement(inner, "title").text = f"{whose}: {_word(bar.status)}, {took}"
        _rect(inner, "span", (bar.x, y, bar.until - bar.x, CHILD_BAR))

    def _draw_cursor(self, root: ET.Element, at: datetime) -> None:
        x = self.x_of(at)
        right = self.size[0]
        _rect(root, "later", (x, AXIS - 6, right - x, self.height - AXIS + 6), corner=0)
        where = {"x1": number(x), "x2": number(x), "y1": number(AXIS - 8), "y2": number(self.height - GAP)}
        ET.SubElement(root, "line", {"class": "cursor", **where})
        ET.SubElement(root, "path", {"class": "pin", "d": f"M{number(x - 5)} {number(AXIS - 14)}h10l-5 8z"})

    def _tooltip(self, step: str, bar: Bar) -> str:
        visit = bar.visit
        took = span(((bar.last.ended_at or self.spans.until_at) - visit.began_at).total_seconds())
        if bar.number > 1:
            return f"{printable(step)}: {bar.number} visits within {took}; the worst {_word(bar.status)}"
        assert isinstance(visit, VisitSpan)  # noqa: S101 - rows of visits hold visits
        lines = [
            f"{printable(visit_name(step, visit.visit))}: {_word(bar.status)}",
            f"{moment(visit.began_at)}, {took}",
        ]
        times = times_text(visit, self.spans.until_at)
        return "\n".join([*lines, *([times] if times else [])])

    def _href(self, step: str, visit: int | None) -> str | None:
        return None if self.link is None else self.link(step, visit)


def short_span(seconds: float) -> str:
    """A mark of the scale: `250 ms`, `5 s`, `2 min`, `3 h`, `4 d`."""
    if seconds == 0:
        return "0"
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= unit - 1e-9:
            return f"{round(seconds / unit, 2):g} {name}"
    return f"{round(seconds * 1000):g} ms"


def lane_heights(chart: TimeChart) -> list[tuple[str, float]]:
    """The names of the lanes with the heights of their rows, for a column of names beside the chart."""
    return [(placed.lane.step, placed.height) for placed in chart.lanes]


def _fold(before: Bar, bar: Bar) -> bool:
    """Whether a bar becomes one with the bar before it: both are narrow, and they touch."""
    return bar.x < before.until + 2 and before.until - before.x < FOLDED and bar.until - bar.x < 2 * NARROWEST


def _folded(before: Bar, bar: Bar) -> Bar:
    worst = min(before.status, bar.status, key=lambda status: RANK.get(status, len(RANK)))
    return before._replace(until=max(before.until, bar.until), status=worst, number=before.number + 1, last=bar.visit)


def _style(status: str) -> str:
    return STYLES.get(status, "run")


def _word(status: str) -> str:
    return WORDS.get(status, status.lower())


def _cut(name: str) -> str:
    return shortened(name, 24)


def _plate(group: ET.Element, x: float, y: float, text: str) -> None:
    """A label on a bar."""
    plate = ET.SubElement(group, "g", {"class": "label"})
    _rect(plate, "paper", (x, y + 1, text_width(text, 11.0) + 12, BAR - 2))
    _text(plate, "note", x + 4, y + 11, text)


def _linked(group: ET.Element, href: str | None) -> ET.Element:
    return group if href is None else ET.SubElement(group, "a", {"href": href})


def _rect(group: ET.Element, name: str, box: tuple[float, float, float, float], *, corner: float = 3.0) -> None:
    x, y, width, height = box
    places = {"x": x, "y": y, "width": max(width, 0.5), "height": height, "rx": min(corner, width / 2, height / 2)}
    ET.SubElement(group, "rect", {"class": name, **{key: number(value) for key, value in places.items()}})


def _text(group: ET.Element, name: str, x: float, y: float, text: str) -> ET.Element:
    found = ET.SubElement(group, "text", {"class": name, "x": number(x), "y": number(y)})
    found.text = text
    return found

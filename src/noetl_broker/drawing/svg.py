"""A picture as one SVG file that needs nothing beside it: no script, no font, no link."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from noetl_broker.drawing import shapes
from noetl_broker.drawing.boxes import Card, card_of, chip_of
from noetl_broker.drawing.captions import (
    beginning_of,
    full_text_of,
    full_text_of_line,
    headline_of,
    message_of,
    standing_of,
    summary_of,
    title_of,
)
from noetl_broker.drawing.layout import Box, Plan, Point, Size, Wire, place
from noetl_broker.drawing.letters import width_of
from noetl_broker.drawing.picture import Line, Node, Picture
from noetl_broker.drawing.shapes import number
from noetl_broker.drawing.words import Label, label_of, wrapped

STYLE = Path(__file__).with_name("style.css")
MARGIN = 24.0
HEADER_GAP = 22.0  # between the headline and the drawing
LEGEND = "thick: taken, ×n: how often; dashed: not taken; ✓ ✗: how a condition came out; times are UTC"
LEGEND_SIZE, LEGEND_HEIGHT = 11.0, 30.0
MESSAGE_WIDTH, MESSAGE_LINES = 90, 3  # characters
WIDER_FONT = 1.15  # a line above the drawing has no box to stay in, but ends where the file does


class Headline(NamedTuple):
    """One line of text above the drawing: its class, its size, the height that it takes."""

    name: str
    text: str
    size: float
    height: float


def as_svg(picture: Picture) -> str:
    """Give the picture as the text of an SVG file; OperatorFault where the layout library is missing."""
    cards = [card_of(node) for node in picture.nodes]
    labels = [label_of(line) for line in picture.lines]
    plan = _plan(picture, cards, labels)
    header = _header(picture)
    size = _size(picture, plan, header)
    root = _root(picture, size)
    _draw_header(root, header)
    if picture.run is not None:
        _text(root, ("legend", LEGEND, MARGIN, size.height - MARGIN + 8))
    left, top = (size.width - plan.size.width) / 2, MARGIN + sum(line.height for line in header) + HEADER_GAP
    body = ET.SubElement(root, "g", {"transform": _at((left, top))})
    _draw_lines(body, picture, labels, plan)
    for node, card, box in zip(picture.nodes, cards, plan.boxes, strict=True):
        _draw_step(body, node, card, box)
    ET.indent(root, space=" ")
    return f"{ET.tostring(root, encoding='unicode')}\n"


def _plan(picture: Picture, cards: list[Card], labels: list[Label | None]) -> Plan:
    places = {node.id: index for index, node in enumerate(picture.nodes)}
    wires = [
        Wire(places[line.source], places[line.target], None if label is None else chip_of(label).size)
        for line, label in zip(picture.lines, labels, strict=True)
    ]
    return place([card.size for card in cards], wires)


def _root(picture: Picture, size: Size) -> ET.Element:
    width, height = number(size.width), number(size.height)
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "nb",
            "viewBox": f"0 0 {width} {height}",
            "width": width,
            "height": height,
            "role": "img",
            "aria-label": headline_of(picture),
        },
    )
    ET.SubElement(root, "title").text = headline_of(picture)
    ET.SubElement(root, "desc").text = summary_of(picture)
    ET.SubElement(root, "style").text = f"\n{STYLE.read_text(encoding='utf-8')}"
    ET.SubElement(root, "rect", {"class": "paper", "width": "100%", "height": "100%"})
    return root


def _header(picture: Picture) -> list[Headline]:
    lines = [Headline("title", title_of(picture), 17.0, 22.0)]
    if picture.run is not None:
        lines += [Headline("subtitle", text(picture.run), 12.0, 17.0) for text in (standing_of, beginning_of)]
        message = message_of(picture.run)
        if message:
            lines += [Headline("message", line, 11.0, 16.0) for line in wrapped(message, MESSAGE_WIDTH, MESSAGE_LINES)]
    return lines


def _size(picture: Picture, plan: Plan, header: list[Headline]) -> Size:
    texts = [width_of(line.text, line.size, bold=line.name == "title") for line in header]
    legend = 0.0
    if picture.run is not None:
        texts.append(width_of(LEGEND, LEGEND_SIZE))
        legend = LEGEND_HEIGHT
    edge = 2 * shapes.STACK
    height = sum(line.height for line in header) + HEADER_GAP + plan.size.height + edge + legend
    return Size(max(plan.size.width + 2 * edge, max(texts) * WIDER_FONT) + 2 * MARGIN, height + 2 * MARGIN)


def _draw_header(root: ET.Element, header: list[Headline]) -> None:
    y = MARGIN
    for line in header:
        _text(root, (line.name, line.text, MARGIN, y + line.size))
        y += line.height


def _draw_lines(body: ET.Element, picture: Picture, labels: list[Label | None], plan: Plan) -> None:
    """Draw the arcs, those that were taken above those that were not."""
    names = {node.id: node.step for node in picture.nodes}
    drawn = sorted(zip(picture.lines, labels, plan.routes, strict=True), key=lambda entry: bool(entry[0].taken))
    for line, label, route in drawn:
        group = ET.SubElement(body, "g", {"class": f"line {_fate(line)}".strip()})
        ET.SubElement(group, "title").text = full_text_of_line(line, names)
        *before, last = route.paths
        for points in (*before, shapes.shortened_by_head(last)):
            _path(group, "arc", shapes.polyline(points))
        _path(group, "head", shapes.arrow_head(last))
        if label is not None and route.label is not None:
            _draw_label(group, label, route.label)


def _fate(line: Line) -> str:
    if line.taken is None:
        return ""
    return "taken" if line.taken else "missed"


def _draw_label(group: ET.Element, label: Label, box: Box) -> None:
    _path(group, "chip", shapes.rounded(box, 6.0))
    if label.held is not None:
        mark = ET.SubElement(group, "g", {"class": "held" if label.held else "refuted"})
        symbol = shapes.SYMBOLS["completed" if label.held else "failed"]
        _draw_disc(mark, symbol, (box.x + 12, box.y + box.height / 2), scale=0.8)
    for name, text, x, y in chip_of(label).texts:
        _text(group, (name, text, box.x + x, box.y + y))


def _draw_step(body: ET.Element, node: Node, card: Card, box: Box) -> None:
    group = ET.SubElement(body, "g", {"class": f"step {card.look}"})
    ET.SubElement(group, "title").text = full_text_of(node)
    for path in shapes.behind(node.shape, box):
        _path(group, "trim", path)
    outline = shapes.snipped if node.continues and node.shape == "action" else shapes.OUTLINES[node.shape]
    _path(group, "box", outline(box))
    for path in shapes.inside(node.shape, box):
        _path(group, "trim", path)
    if node.join is not None:
        _path(group, "bar", shapes.join_bar(node.join, box))
    if node.stay is not None:
        _draw_disc(group, shapes.SYMBOLS[node.stay.state], (box.x + card.disc[0], box.y + card.disc[1]))
    for name, text, x, y in card.texts:
        _text(group, (name, text, box.x + x, box.y + y))


def _draw_disc(group: ET.Element, symbol: str, center: Point, *, scale: float = 1.0) -> None:
    disc = ET.SubElement(group, "g", {"transform": _at(center) + ("" if scale == 1.0 else f" scale({number(scale)})")})
    ET.SubElement(disc, "circle", {"class": "disc", "r": "7" if symbol else "6.2"})
    if symbol:
        _path(disc, "sign", symbol)


def _at(point: Point) -> str:
    return f"translate({shapes.at(*point)})"


def _path(group: ET.Element, name: str, data: str) -> None:
    ET.SubElement(group, "path", {"class": name, "d": data})


def _text(group: ET.Element, placed: tuple[str, str, float, float]) -> None:
    name, text, x, y = placed
    ET.SubElement(group, "text", {"class": name, "x": number(x), "y": number(y)}).text = text

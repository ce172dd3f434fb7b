"""Renders a diagram as one self-contained SVG file: no script, font or link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from noetl_broker.diagram import shapes
from noetl_broker.diagram.boxes import Card, label_chip, step_card
from noetl_broker.diagram.labels import Label, edge_label, printable, wrapped
from noetl_broker.diagram.layout import Box, EdgeSpec, Plan, Point, Size, place
from noetl_broker.diagram.model import DiagramNode, Edge, Picture, has_catch
from noetl_broker.diagram.shapes import number
from noetl_broker.diagram.text_width import text_width
from noetl_broker.diagram.tooltips import (
    description,
    edge_tooltip,
    error_line,
    headline,
    start_line,
    status_line,
    step_tooltip,
    title,
)

STYLE = Path(__file__).with_name("style.css")
CATCH_STYLE = Path(__file__).with_name("catch.css")  # only in a diagram with a `catch`
MARGIN = 24.0
HEADER_GAP = 22.0  # between the headline and the drawing
LEGEND = "thick: taken, ×n: how often; dashed: not taken; ✓ ✗: how a condition came out; times are UTC"
LEGEND_OF_CATCH = "; red: catch"
LEGEND_SIZE, LEGEND_HEIGHT = 11.0, 30.0
MESSAGE_WIDTH, MESSAGE_LINES = 90, 3  # characters
FRAME_GAP, FRAME_PADDING, FRAME_TITLE, FRAME_FONT = 18.0, 14.0, 24.0, 13.0  # of a block
WIDER_FONT = 1.15  # headlines have no box, but must fit the file


class Headline(NamedTuple):
    """A line of text above the drawing: its class, text, font size and height."""

    name: str
    text: str
    size: float
    height: float


class Drawn(NamedTuple):
    """A picture with its boxes and edges placed; `name` is that of the step that has this block."""

    picture: Picture
    cards: list[Card]
    labels: list[Label | None]
    plan: Plan
    name: str = ""


def render_svg(picture: Picture, *, link: Callable[[DiagramNode], str] | None = None, chosen: str | None = None) -> str:
    """The diagram as the text of an SVG file. Raises OperatorFault if the layout library is missing.

    Blocks stand below it, each in a frame. For a page that has its own headline and legend, and links to the executions
    of blocks: `link` gives the address of each step, `chosen` is the step that is marked.
    """
    drawn = _place(picture)
    frames = [*_frames(picture)] if link is None else []
    header = _header(picture) if link is None else []
    legend = _legend(picture) if link is None and picture.execution is not None else ""
    size = _size([drawn, *frames], header, legend)
    root = _root(picture, size)
    if link is not None:
        root.set("role", "group")  # an image has no links for who does not see it
    _draw_header(root, header)
    if legend:
        _text(root, ("legend", legend, MARGIN, size.height - MARGIN + 8))
    top = MARGIN + sum(line.height for line in header) + HEADER_GAP
    body = ET.SubElement(root, "g", {"transform": _at(((size.width - drawn.plan.size.width) / 2, top))})
    _draw(body, drawn, link=link, chosen=chosen)
    top += drawn.plan.size.height
    for frame in frames:
        top += FRAME_GAP
        inner = frame.plan.size
        box = Box((size.width - _frame_width(frame)) / 2, top, _frame_width(frame), _frame_height(frame))
        _path(root, "trim", shapes.rounded(box, 10.0))
        _text(root, ("name", frame.name, box.x + FRAME_PADDING, top + FRAME_TITLE - 6))
        where = ((size.width - inner.width) / 2, top + FRAME_TITLE + FRAME_PADDING)
        _draw(ET.SubElement(root, "g", {"transform": _at(where)}), frame)
        top += box.height
    ET.indent(root, space=" ")
    return f"{ET.tostring(root, encoding='unicode')}\n"


def _place(picture: Picture, name: str = "") -> Drawn:
    cards = [step_card(node) for node in picture.nodes]
    labels = [edge_label(edge) for edge in picture.edges]
    return Drawn(picture, cards, labels, _plan(picture, cards, labels), name)


def _frames(picture: Picture, above: str = "") -> Iterator[Drawn]:
    """The blocks, and the blocks in them."""
    for block in picture.blocks:
        name = f"{above}{printable(block.node.step)}"
        yield _place(block.picture, f"block of {name}")
        yield from _frames(block.picture, f"{name}.")


def _frame_width(frame: Drawn) -> float:
    title = text_width(frame.name, FRAME_FONT, bold=True) * WIDER_FONT
    return max(frame.plan.size.width + 2 * shapes.STACK, title) + 2 * FRAME_PADDING


def _frame_height(frame: Drawn) -> float:
    return frame.plan.size.height + FRAME_TITLE + 2 * FRAME_PADDING


def _draw(
    body: ET.Element, drawn: Drawn, *, link: Callable[[DiagramNode], str] | None = None, chosen: str | None = None
) -> None:
    picture, cards, labels, plan, _ = drawn
    _draw_edges(body, picture, labels, plan)
    for node, card, box in zip(picture.nodes, cards, plan.boxes, strict=True):
        where = body if link is None else ET.SubElement(body, "a", {"href": link(node)})
        if node.step == chosen:
            _path(where, "chosen", shapes.rounded(Box(box.x - 6, box.y - 6, box.width + 12, box.height + 12), 12.0))
        _draw_step(where, node, card, box)


def _plan(picture: Picture, cards: list[Card], labels: list[Label | None]) -> Plan:
    places = {node.id: index for index, node in enumerate(picture.nodes)}
    specs = [
        EdgeSpec(places[edge.source], places[edge.target], None if label is None else label_chip(label).size)
        for edge, label in zip(picture.edges, labels, strict=True)
    ]
    return place([card.size for card in cards], specs)


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
            "aria-label": headline(picture),
        },
    )
    ET.SubElement(root, "title").text = headline(picture)
    ET.SubElement(root, "desc").text = description(picture)
    sheets = (STYLE, CATCH_STYLE) if has_catch(picture) else (STYLE,)
    ET.SubElement(root, "style").text = "\n" + "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    ET.SubElement(root, "rect", {"class": "paper", "width": "100%", "height": "100%"})
    return root


def _header(picture: Picture) -> list[Headline]:
    lines = [Headline("title", title(picture), 17.0, 22.0)]
    if picture.execution is not None:
        lines += [Headline("subtitle", text(picture.execution), 12.0, 17.0) for text in (status_line, start_line)]
        message = error_line(picture.execution)
        if message:
            lines += [Headline("message", line, 11.0, 16.0) for line in wrapped(message, MESSAGE_WIDTH, MESSAGE_LINES)]
    return lines


def _size(drawn: list[Drawn], header: list[Headline], legend: str) -> Size:
    texts = [text_width(line.text, line.size, bold=line.name == "title") for line in header] or [0.0]
    height_of_legend = 0.0
    if legend:
        texts.append(text_width(legend, LEGEND_SIZE))
        height_of_legend = LEGEND_HEIGHT
    edge = 2 * shapes.STACK
    main, *frames = drawn
    width = max(main.plan.size.width + 2 * edge, max(texts) * WIDER_FONT, *map(_frame_width, frames), 0.0)
    blocks = sum(FRAME_GAP + _frame_height(frame) for frame in frames)
    height = sum(line.height for line in header) + HEADER_GAP + main.plan.size.height + blocks + edge + height_of_legend
    return Size(width + 2 * MARGIN, height + 2 * MARGIN)


def _draw_header(root: ET.Element, header: list[Headline]) -> None:
    y = MARGIN
    for line in header:
        _text(root, (line.name, line.text, MARGIN, y + line.size))
        y += line.height


def _draw_edges(body: ET.Element, picture: Picture, labels: list[Label | None], plan: Plan) -> None:
    """Draw the edges, taken ones above the others."""
    names = {node.id: node.step for node in picture.nodes}
    drawn = sorted(zip(picture.edges, labels, plan.routes, strict=True), key=lambda entry: bool(entry[0].taken))
    for edge, label, route in drawn:
        group = ET.SubElement(body, "g", {"class": f"line {_edge_class(edge)}".strip()})
        ET.SubElement(group, "title").text = edge_tooltip(edge, names)
        *before, last = route.paths
        for points in (*before, shapes.without_head(last)):
            _path(group, "arc", shapes.polyline(points))
        _path(group, "head", shapes.arrow_head(last))
        if label is not None and route.label is not None:
            _draw_label(group, label, route.label)


def _legend(picture: Picture) -> str:
    return LEGEND + LEGEND_OF_CATCH if has_catch(picture) else LEGEND


def _edge_class(edge: Edge) -> str:
    catch = "catch " if edge.manner == "catch" else ""
    if edge.taken is None:
        return catch
    return f"{catch}{'taken' if edge.taken else 'missed'}"


def _draw_label(group: ET.Element, label: Label, box: Box) -> None:
    _path(group, "chip", shapes.rounded(box, 6.0))
    if label.held is not None:
        mark = ET.SubElement(group, "g", {"class": "held" if label.held else "refuted"})
        symbol = shapes.SYMBOLS["completed" if label.held else "failed"]
        _draw_disc(mark, symbol, (box.x + 12, box.y + box.height / 2), scale=0.8)
    for name, text, x, y in label_chip(label).texts:
        _text(group, (name, text, box.x + x, box.y + y))


def _draw_step(body: ET.Element, node: DiagramNode, card: Card, box: Box) -> None:
    group = ET.SubElement(body, "g", {"class": f"step {card.style}"})
    ET.SubElement(group, "title").text = step_tooltip(node)
    for path in shapes.behind(node.shape, box):
        _path(group, "trim", path)
    outline = shapes.snipped if node.continues and node.shape == "action" else shapes.OUTLINES[node.shape]
    _path(group, "box", outline(box))
    for path in shapes.inside(node.shape, box):
        _path(group, "trim", path)
    if node.join is not None:
        _path(group, "bar", shapes.join_bar(node.join, box))
    if node.progress is not None:
        _draw_disc(group, shapes.SYMBOLS[node.progress.state], (box.x + card.disc[0], box.y + card.disc[1]))
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

"""The sizes of boxes and labels, and the places of their texts."""

from __future__ import annotations

from typing import NamedTuple

from noetl_broker.diagram.labels import STYLES, Label, is_marker, step_texts
from noetl_broker.diagram.layout import Size
from noetl_broker.diagram.model import DiagramNode
from noetl_broker.diagram.text_width import monospaced_width, text_width

PADDING = 14.0
NARROWEST = {"start": 74.0, "end": 74.0}
NARROW = 120.0
GUTTER = 22.0  # left of the texts, for the state symbol
SLANTED = 12.0  # more room at the sides of a hexagon, a playbook or a pill
LINE = 15.0  # height of a line of text
# Class, size and weight of each line of a box, in the order of labels.Texts.
LINES = (
    ("name", 13.0, True),
    ("kind", 11.0, False),
    ("each", 11.0, False),
    ("traits", 11.0, False),
    ("state", 11.5, False),
    ("times", 11.0, False),
    ("message", 11.0, False),
)
CHIP_PADDING, CHIP_LINE, CHIP_MARK, CHIP_GAP, CHIP_SIZE = 7.0, 13.0, 15.0, 8.0, 10.5
# States that a marker shows by its symbol alone.
QUIET = frozenset({"pending", "unreached", "completed", "cancelled"})

Placed = tuple[str, str, float, float]  # class, text, x and y from the corner of its box


class Card(NamedTuple):
    """The box of a step: its size, its texts, and the place of its state symbol."""

    size: Size
    texts: tuple[Placed, ...]
    disc: tuple[float, float]
    style: str


class Chip(NamedTuple):
    """The box of a label."""

    size: Size
    texts: tuple[Placed, ...]


def step_card(node: DiagramNode) -> Card:
    """The box of a step, measured."""
    lines = [(*line, text) for line, text in zip(LINES, step_texts(node), strict=True) if text]
    if is_marker(node) and node.progress is not None and node.progress.state in QUIET:
        lines = [line for line in lines if line[0] != "state"]
    gutter = 0.0 if node.progress is None else GUTTER
    side = PADDING + (0.0 if node.shape in {"action", "iterator"} else SLANTED)
    widest = max(text_width(text, size, bold=bold) for _, size, bold, text in lines)
    width = max(widest + gutter + 2 * side, NARROWEST.get(node.shape, NARROW))
    height = LINE * len(lines) + 16.0
    left = side + gutter + (width - 2 * side - gutter - widest) / 2
    where = width / 2 if node.progress is None else left
    texts = tuple((name, text, where, LINE * index + 19.5) for index, (name, _, _, text) in enumerate(lines))
    style = "centred" if node.progress is None else STYLES[node.progress.state]
    return Card(Size(round(width), round(height)), texts, (left - 14.0, 15.0), style)


def label_chip(label: Label) -> Chip:
    """The box of a label, measured."""
    mark = 0.0 if label.held is None else CHIP_MARK
    widest = max((monospaced_width(line, CHIP_SIZE) for line in label.lines), default=0.0)
    tally = text_width(label.tally, CHIP_SIZE, bold=True) if label.tally else 0.0
    gap = CHIP_GAP if label.tally and label.lines else 0.0
    width = mark + widest + gap + tally + 2 * CHIP_PADDING
    height = CHIP_LINE * max(len(label.lines), 1) + 6.0
    left = CHIP_PADDING + mark
    texts: list[Placed] = [
        ("condition", line, left, 3.0 + CHIP_LINE * index + 9.5) for index, line in enumerate(label.lines)
    ]
    if label.tally:
        texts.append(("tally", label.tally, left + widest + gap, height / 2 + 3.8))
    return Chip(Size(round(width), height), tuple(texts))

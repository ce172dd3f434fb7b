"""How large boxes and labels are, and where their texts stand in them."""

from __future__ import annotations

from typing import NamedTuple

from noetl_broker.drawing.layout import Size
from noetl_broker.drawing.letters import monospaced_width_of, width_of
from noetl_broker.drawing.picture import Node
from noetl_broker.drawing.words import LOOKS, Label, is_mark, texts_of

PADDING = 14.0
NARROWEST = {"start": 74.0, "end": 74.0}
NARROW = 120.0
GUTTER = 22.0  # left of the texts, for the symbol of the state
SLANTED = 12.0  # more room at the sides of a hexagon, a playbook, a pill
LINE = 15.0  # height of a line of text
# Class, size and weight of each line of a box, in the order of words.Texts.
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
# States that the symbol alone tells of a box which only marks a place.
QUIET = frozenset({"pending", "unreached", "completed", "cancelled"})

Placed = tuple[str, str, float, float]  # class, text, x and y from the corner of its box


class Card(NamedTuple):
    """The box of a step: its size, its texts, and where the symbol of its state stands."""

    size: Size
    texts: tuple[Placed, ...]
    disc: tuple[float, float]
    look: str


class Chip(NamedTuple):
    """The box of a label."""

    size: Size
    texts: tuple[Placed, ...]


def card_of(node: Node) -> Card:
    """Measure and fill the box of a step."""
    lines = [(*line, text) for line, text in zip(LINES, texts_of(node), strict=True) if text]
    if is_mark(node) and node.stay is not None and node.stay.state in QUIET:
        lines = [line for line in lines if line[0] != "state"]
    gutter = 0.0 if node.stay is None else GUTTER
    side = PADDING + (0.0 if node.shape in {"action", "iterator"} else SLANTED)
    widest = max(width_of(text, size, bold=bold) for _, size, bold, text in lines)
    width = max(widest + gutter + 2 * side, NARROWEST.get(node.shape, NARROW))
    height = LINE * len(lines) + 16.0
    left = side + gutter + (width - 2 * side - gutter - widest) / 2
    where = width / 2 if node.stay is None else left
    texts = tuple((name, text, where, LINE * place + 19.5) for place, (name, _, _, text) in enumerate(lines))
    look = "centred" if node.stay is None else LOOKS[node.stay.state]
    return Card(Size(round(width), round(height)), texts, (left - 14.0, 15.0), look)


def chip_of(label: Label) -> Chip:
    """Measure and fill the box of a label."""
    mark = 0.0 if label.held is None else CHIP_MARK
    widest = max((monospaced_width_of(line, CHIP_SIZE) for line in label.lines), default=0.0)
    tally = width_of(label.tally, CHIP_SIZE, bold=True) if label.tally else 0.0
    gap = CHIP_GAP if label.tally and label.lines else 0.0
    width = mark + widest + gap + tally + 2 * CHIP_PADDING
    height = CHIP_LINE * max(len(label.lines), 1) + 6.0
    left = CHIP_PADDING + mark
    texts: list[Placed] = [
        ("condition", line, left, 3.0 + CHIP_LINE * place + 9.5) for place, line in enumerate(label.lines)
    ]
    if label.tally:
        texts.append(("tally", label.tally, left + widest + gap, height / 2 + 3.8))
    return Chip(Size(round(width), height), tuple(texts))

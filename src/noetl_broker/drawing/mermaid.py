"""A picture as Mermaid text: a flowchart that code hosts, wikis and editors draw themselves."""

from __future__ import annotations

from collections.abc import Iterator

from noetl_broker.drawing.captions import headline_of, summary_of
from noetl_broker.drawing.picture import Line, Node, Picture, Shape
from noetl_broker.drawing.words import LOOKS, STATES, Label, label_of, texts_of

BRACKETS: dict[Shape, tuple[str, str]] = {
    "start": ("([", "])"),
    "end": ("(((", ")))"),
    "router": ("{{", "}}"),
    "action": ("[", "]"),
    "playbook": ("[[", "]]"),
    "iterator": ("[/", "\\]"),
}
TAKEN, NOT_TAKEN, PLAIN = "==>", "-.->", "-->"

# Dark text on a light ground, whatever ground the page has; states differ in their symbol and words as well.
CLASSES = {
    "idle": "fill:#f6f7f9,stroke:#8a93a3,color:#3b4351",
    "waits": "fill:#eaf1fd,stroke:#2f6fd6,color:#123a78,stroke-dasharray:4 3",
    "running": "fill:#eaf1fd,stroke:#2f6fd6,color:#123a78,stroke-width:3px",
    "completed": "fill:#e8f5ec,stroke:#2a8a4a,color:#14502a",
    "failed": "fill:#fdecec,stroke:#c93434,color:#7d1717,stroke-width:3px",
    "went_on": "fill:#fff3dc,stroke:#b87503,color:#6b4300",
    "cancelled": "fill:#f1eef6,stroke:#7a6a95,color:#43365c",
}
# What stands for itself in a label; all else is written as its number, so that nothing in it can be read as syntax.
WORD_JOINER = "\u2060"
PLAIN_SIGNS = frozenset(" .,:_/+*=!?'()-✓✗○◔▶↻⊘×·…→")


def as_mermaid(picture: Picture) -> str:
    """Give the picture as the text of one flowchart."""
    return "\n".join([*_head(picture), *_boxes(picture), *_arcs(picture), *_classes(picture)]) + "\n"


def _head(picture: Picture) -> Iterator[str]:
    title = headline_of(picture)
    yield from ("---", f'title: "{harmless(title)}"', "---", "flowchart TD")
    yield f"  accTitle: {harmless(title)}"
    yield f"  accDescr: {harmless(summary_of(picture))}"


def _boxes(picture: Picture) -> Iterator[str]:
    for node in picture.nodes:
        opened, closed = BRACKETS[node.shape]
        mark = "" if node.stay is None else f":::{LOOKS[node.stay.state]}"
        yield f'  {node.id}{opened}"{_box_text(node)}"{closed}{mark}'


def _box_text(node: Node) -> str:
    texts = texts_of(node)
    if node.stay is not None:
        texts = texts._replace(state=f"{STATES[node.stay.state].symbol} {texts.state}")
    name, *rest = (escaped(line) for line in texts if line)
    return "<br/>".join([f"<b>{name}</b>", *rest])


def _arcs(picture: Picture) -> Iterator[str]:
    for line in picture.lines:
        label = label_of(line)
        text = "" if label is None else f'|"{_label_text(label)}"|'
        yield f"  {line.source} {_stroke(line)}{text} {line.target}"


def _stroke(line: Line) -> str:
    if line.taken is None:
        return PLAIN
    return TAKEN if line.taken else NOT_TAKEN


def _label_text(label: Label) -> str:
    mark = {None: "", True: "✓ ", False: "✗ "}[label.held]
    first, *rest = label.lines or ("",)
    lines = [f"{mark}{first}".strip(), *rest, label.tally]
    return "<br/>".join(escaped(line) for line in lines if line)


def _classes(picture: Picture) -> Iterator[str]:
    used = {LOOKS[node.stay.state] for node in picture.nodes if node.stay is not None}
    yield from (f"  classDef {name} {style}" for name, style in CLASSES.items() if name in used)


def escaped(text: str) -> str:
    """A text inside a quoted label: what is neither a letter, a digit nor plainly harmless stands as its number."""
    parted = text.replace("$$", f"${WORD_JOINER}$")  # between two such signs stands a formula, even if they are numbers
    return "".join(letter if letter.isalnum() or letter in PLAIN_SIGNS else f"#{ord(letter)};" for letter in parted)


def harmless(text: str) -> str:
    """A text where numbers are not understood, in titles: what is not plainly harmless is a question mark."""
    return "".join(letter if letter.isalnum() or letter in PLAIN_SIGNS else "?" for letter in text)

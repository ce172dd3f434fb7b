"""Renders a diagram as Mermaid text, which code hosts, wikis and editors draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from noetl_broker.diagram.labels import STATES, STYLES, Label, edge_label, step_texts
from noetl_broker.diagram.model import DiagramNode, Edge, Picture, Shape
from noetl_broker.diagram.tooltips import description, headline

BRACKETS: dict[Shape, tuple[str, str]] = {
    "start": ("([", "])"),
    "end": ("(((", ")))"),
    "router": ("{{", "}}"),
    "action": ("[", "]"),
    "playbook": ("[[", "]]"),
    "iterator": ("[/", "\\]"),
    "wait": ("(", ")"),
    "approval": ("(", ")"),
    "signal": ("(", ")"),
    "fail": (">", "]"),
}
TAKEN, NOT_TAKEN, PLAIN = "==>", "-.->", "-->"
CATCH_STYLE = "stroke:#c93434,stroke-dasharray:6 4"

# Dark text on a light background on any page. States differ in symbol and words too, not only in colour.
CLASSES = {
    "idle": "fill:#f6f7f9,stroke:#8a93a3,color:#3b4351",
    "waits": "fill:#eaf1fd,stroke:#2f6fd6,color:#123a78,stroke-dasharray:4 3",
    "running": "fill:#eaf1fd,stroke:#2f6fd6,color:#123a78,stroke-width:3px",
    "completed": "fill:#e8f5ec,stroke:#2a8a4a,color:#14502a",
    "failed": "fill:#fdecec,stroke:#c93434,color:#7d1717,stroke-width:3px",
    "went_on": "fill:#fff3dc,stroke:#b87503,color:#6b4300",
    "cancelled": "fill:#f1eef6,stroke:#7a6a95,color:#43365c",
}
# Characters that are safe in a label; others are written as numbers, so that no text is read as syntax.
WORD_JOINER = "\u2060"
PLAIN_SIGNS = frozenset(" .,:_/+*=!?'()-✓✗○◔▶↻⊘×·…→")


def render_mermaid(picture: Picture) -> str:
    """The diagram as the text of a flowchart."""
    body = [*_boxes(picture), *_edges(picture), *_blocks(picture)]
    return "\n".join([*_head(picture), *body, *_catch_styles(picture), *_classes(picture)]) + "\n"


def _head(picture: Picture) -> Iterator[str]:
    title = headline(picture)
    yield from ("---", f'title: "{plain_title(title)}"', "---", "flowchart TD")
    yield f"  accTitle: {plain_title(title)}"
    yield f"  accDescr: {plain_title(description(picture))}"


def _blocks(picture: Picture, prefix: str = "") -> Iterator[str]:
    """Each block as a box of its own, with a line from the step that has it."""
    for block in picture.blocks:
        step = f"{prefix}{block.node.id}"
        yield f'  subgraph {step}_block["block of {escaped(block.node.step)}"]'
        yield from (*_boxes(block.picture, f"{step}_"), *_edges(block.picture, f"{step}_"))
        yield "  end"
        yield f"  {step} -.- {step}_block"
        yield from _blocks(block.picture, f"{step}_")


def _boxes(picture: Picture, prefix: str = "") -> Iterator[str]:
    for node in picture.nodes:
        opened, closed = BRACKETS[node.shape]
        mark = "" if node.progress is None else f":::{STYLES[node.progress.state]}"
        yield f'  {prefix}{node.id}{opened}"{_box_text(node)}"{closed}{mark}'


def _box_text(node: DiagramNode) -> str:
    texts = step_texts(node)
    if node.progress is not None:
        texts = texts._replace(state=f"{STATES[node.progress.state].symbol} {texts.state}")
    name, *rest = (escaped(line) for line in texts if line)
    return "<br/>".join([f"<b>{name}</b>", *rest])


def _edges(picture: Picture, prefix: str = "") -> Iterator[str]:
    for edge in picture.edges:
        label = edge_label(edge)
        text = "" if label is None else f'|"{_label_text(label)}"|'
        yield f"  {prefix}{edge.source} {_stroke(edge)}{text} {prefix}{edge.target}"


def _catch_styles(picture: Picture) -> Iterator[str]:
    """The colour of the edges of `catch`, which are named by their place."""
    places = [str(index) for index, manner in enumerate(_manners(picture)) if manner == "catch"]
    if places:
        yield f"  linkStyle {','.join(places)} {CATCH_STYLE}"


def _manners(picture: Picture) -> Iterator[str]:
    """The manners of all lines in the order in which they are written, those of blocks too."""
    yield from (edge.manner for edge in picture.edges)
    for block in picture.blocks:
        yield from (edge.manner for edge in block.picture.edges)
        yield "block"
        nested = replace(block.picture, edges=())
        yield from _manners(nested)


def _stroke(edge: Edge) -> str:
    if edge.taken is None:
        return NOT_TAKEN if edge.manner == "catch" else PLAIN
    return TAKEN if edge.taken else NOT_TAKEN


def _label_text(label: Label) -> str:
    mark = {None: "", True: "✓ ", False: "✗ "}[label.held]
    first, *rest = label.lines or ("",)
    lines = [f"{mark}{first}".strip(), *rest, label.tally]
    return "<br/>".join(escaped(line) for line in lines if line)


def _classes(picture: Picture) -> Iterator[str]:
    used = {STYLES[node.progress.state] for node in picture.nodes if node.progress is not None}
    yield from (f"  classDef {name} {style}" for name, style in CLASSES.items() if name in used)


def escaped(text: str) -> str:
    """A text in a quoted label: characters that may be syntax are written as numbers."""
    parted = text.replace("$$", f"${WORD_JOINER}$")  # $$ starts a formula, even when it is written as numbers
    return "".join(char if char.isalnum() or char in PLAIN_SIGNS else f"#{ord(char)};" for char in parted)


def plain_title(text: str) -> str:
    """A text in a title, where numbers are not understood: unsafe characters become question marks."""
    return "".join(char if char.isalnum() or char in PLAIN_SIGNS else "?" for char in text)

"""An expression as text, from its syntax tree: as its author may have written it, with braces where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from jinja2 import nodes

COMPARISONS: Final = {
    "eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in",
}  # fmt: skip
CONSTANTS: Final = {None: "none", True: "true", False: "false"}

# How strongly each kind binds: what binds more weakly than its place needs stands in brackets.
CHOICE, EITHER, BOTH, NEGATION, COMPARISON, SUM, TEXT, PRODUCT, SIGN, SUFFIX = range(10)
BINARY: Final[dict[type[nodes.Node], tuple[str, int]]] = {
    nodes.Or: ("or", EITHER),
    nodes.And: ("and", BOTH),
    nodes.Add: ("+", SUM),
    nodes.Sub: ("-", SUM),
    nodes.Mul: ("*", PRODUCT),
    nodes.Div: ("/", PRODUCT),
    nodes.FloorDiv: ("//", PRODUCT),
    nodes.Mod: ("%", PRODUCT),
}


def text_of(node: nodes.Node, place: int = CHOICE) -> str:
    """Give the text of an expression; `place` is how strongly it must bind to stand without brackets."""
    found = BINARY.get(type(node))
    if found is not None and isinstance(node, nodes.BinExpr):
        word, strength = found
        text = f"{text_of(node.left, strength)} {word} {text_of(node.right, strength + 1)}"
    else:
        write, strength = WRITERS.get(type(node), (_unknown, SUFFIX))
        text = write(node)
    return text if strength >= place else f"({text})"


def _constant(node: Any) -> str:
    value = node.value
    return repr(value) if isinstance(value, str) or type(value) in (int, float) else CONSTANTS.get(value, repr(value))


def _compare(node: Any) -> str:
    parts = [text_of(node.expr, SUM)]
    parts += [f"{COMPARISONS[operand.op]} {text_of(operand.expr, SUM)}" for operand in node.ops]
    return " ".join(parts)


def _negation(node: Any) -> str:
    if isinstance(node.node, nodes.Test):
        return _test(node.node, "is not")
    return f"not {text_of(node.node, NEGATION)}"


def _test(node: Any, word: str = "is") -> str:
    return f"{text_of(node.node, SUFFIX)} {word} {node.name}{_arguments(node) if node.args or node.kwargs else ''}"


def _filter(node: Any) -> str:
    filtered = text_of(node.node, SUFFIX) if node.node is not None else "…"
    return f"{filtered} | {node.name}{_arguments(node) if node.args or node.kwargs else ''}"


def _element(node: Any) -> str:
    return f"{text_of(node.node, SUFFIX)}[{text_of(node.arg)}]"


def _slice(node: Any) -> str:
    start, stop, step = ("" if part is None else text_of(part) for part in (node.start, node.stop, node.step))
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _choice(node: Any) -> str:
    otherwise = "" if node.expr2 is None else f" else {text_of(node.expr2)}"
    return f"{text_of(node.expr1, EITHER)} if {text_of(node.test, EITHER)}{otherwise}"


def _arguments(node: Any) -> str:
    given = [*map(text_of, node.args), *(f"{pair.key}={text_of(pair.value)}" for pair in node.kwargs)]
    return f"({', '.join(given)})"


def _items(node: Any) -> str:
    return ", ".join(map(text_of, node.items))


def _unknown(node: nodes.Node) -> str:
    return f"<{type(node).__name__.lower()}>"


WRITERS: Final[dict[type[nodes.Node], tuple[Callable[[Any], str], int]]] = {
    nodes.Name: (lambda node: str(node.name), SUFFIX),
    nodes.EnvironmentAttribute: (lambda node: str(node.name), SUFFIX),
    nodes.Const: (_constant, SUFFIX),
    nodes.Getattr: (lambda node: f"{text_of(node.node, SUFFIX)}.{node.attr}", SUFFIX),
    nodes.Getitem: (_element, SUFFIX),
    nodes.Slice: (_slice, CHOICE),
    nodes.Filter: (_filter, SUFFIX),
    nodes.Test: (_test, SUFFIX),
    nodes.Call: (lambda node: text_of(node.node, SUFFIX) + _arguments(node), SUFFIX),
    nodes.Compare: (_compare, COMPARISON),
    nodes.Not: (_negation, NEGATION),
    nodes.Neg: (lambda node: f"-{text_of(node.node, SIGN)}", SIGN),
    nodes.Pos: (lambda node: f"+{text_of(node.node, SIGN)}", SIGN),
    nodes.Concat: (lambda node: " ~ ".join(text_of(part, PRODUCT) for part in node.nodes), TEXT),
    nodes.CondExpr: (_choice, CHOICE),
    nodes.List: (lambda node: f"[{_items(node)}]", SUFFIX),
    nodes.Tuple: (lambda node: f"({_items(node)})", SUFFIX),
    nodes.Dict: (
        lambda node: "{" + ", ".join(f"{text_of(pair.key)}: {text_of(pair.value)}" for pair in node.items) + "}",
        SUFFIX,
    ),
}

"""The parts of a condition with their outcomes, and the values that a template reads; and expressions as text.

`explain` uses them, never a decision. The parts are evaluated again in the scope of the decision, with the steps of one
evaluation. A template with too many parts is broken down only in part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from jinja2 import nodes
from jinja2.exceptions import UndefinedError

from noetl_broker.template import engine, grammar
from noetl_broker.template.allowance import Allowance
from noetl_broker.template.budget import Evaluation
from noetl_broker.template.compiled import TEMPLATE_FAULTS, has_template
from noetl_broker.template.errors import TemplateError
from noetl_broker.template.output import as_json
from noetl_broker.template.render import Template, is_true, reason_in
from noetl_broker.template.scope import JSON, Scope
from noetl_broker.template.values import require_value

MOST_PARTS: Final = 150  # evaluated of one template: each is compiled by itself
CHAIN: Final = (nodes.Name, nodes.Getattr, nodes.Getitem)


class Read(NamedTuple):
    """A value that a template read: its expression, the value, and the names in it.

    `error` is the reason why there is no value; `undefined`: a name is undefined.
    """

    text: str
    value: JSON
    names: tuple[str, ...]
    error: str | None = None
    undefined: bool = False


class Part(NamedTuple):
    """A part of a condition. `holds` is None if it was not evaluated, or (with `error`) could not be.

    `word` is "and", "or" or "not" if it consists of `parts`, else "", and it has `reads`.
    """

    text: str
    holds: bool | None
    value: JSON = None
    error: str | None = None
    word: str = ""
    parts: tuple[Part, ...] = ()
    reads: tuple[Read, ...] = ()


class _Breakdown:
    """Evaluates parts of one template, `remaining` of them at most."""

    def __init__(self, scope: Scope) -> None:
        self.run = Evaluation(scope)
        self.run.allowance = Allowance()  # the turn's own may be spent
        self.run.granted = self.run.fuel = self.run.allowance.steps
        self.remaining = MOST_PARTS

    def value(self, node: nodes.Node) -> JSON:
        """Give the value of a part of the tree; raises what its evaluation raises."""
        if self.remaining <= 0:
            raise ValueError("it has too many parts to show them all")
        self.remaining -= 1
        tree = nodes.Template([nodes.Output([node], lineno=1)], lineno=1)
        tree.set_environment(engine.ENVIRONMENT)
        root, _ = engine.generate(tree, native=True)
        return as_json(self.run, require_value(root(self.run)))


def parts_of(condition: Template, scope: Scope) -> Part:
    """Give the parts of a condition. `NotLoaded` passes through; other errors are in the parts."""
    source = condition.source.strip()
    tree = _tree(source if source.startswith("{{") else f"{{{{ {source} }}}}")
    if tree is None or not isinstance(tree.body[0], nodes.Output):
        return Part(source, None, error="it does not compile")
    return _part(tree.body[0].nodes[0], _Breakdown(scope), is_true)


def reads_of(template: Template, scope: Scope) -> tuple[Read, ...]:
    """Give the values that a template or condition reads through names of its scope."""
    source = template.source.strip()
    tree = _tree(source if has_template(source) else f"{{{{ {source} }}}}")
    if tree is None:
        return ()
    breakdown = _Breakdown(scope)
    return tuple(_read(node, breakdown) for node in _chains(tree) if set(_roots(node)) <= template.names)


def _tree(source: str) -> nodes.Template | None:
    try:
        tree = engine.parse(source)
        grammar.check(tree)
    except (*TEMPLATE_FAULTS, TemplateError):
        return None
    return tree


def _part(node: nodes.Node, breakdown: _Breakdown, truth: Callable[[JSON], bool]) -> Part:
    """Give a node as a part; `truth` says whether its value holds (within `and`, `or`, `not`: Python's truth)."""
    if isinstance(node, nodes.Not) and not isinstance(node.node, nodes.Test):
        inner = _part(node.node, breakdown, bool)
        holds = None if inner.holds is None else not inner.holds
        return Part(expression_text(node), holds, holds, inner.error, "not", (inner,))
    if isinstance(node, nodes.And | nodes.Or):
        return _joined(node, breakdown, truth)
    try:
        value = breakdown.value(node)
    except (*TEMPLATE_FAULTS, TemplateError) as fault:
        return Part(
            expression_text(node), None, error=reason_in(breakdown.run.scope, fault), reads=_reads(node, breakdown)
        )
    return Part(expression_text(node), truth(value), value, reads=_reads(node, breakdown))


def _joined(node: nodes.And | nodes.Or, breakdown: _Breakdown, truth: Callable[[JSON], bool]) -> Part:
    """Give an `and` or `or`; its second part is evaluated only if the first does not decide."""
    word = "and" if isinstance(node, nodes.And) else "or"
    left = _part(node.left, breakdown, bool)
    if left.error is None and left.holds is (word == "and"):
        right = last = _part(node.right, breakdown, truth)
    else:
        right, last = Part(expression_text(node.right), None), left
    if last is left and left.holds:
        left = last = left._replace(holds=truth(left.value))
    parts = (*(left.parts if left.word == word else (left,)), right)
    return Part(expression_text(node), last.holds, last.value, last.error, word, parts)


def _reads(node: nodes.Node, breakdown: _Breakdown) -> tuple[Read, ...]:
    """Give the reads of a part: the sides of a comparison, or else its names with their keys."""
    if isinstance(node, nodes.Compare):
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        return tuple(_read(side, breakdown) for side in sides if _roots(side))
    return tuple(_read(chain, breakdown) for chain in _chains(node))


def _read(node: nodes.Node, breakdown: _Breakdown) -> Read:
    names = _roots(node)
    try:
        return Read(expression_text(node), breakdown.value(node), names)
    except (*TEMPLATE_FAULTS, TemplateError) as fault:
        return Read(
            expression_text(node), None, names, reason_in(breakdown.run.scope, fault), isinstance(fault, UndefinedError)
        )


def _roots(node: nodes.Node) -> tuple[str, ...]:
    own = [node] if isinstance(node, nodes.Name) else []
    names = [name.name for name in (*own, *node.find_all(nodes.Name)) if name.ctx == "load"]
    return tuple(dict.fromkeys(names))


def _chains(node: nodes.Node) -> list[nodes.Node]:
    """Give the longest names with keys (`a.b['c']`) in a node, each text once."""
    found: dict[str, nodes.Node] = {}
    pending = [node]
    while pending:
        one = pending.pop(0)
        if isinstance(one, CHAIN) and _is_chain(one):
            if getattr(one, "ctx", "load") == "load":
                found.setdefault(expression_text(one), one)
            continue
        pending[:0] = one.iter_child_nodes()
    return list(found.values())


def _is_chain(node: nodes.Node) -> bool:
    """Whether it begins with a name; `f(x).y` begins with a call."""
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        node = node.node
    return isinstance(node, nodes.Name)


COMPARISONS: Final = {
    "eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in",
}  # fmt: skip
CONSTANTS: Final = {None: "none", True: "true", False: "false"}

# The precedence of each kind of expression, weakest first; a weaker one than is needed there gets brackets.
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


def expression_text(node: nodes.Node, needed: int = CHOICE) -> str:
    """Give an expression as text; `needed` is the precedence that it needs to go without brackets."""
    found = BINARY.get(type(node))
    if found is not None and isinstance(node, nodes.BinExpr):
        word, strength = found
        text = f"{expression_text(node.left, strength)} {word} {expression_text(node.right, strength + 1)}"
    else:
        write, strength = WRITERS.get(type(node), (_unknown, SUFFIX))
        text = write(node)
    return text if strength >= needed else f"({text})"


def _constant(node: Any) -> str:
    value = node.value
    return repr(value) if isinstance(value, str) or type(value) in (int, float) else CONSTANTS.get(value, repr(value))


def _compare(node: Any) -> str:
    parts = [expression_text(node.expr, SUM)]
    parts += [f"{COMPARISONS[operand.op]} {expression_text(operand.expr, SUM)}" for operand in node.ops]
    return " ".join(parts)


def _negation(node: Any) -> str:
    if isinstance(node.node, nodes.Test):
        return _test(node.node, "is not")
    return f"not {expression_text(node.node, NEGATION)}"


def _test(node: Any, word: str = "is") -> str:
    return (
        f"{expression_text(node.node, SUFFIX)} {word} {node.name}{_arguments(node) if node.args or node.kwargs else ''}"
    )


def _filter(node: Any) -> str:
    filtered = expression_text(node.node, SUFFIX) if node.node is not None else "…"
    return f"{filtered} | {node.name}{_arguments(node) if node.args or node.kwargs else ''}"


def _element(node: Any) -> str:
    return f"{expression_text(node.node, SUFFIX)}[{expression_text(node.arg)}]"


def _slice(node: Any) -> str:
    start, stop, step = ("" if part is None else expression_text(part) for part in (node.start, node.stop, node.step))
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _choice(node: Any) -> str:
    otherwise = "" if node.expr2 is None else f" else {expression_text(node.expr2)}"
    return f"{expression_text(node.expr1, EITHER)} if {expression_text(node.test, EITHER)}{otherwise}"


def _arguments(node: Any) -> str:
    given = [*map(expression_text, node.args), *(f"{pair.key}={expression_text(pair.value)}" for pair in node.kwargs)]
    return f"({', '.join(given)})"


def _items(node: Any) -> str:
    return ", ".join(map(expression_text, node.items))


def _unknown(node: nodes.Node) -> str:
    return f"<{type(node).__name__.lower()}>"


WRITERS: Final[dict[type[nodes.Node], tuple[Callable[[Any], str], int]]] = {
    nodes.Name: (lambda node: str(node.name), SUFFIX),
    nodes.EnvironmentAttribute: (lambda node: str(node.name), SUFFIX),
    nodes.Const: (_constant, SUFFIX),
    nodes.Getattr: (lambda node: f"{expression_text(node.node, SUFFIX)}.{node.attr}", SUFFIX),
    nodes.Getitem: (_element, SUFFIX),
    nodes.Slice: (_slice, CHOICE),
    nodes.Filter: (_filter, SUFFIX),
    nodes.Test: (_test, SUFFIX),
    nodes.Call: (lambda node: expression_text(node.node, SUFFIX) + _arguments(node), SUFFIX),
    nodes.Compare: (_compare, COMPARISON),
    nodes.Not: (_negation, NEGATION),
    nodes.Neg: (lambda node: f"-{expression_text(node.node, SIGN)}", SIGN),
    nodes.Pos: (lambda node: f"+{expression_text(node.node, SIGN)}", SIGN),
    nodes.Concat: (lambda node: " ~ ".join(expression_text(part, PRODUCT) for part in node.nodes), TEXT),
    nodes.CondExpr: (_choice, CHOICE),
    nodes.List: (lambda node: f"[{_items(node)}]", SUFFIX),
    nodes.Tuple: (lambda node: f"({_items(node)})", SUFFIX),
    nodes.Dict: (
        lambda node: (
            "{" + ", ".join(f"{expression_text(pair.key)}: {expression_text(pair.value)}" for pair in node.items) + "}"
        ),
        SUFFIX,
    ),
}

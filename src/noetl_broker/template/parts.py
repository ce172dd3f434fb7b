"""A template taken apart: what each part of a condition gave, which part was false, and which values were read.

For somebody who asks why, never for a decision: the parts are evaluated again, in the scope of the decision, all on one
account of fuel. A template that does too much, or has too many parts, is taken apart only so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from jinja2 import nodes
from jinja2.exceptions import UndefinedError

from noetl_broker.template import engine, grammar
from noetl_broker.template.allowance import Allowance
from noetl_broker.template.compiled import TEMPLATE_FAULTS, has_template, reason
from noetl_broker.template.expressions import text_of
from noetl_broker.template.fault import TemplateError
from noetl_broker.template.fuel import Evaluation
from noetl_broker.template.output import as_json
from noetl_broker.template.render import Template
from noetl_broker.template.scope import JSON, Scope
from noetl_broker.template.truth import is_true
from noetl_broker.template.values import solid

MOST_PARTS: Final = 150  # evaluated of one template: each is compiled by itself
CHAIN: Final = (nodes.Name, nodes.Getattr, nodes.Getitem)


class Read(NamedTuple):
    """A value that a template read: as the template writes it, with the names that it begins with.

    `error` says why there is none; `undefined`: because nobody has it.
    """

    text: str
    value: JSON
    names: tuple[str, ...]
    error: str | None = None
    undefined: bool = False


class Part(NamedTuple):
    """A part of a condition. `holds` is None where it was not read (`error` None), or could not be evaluated.

    `word` is "and", "or" or "not" of one made of `parts`, "" of any other, which has `reads`.
    """

    text: str
    holds: bool | None
    value: JSON = None
    error: str | None = None
    word: str = ""
    parts: tuple[Part, ...] = ()
    reads: tuple[Read, ...] = ()


class _Taking:
    """One template being taken apart: its account of fuel, and how many parts may still be evaluated."""

    def __init__(self, scope: Scope) -> None:
        self.run = Evaluation(scope)
        self.run.allowance = Allowance()  # the turn's own is spent, or is nobody's business any more
        self.run.granted = self.run.fuel = self.run.allowance.steps
        self.left = MOST_PARTS

    def value(self, node: nodes.Node) -> JSON:
        """Give the value of a part of the tree; raises what its code raises."""
        if self.left <= 0:
            raise ValueError("it has too many parts to show them all")
        self.left -= 1
        tree = nodes.Template([nodes.Output([node], lineno=1)], lineno=1)
        tree.set_environment(engine.ENVIRONMENT)
        root, _ = engine.generate(tree, native=True)
        return as_json(self.run, solid(next(root(self.run))))


def parts_of(condition: Template, scope: Scope) -> Part:
    """Take a condition apart. `NotLoaded` passes through; whatever else goes wrong is in the parts."""
    source = condition.source.strip()
    tree = _tree(source if source.startswith("{{") else f"{{{{ {source} }}}}")
    if tree is None or not isinstance(tree.body[0], nodes.Output):
        return Part(source, None, error="it does not compile")
    return _part(tree.body[0].nodes[0], _Taking(scope), is_true)


def reads_of(template: Template, scope: Scope) -> tuple[Read, ...]:
    """Give the values that any template, or a condition, reads by way of names that stand outside it."""
    source = template.source.strip()
    tree = _tree(source if has_template(source) else f"{{{{ {source} }}}}")
    if tree is None:
        return ()
    taking = _Taking(scope)
    return tuple(_read(node, taking) for node in _chains(tree) if set(_roots(node)) <= template.names)


def _tree(source: str) -> nodes.Template | None:
    try:
        tree = engine.parse(source)
        grammar.check(tree)
    except (*TEMPLATE_FAULTS, TemplateError):
        return None
    return tree


def _part(node: nodes.Node, taking: _Taking, truth: Callable[[JSON], bool]) -> Part:
    """Take one node apart; `truth` says when its value holds: within `and`, `or` and `not` as Python has it."""
    if isinstance(node, nodes.Not) and not isinstance(node.node, nodes.Test):
        inner = _part(node.node, taking, bool)
        holds = None if inner.holds is None else not inner.holds
        return Part(text_of(node), holds, holds, inner.error, "not", (inner,))
    if isinstance(node, nodes.And | nodes.Or):
        return _joined(node, taking, truth)
    try:
        value = taking.value(node)
    except (*TEMPLATE_FAULTS, TemplateError) as fault:
        return Part(text_of(node), None, error=reason(fault), reads=_reads(node, taking))
    return Part(text_of(node), truth(value), value, reads=_reads(node, taking))


def _joined(node: nodes.And | nodes.Or, taking: _Taking, truth: Callable[[JSON], bool]) -> Part:
    """`and`, `or`: the second part is read only where the first leaves it open; the value is that of the last read."""
    word = "and" if isinstance(node, nodes.And) else "or"
    left = _part(node.left, taking, bool)
    if left.error is None and left.holds is (word == "and"):
        right = last = _part(node.right, taking, truth)
    else:
        right, last = Part(text_of(node.right), None), left
    if last is left and left.holds:
        left = last = left._replace(holds=truth(left.value))
    parts = (*(left.parts if left.word == word else (left,)), right)
    return Part(text_of(node), last.holds, last.value, last.error, word, parts)


def _reads(node: nodes.Node, taking: _Taking) -> tuple[Read, ...]:
    """Give what a part that is not made of others reads: the sides of a comparison, or what its names begin."""
    if isinstance(node, nodes.Compare):
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        return tuple(_read(side, taking) for side in sides if _roots(side))
    return tuple(_read(chain, taking) for chain in _chains(node))


def _read(node: nodes.Node, taking: _Taking) -> Read:
    names = _roots(node)
    try:
        return Read(text_of(node), taking.value(node), names)
    except (*TEMPLATE_FAULTS, TemplateError) as fault:
        return Read(text_of(node), None, names, reason(fault), isinstance(fault, UndefinedError))


def _roots(node: nodes.Node) -> tuple[str, ...]:
    own = [node] if isinstance(node, nodes.Name) else []
    names = [name.name for name in (*own, *node.find_all(nodes.Name)) if name.ctx == "load"]
    return tuple(dict.fromkeys(names))


def _chains(node: nodes.Node) -> list[nodes.Node]:
    """Give the longest names with keys (`a.b['c']`) below a node, or itself, each text once."""
    found: dict[str, nodes.Node] = {}
    pending = [node]
    while pending:
        one = pending.pop(0)
        if isinstance(one, CHAIN) and _is_chain(one):
            if getattr(one, "ctx", "load") == "load":
                found.setdefault(text_of(one), one)
            continue
        pending[:0] = one.iter_child_nodes()
    return list(found.values())


def _is_chain(node: nodes.Node) -> bool:
    """Whether it begins with a name: `f(x).y` is a call, and what it reads is found inside."""
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        node = node.node
    return isinstance(node, nodes.Name)

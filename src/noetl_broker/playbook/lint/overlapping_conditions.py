"""Tells whether two conditions can both be true.

Each condition becomes a list of alternatives. An alternative is a list of facts: `x == 1`, `x < 3`, `not y`, or the
order of `x` and `y`. Two conditions exclude each other if every alternative of one contradicts each one of the other.
Unknown forms contradict nothing: the answer "they can" may be wrong, "they cannot" never is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

from jinja2 import Environment, TemplateSyntaxError, nodes

from noetl_broker.playbook.work_budget import Work

MOST_ALTERNATIVES = 32
MISSING = object()

_PARSER = Environment(autoescape=False, optimized=False)  # noqa: S701 - parses conditions, renders nothing
_OPPOSITE = {
    "eq": "ne",
    "ne": "eq",
    "lt": "gteq",
    "gteq": "lt",
    "gt": "lteq",
    "lteq": "gt",
    "in": "notin",
    "notin": "in",
}
# Possible orders of two values, by the comparison that holds.
_ORDERS = {
    "eq": frozenset({"eq"}),
    "ne": frozenset({"lt", "gt"}),
    "lt": frozenset({"lt"}),
    "gteq": frozenset({"eq", "gt"}),
    "gt": frozenset({"gt"}),
    "lteq": frozenset({"lt", "eq"}),
}
# Tests for a constant. Only `none` can be negated: `1 is not true` holds, though 1 == true.
_CONSTANT_TESTS = {"none": None, "true": True, "false": False}
_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "lteq": "gteq", "gteq": "lteq"}


class Fact(NamedTuple):
    """One fact about a subject.

    `value` is a constant; for the operator "is" True or False, for "order" the possible orders of two values.
    """

    subject: str
    operator: str
    value: Any


Alternative = tuple[Fact, ...]
Alternatives = list[Alternative]


def alternatives(condition: str) -> Alternatives | None:
    """Give the alternatives of a condition, with or without braces; None if it cannot be parsed."""
    text = condition.strip()
    if not (text.startswith("{{") and text.endswith("}}")):
        text = f"{{{{ {text} }}}}"
    try:
        body = _PARSER.parse(text).body
    except (TemplateSyntaxError, RecursionError):
        return None
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
        return None
    try:
        return _alternatives(body[0].nodes[0], positive=True)
    except (OverflowError, RecursionError):
        return None


def exclude_each_other(one: Alternatives, other: Alternatives) -> bool:
    """Whether every alternative of one contradicts every alternative of the other."""
    return all(
        any(_contradict(first, second) for first in left for second in right) for left, right in product(one, other)
    )


def are_exhaustive(conditions: Sequence[str]) -> bool:
    """Whether one of the conditions is true in any case, as far as their forms show it."""
    bare = [text.strip().removeprefix("{{").removesuffix("}}").strip() for text in conditions]
    none_true = alternatives(f"not ({' or '.join(f'({text})' for text in bare)})") if all(bare) else None
    return none_true is not None and all(
        any(_contradict(first, second) for first, second in combinations(one, 2)) for one in none_true
    )


def _alternatives(node: nodes.Node, *, positive: bool) -> Alternatives:
    if isinstance(node, nodes.Not):
        return _alternatives(node.node, positive=not positive)
    if isinstance(node, nodes.And | nodes.Or):
        left, right = (_alternatives(side, positive=positive) for side in (node.left, node.right))
        if isinstance(node, nodes.And) is positive:
            found = [first + second for first, second in product(left, right)]
        else:
            found = left + right
        if len(found) > MOST_ALTERNATIVES:
            raise OverflowError
        return found
    if isinstance(node, nodes.Const):
        return [()] if bool(node.value) is positive else []
    if isinstance(node, nodes.Compare) and len(node.ops) > 1:  # a < b < c: a < b and b < c
        first = nodes.Compare(node.expr, node.ops[:1])
        return _alternatives(nodes.And(first, nodes.Compare(node.ops[0].expr, node.ops[1:])), positive=positive)
    return [(_fact(node, positive=positive),)]


def _fact(node: nodes.Node, *, positive: bool) -> Fact:
    if isinstance(node, nodes.Compare):
        return _comparison(node, positive=positive)
    if isinstance(node, nodes.Test) and node.name in _CONSTANT_TESTS and (positive or node.name == "none"):
        return Fact(_subject(node.node), "eq" if positive else "ne", _CONSTANT_TESTS[node.name])
    return Fact(_subject(node), "is", positive)


def _comparison(node: nodes.Compare, *, positive: bool) -> Fact:
    operand = node.ops[0]
    operator, subject, value = operand.op, node.expr, _constant(operand.expr)
    if value is MISSING and operator in _MIRRORED:
        operator, subject, value = _MIRRORED[operator], operand.expr, _constant(node.expr)
    if value is MISSING and operator in _ORDERS:
        return _order(_OPPOSITE[operator] if not positive else operator, _subject(subject), _subject(node.expr))
    if operator in ("in", "notin") and not isinstance(value, tuple):
        pair = f"{_subject(node.expr)} in {_subject(operand.expr)}"
        return Fact(pair, "is", (operator == "in") is positive)
    return Fact(_subject(subject), operator if positive else _OPPOSITE[operator], value)


def _order(operator: str, left: str, right: str) -> Fact:
    """Give the fact about the order of two values, whichever is written first."""
    if left > right:
        operator, left, right = _MIRRORED[operator], right, left
    return Fact(f"{left} to {right}", "order", _ORDERS[operator])


def _subject(node: nodes.Node) -> str:
    """Give the name of a subject; `a.b` and `a['b']` are the same."""
    if isinstance(node, nodes.Getattr):
        return f"{_subject(node.node)}[{node.attr!r}]"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return f"{_subject(node.node)}[{node.arg.value!r}]"
    if isinstance(node, nodes.Name):
        return node.name
    return repr(node)


def _constant(node: nodes.Node) -> Any:
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const) and isinstance(node.node.value, int | float):
        return -node.node.value
    if isinstance(node, nodes.List | nodes.Tuple):
        items = tuple(_constant(item) for item in node.items)
        return MISSING if MISSING in items else items
    return MISSING


def _contradict(first: Fact, second: Fact) -> bool:
    if first.subject != second.subject:
        return False
    return any(_excludes(left, right) for left, right in ((first, second), (second, first)))


def _excludes(first: Fact, second: Fact) -> bool:
    """Whether no value that the first fact allows fulfils the second."""
    allowed = _allowed(first)
    if allowed is not None:
        return not any(_holds(second, value) for value in allowed)
    if first.operator == second.operator == "order":
        return not first.value & second.value
    if first.operator in ("lt", "lteq") and second.operator in ("gt", "gteq"):
        both = (first.value, second.value)
        if not all(isinstance(value, int | float) for value in both):
            return False
        strict = "lt" in (first.operator, second.operator) or "gt" in (first.operator, second.operator)
        return bool(first.value < second.value or (strict and first.value == second.value))
    return first.operator == "is" and second.operator == "is" and first.value is not second.value


def _allowed(fact: Fact) -> tuple[Any, ...] | None:
    if fact.operator == "eq":
        return (fact.value,)
    return fact.value if fact.operator == "in" else None


def _holds(fact: Fact, value: Any) -> bool:
    if fact.operator == "is":
        return bool(value) is fact.value
    if fact.operator in ("in", "notin"):
        return (value in fact.value) is (fact.operator == "in")
    if fact.operator in ("eq", "ne"):
        return (value == fact.value) is (fact.operator == "eq")
    try:
        order = {"lt": value < fact.value, "lteq": value <= fact.value, "gt": value > fact.value}
        order["gteq"] = value >= fact.value
    except TypeError:
        return False
    return bool(order[fact.operator])


def first_overlap(conditions: list[tuple[int, Alternatives]], most_pairs: int, work: Work) -> Iterator[tuple[int, int]]:
    """Give each condition that can be true together with an earlier one: its number, and the first such number."""
    pairs = 0
    for index, (number, found) in enumerate(conditions):
        for earlier, other in conditions[:index]:
            pairs += 1
            if pairs > most_pairs:
                return
            work.spend(1 + sum(map(len, found)) * sum(map(len, other)))
            if not exclude_each_other(found, other):
                yield number, earlier
                break

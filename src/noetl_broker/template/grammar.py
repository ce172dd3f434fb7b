"""Which syntax templates may use, and which names they read: both from the syntax tree, before evaluation."""

from __future__ import annotations

import unicodedata
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError

from noetl_broker.template.filters import FILTERS
from noetl_broker.template.jinja_tests import TESTS
from noetl_broker.template.numbers import INTEGER_LIMIT, number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WORKER_WORDS: Final[frozenset[str]] = frozenset({"env", "job", "secret", "secrets", "keychain"})
SAVE_WORDS: Final = WORKER_WORDS | {"result", "this"}
FUNCTIONS: Final = frozenset({"range", "now", "uuid", "dict", "namespace"})
LOOP_ITEMS: Final = "*turns*"
STEPS_PER_ROUND: Final = 6
STEPS_PER_NODE: Final = 4
STEPS_PER_SIMPLE_NODE: Final = 2
SIMPLE_NODES: Final = frozenset({nodes.Template, nodes.TemplateData, nodes.Output, nodes.Name, nodes.Const})
MAX_NODES: Final = 2_500
MAX_DEPTH: Final = 60
# Python compiles at most twenty nested blocks; a loop is one.
MAX_LOOP_DEPTH: Final = 12
NO_NAMES: Final[frozenset[str]] = frozenset()

ALLOWED: Final[frozenset[type[nodes.Node]]] = frozenset(
    {
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.AssignBlock),
        *(nodes.With, nodes.FilterBlock, nodes.Name, nodes.NSRef, nodes.Const, nodes.Tuple, nodes.List, nodes.Dict),
        *(nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getattr),
        nodes.Getitem,
        *(nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div),
        *(nodes.FloorDiv, nodes.Mod, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.EnvironmentAttribute),
    }
)
# A tree of only these nodes gives a value of the scope or a plain value; its result needs no check.
PLAIN_NODES: Final[frozenset[type[nodes.Node]]] = frozenset(
    {
        *(nodes.Template, nodes.Output, nodes.Name, nodes.Const, nodes.CondExpr, nodes.Getattr, nodes.Getitem),
        *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test, nodes.Dict),
    }
)
PLAIN_FILTERS: Final = frozenset({"default", "d", "length", "count"})
# Nodes that define names.
NAMING_NODES: Final[frozenset[type[nodes.Node]]] = frozenset({nodes.For, nodes.Assign, nodes.AssignBlock, nodes.With})
REFUSED: Final[dict[type[nodes.Node], str]] = {
    nodes.Pow: "`**` is not allowed in templates: multiply instead",
    nodes.Macro: "a macro is not allowed in templates",
    nodes.CallBlock: "a call block is not allowed in templates",
    nodes.Include: "a template cannot include another",
    nodes.Import: "a template cannot import another",
    nodes.FromImport: "a template cannot import another",
    nodes.Extends: "a template cannot extend another",
}


class Checked(NamedTuple):
    """What `check` finds in the tree of a template.

    `names` are the names that it reads; None if it defines names, which only its code shows. `results` are the steps
    read through `results`; None if unknown. `plain`: its result needs no check. `cost` is in steps, without filters,
    operators and loops.
    """

    names: frozenset[str] | None
    results: frozenset[str] | None
    plain: bool
    cost: int


def check(tree: nodes.Template) -> Checked:
    """Refuse syntax that templates may not use; prepare the tree: mark functions, charge for loops.

    Raises TemplateSyntaxError with a message that says what to write instead.
    """
    found = [*_checked(tree)]
    kinds = {type(node) for node in found}
    if nodes.For in kinds and _loop_depth(tree) > MAX_LOOP_DEPTH:
        raise TemplateSyntaxError(f"it has more than {MAX_LOOP_DEPTH} loops within each other", 1)
    named = {node.name for node in found if type(node) is nodes.Name}
    if len(set(map(_as_python_reads, named))) < len(named):
        raise TemplateSyntaxError("two of its names look alike and are written with different characters", 1)
    cost = _steps([tree]) if nodes.For in kinds else sum(map(_own_steps, found))
    for node in found:
        if type(node) is nodes.For:
            steps = nodes.Const(
                STEPS_PER_ROUND + _steps([*node.body, node.target, *([node.test] if node.test else [])])
            )
            node.iter = nodes.Filter(node.iter, LOOP_ITEMS, [steps], [], None, None, lineno=node.lineno)
    plain = all(map(_is_plain, found))
    return Checked(names_loaded(found) if kinds.isdisjoint(NAMING_NODES) else None, results_read(found), plain, cost)


def names_loaded(found: Iterable[nodes.Node]) -> frozenset[str]:
    """Give the names that these nodes read."""
    return frozenset(node.name for node in found if isinstance(node, nodes.Name) and node.ctx == "load")


def results_read(found: Iterable[nodes.Node]) -> frozenset[str] | None:
    """Give the steps that a tree reads through `results`; None if the tree does not tell."""
    known: set[str] = set()
    uses = 0
    for node in found:
        if isinstance(node, nodes.Name):
            uses += node.name == "results" and node.ctx == "load"
        elif isinstance(node, nodes.Getattr) and is_results(node.node):
            known.add(node.attr)
            uses -= 1
        elif isinstance(node, nodes.Getitem) and is_results(node.node):
            name = node.arg.value if isinstance(node.arg, nodes.Const) else None
            if isinstance(name, str):
                known.add(name)
                uses -= 1
    return frozenset(known) if uses == 0 else None


def _checked(tree: nodes.Template) -> Iterator[nodes.Node]:
    """Give every node, level by level. Raises TemplateSyntaxError at the first that is not allowed."""
    level: list[nodes.Node] = [tree]
    count = depth = 0
    while level:
        count += len(level)
        depth += 1
        if count > MAX_NODES:
            raise TemplateSyntaxError(f"it has more than {MAX_NODES:,} parts", 1)
        if depth > MAX_DEPTH:
            raise TemplateSyntaxError(f"it is nested deeper than {MAX_DEPTH} levels", 1)
        below: list[nodes.Node] = []
        for node in level:
            _check_node(node)
            yield node
            _add_children(node, below)
        level = below


def _add_children(node: nodes.Node, found: list[nodes.Node]) -> None:
    """Collect the children of a node; Jinja's `iter_child_nodes` takes a third of the time of a registration."""
    for name in node.fields:
        value = getattr(node, name)
        if isinstance(value, nodes.Node):
            found.append(value)
        elif type(value) is list:
            found.extend(one for one in value if isinstance(one, nodes.Node))


def nodes_of(tree: nodes.Node) -> Iterator[nodes.Node]:
    """Give every node of a tree, unchecked."""
    level = [tree]
    while level:
        yield from level
        below: list[nodes.Node] = []
        for node in level:
            _add_children(node, below)
        level = below


def _loop_depth(node: nodes.Node) -> int:
    return max(map(_loop_depth, node.iter_child_nodes()), default=0) + (type(node) is nodes.For)


def _as_python_reads(name: str) -> str:
    """Give the name as Python normalizes it."""
    return name if name.isascii() else unicodedata.normalize("NFKC", name)


def _steps(pending: list[nodes.Node]) -> int:
    """Count the steps of these nodes without the bodies of loops, which pay for each round."""
    steps = 0
    while pending:
        node = pending.pop()
        steps += _own_steps(node)
        if type(node) is nodes.For:
            pending += [node.iter, *node.else_]
        else:
            _add_children(node, pending)
    return steps


def _own_steps(node: nodes.Node) -> int:
    if type(node) is nodes.TemplateData:
        return STEPS_PER_SIMPLE_NODE + (len(node.data) >> 4)
    return STEPS_PER_SIMPLE_NODE if type(node) in SIMPLE_NODES else STEPS_PER_NODE


def _is_plain(node: nodes.Node) -> bool:
    """Tell whether the node can only give a value of the scope or a plain value."""
    if type(node) is nodes.Filter:
        return node.name in PLAIN_FILTERS
    if type(node) is nodes.Const:
        return type(node.value) is not float or type(number_of(node.value)) is float
    if type(node) is nodes.List:
        return all(type(item) is nodes.Const for item in node.items)
    if type(node) is nodes.Pair:  # all that makes a mapping one or not
        return type(node.key) is type(node.value) is nodes.Const and type(node.key.value) is str
    if type(node) is nodes.Call:
        return type(node.node) is nodes.Getattr and node.node.attr == "get"
    return type(node) in PLAIN_NODES


def _check_node(node: nodes.Node) -> None:
    kind = type(node)
    complaint: str | None = None
    if kind not in ALLOWED:
        complaint = REFUSED.get(kind, f"`{kind.__name__.lower()}` is not allowed in templates")
    elif isinstance(node, nodes.Name):
        complaint = "`self` has no meaning in templates" if node.name == "self" else None
    elif isinstance(node, nodes.Const):
        complaint = _complaint_about_constant(node.value)
    elif isinstance(node, nodes.For):
        complaint = "a recursive loop is not allowed in templates" if node.recursive else None
    elif isinstance(node, nodes.Filter | nodes.Test | nodes.Call):
        complaint = _complaint_about_call(node)
    if complaint:
        raise TemplateSyntaxError(complaint, node.lineno)


def _complaint_about_constant(value: Any) -> str | None:
    if type(value) is int and not -INTEGER_LIMIT < value < INTEGER_LIMIT:
        return "it holds an integer of more than 256 bits"
    if type(value) is float and value in (float("inf"), float("-inf")):
        return "it holds a number that is too large"
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "it holds a lone surrogate"
    return "it holds a NUL character" if type(value) is str and "\x00" in value else None


def _complaint_about_call(node: nodes.Filter | nodes.Test | nodes.Call) -> str | None:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return "arguments with * or ** are not allowed in templates"
    named = [_as_python_reads(pair.key) for pair in node.kwargs if isinstance(pair, nodes.Keyword)]
    if any(iskeyword(name) or name == "__debug__" for name in named):
        return "a named argument may not be a word of Python"
    if len({*named}) < len(named):
        return "a named argument is given twice"
    if isinstance(node, nodes.Call):
        return _complaint_about_callee(node)
    if isinstance(node, nodes.Filter):
        return None if node.name in FILTERS else f"there is no filter `{node.name}`"
    return None if node.name in TESTS else f"there is no test `{node.name}`"


def _complaint_about_callee(node: nodes.Call) -> str | None:
    called = node.node
    if isinstance(called, nodes.Name):
        if called.name not in FUNCTIONS:
            return f"there is no function `{called.name}`: the functions are {', '.join(sorted(FUNCTIONS))}"
        node.node = nodes.EnvironmentAttribute(called.name, lineno=node.lineno)
        return None
    if not isinstance(called, nodes.Getattr | nodes.EnvironmentAttribute):
        return "only a function or a method can be called"
    return None


def is_results(node: nodes.Node) -> bool:
    """Tell whether a node is the word `results`."""
    return isinstance(node, nodes.Name) and node.name == "results"

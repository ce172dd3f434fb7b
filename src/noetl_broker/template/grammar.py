"""Which syntax templates may use, and which names they read: decided from the syntax tree, before anything runs."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Any, Final

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError

from noetl_broker.template.filters import FILTERS, TESTS
from noetl_broker.template.fuel import INTEGER_LIMIT, bounds

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER_WORDS: Final = frozenset({"env", "job", "secret", "secrets", "keychain"})
SAVE_WORDS: Final = WORKER_WORDS | {"result", "this"}
FUNCTIONS: Final = frozenset({"range", "now", "uuid", "dict", "namespace"})
TURNS: Final = "*turns*"
UNITS_PER_TURN: Final = 6
UNITS_PER_NODE: Final = 4
UNITS_PER_SIMPLE_NODE: Final = 2
SIMPLE_NODES: Final = (nodes.TemplateData, nodes.Output, nodes.Name, nodes.Const)

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
# A tree of only these gives what the scope holds, or a plain value, so its result needs no check.
PLAIN_NODES: Final[frozenset[type[nodes.Node]]] = frozenset(
    {
        *(nodes.Template, nodes.Output, nodes.Name, nodes.Const, nodes.CondExpr, nodes.Getattr, nodes.Getitem),
        *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
    }
)


def names_loaded(tree: nodes.Node) -> frozenset[str]:
    """Give every name that a tree reads, local ones too."""
    return frozenset(node.name for node in tree.find_all(nodes.Name) if node.ctx == "load")


def results_read(tree: nodes.Node) -> frozenset[str] | None:
    """Give the step names read through `results`; None if they cannot be known from the tree."""
    known: set[str] = set()
    uses = sum(1 for node in tree.find_all(nodes.Name) if node.name == "results" and node.ctx == "load")
    for attribute in tree.find_all(nodes.Getattr):
        if is_results(attribute.node):
            known.add(attribute.attr)
            uses -= 1
    for element in tree.find_all(nodes.Getitem):
        if is_results(element.node) and isinstance(element.arg, nodes.Const) and isinstance(element.arg.value, str):
            known.add(element.arg.value)
            uses -= 1
    return frozenset(known) if uses == 0 else None


def is_plain(tree: nodes.Node) -> bool:
    """Tell whether what the tree gives can only be what the scope holds, or a plain value."""
    return all(
        type(node) in PLAIN_NODES
        or (isinstance(node, nodes.Filter) and node.name in ("default", "d"))
        or (isinstance(node, nodes.Test) and node.name in ("defined", "undefined"))
        for node in walk(tree)
    )


def walk(node: nodes.Node) -> Iterator[nodes.Node]:
    """Give every node below this one."""
    for child in node.iter_child_nodes():
        yield child
        yield from walk(child)


def check(tree: nodes.Template) -> None:
    """Refuse what templates may not use, and prepare the tree: functions are marked, loops are metered.

    Raises TemplateSyntaxError with a message that says what to write instead.
    """
    limits = bounds()
    level: list[nodes.Node] = [tree]
    count = depth = 0
    while level:
        count += len(level)
        depth += 1
        if count > limits.source_nodes:
            message = f"it has more than {limits.source_nodes:,} parts"
            raise TemplateSyntaxError(message, 1)
        if depth > limits.source_depth:
            message = f"it is nested deeper than {limits.source_depth} levels"
            raise TemplateSyntaxError(message, 1)
        for node in level:
            _check_node(node)
        level = [child for node in level for child in node.iter_child_nodes()]
    for loop in tree.find_all(nodes.For):
        units = _units(loop)
        loop.iter = nodes.Filter(loop.iter, TURNS, [nodes.Const(units)], [], None, None, lineno=loop.lineno)


def _units(loop: nodes.For) -> int:
    """Give what one turn of a loop costs, nested loops aside: they pay for themselves."""
    pending: list[nodes.Node] = [*loop.body, loop.target, *([loop.test] if loop.test else [])]
    units = UNITS_PER_TURN
    while pending:
        node = pending.pop()
        units += UNITS_PER_SIMPLE_NODE if isinstance(node, SIMPLE_NODES) else UNITS_PER_NODE
        if isinstance(node, nodes.TemplateData):
            units += len(node.data) >> 4
        pending.extend([node.iter] if isinstance(node, nodes.For) else node.iter_child_nodes())
    return units


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


REFUSED: Final[dict[type[nodes.Node], str]] = {
    nodes.Pow: "`**` is not allowed in templates: multiply instead",
    nodes.Macro: "a macro is not allowed in templates",
    nodes.CallBlock: "a call block is not allowed in templates",
    nodes.Include: "a template cannot include another",
    nodes.Import: "a template cannot import another",
    nodes.FromImport: "a template cannot import another",
    nodes.Extends: "a template cannot extend another",
}


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
    if any(isinstance(pair, nodes.Keyword) and keyword.iskeyword(pair.key) for pair in node.kwargs):
        return "a named argument may not be a word of Python"
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

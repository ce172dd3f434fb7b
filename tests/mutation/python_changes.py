"""The changes of Python sources that mutants are drawn from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

TURNED = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "in": "not in", "not in": "in", "is": "is not", "is not": "is",
}  # fmt: skip
# Calls that only tell somebody something.
TELLING = re.compile(r"(await )?(log|logger|warnings|metrics)\.|(click\.)?echo\(|super\(\)\.__init__")
DULL_FUNCTIONS = {"__repr__", "__str__"}
Span = tuple[int, int]


class Change(NamedTuple):
    """A change of the characters from `start` to `end`, in a function or statement."""

    function: str
    kind: str
    start: int
    end: int
    after: str


class _Changes:
    """Walks a module; leaves out types, messages, decorators and what only type checkers run."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def walk(self, node: ast.AST, function: str) -> Iterator[Change]:
        """Yield the changes of a node and of those below it."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}" if function else node.name
            if node.name in DULL_FUNCTIONS:
                return
        elif isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        for kind, (start, end), after in self.of(node):
            yield Change(function or "module", kind, start, end, after)
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "type_params"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_for_types(child):
                    yield from self.walk(child, function)

    def of(self, node: ast.AST) -> Iterator[tuple[str, Span, str]]:
        """Yield kind, span and new text of each change of this node itself."""
        for condition in _conditions(node):
            yield "condition", self.span(condition), "False"
            if not isinstance(node, ast.While):
                yield "condition", self.span(condition), "True"
        if isinstance(node, ast.stmt):
            yield from self.of_statement(node)
        else:
            yield from self.of_expression(node)

    def of_statement(self, node: ast.stmt) -> Iterator[tuple[str, Span, str]]:
        """Yield the changes of a statement."""
        match node:
            case ast.Return(value=value) if value is not None and not _is_none(value):
                yield "return", self.span(value), "None"
            case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())) if not TELLING.match(self.source(node)):
                yield "statement dropped", self.span(node), "pass"
            case ast.Break() | ast.Continue():
                yield "jump dropped", self.span(node), "pass"

    def of_expression(self, node: ast.AST) -> Iterator[tuple[str, Span, str]]:
        """Yield the changes of an expression."""
        match node:
            case ast.Compare():
                for left, right in pairwise([node.left, *node.comparators]):
                    yield from self.between("comparison", left, right, TURNED)
            case ast.BoolOp():
                for left, right in pairwise(node.values):
                    yield from self.between("and/or", left, right, {"and": "or", "or": "and"})
            case ast.BinOp(op=ast.Add() | ast.Sub()) if not any(map(_is_text, (node.left, node.right))):
                yield from self.between("plus/minus", node.left, node.right, {"+": "-", "-": "+"})
            case ast.UnaryOp(op=ast.Not()):
                yield "not dropped", (self.span(node)[0], self.span(node.operand)[0]), ""
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                yield "constant", self.span(node), str(number + 1)

    def between(
        self, kind: str, left: ast.AST, right: ast.AST, turned: dict[str, str]
    ) -> Iterator[tuple[str, Span, str]]:
        """Yield the operator between two operands and what it is turned to."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = re.sub(r"#.*", lambda comment: " " * len(comment[0]), self.text[start:end])
        if found := re.search(r"[-<>=!+]+|\b(is not|not in|is|in|and|or)\b", gap):
            yield kind, (start + found.start(), start + found.end()), turned[found[0]]

    def span(self, node: ast.AST) -> Span:
        """Return where a node starts and ends, in characters."""
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def offset(self, line: int, column: int) -> int:
        """Return the position of a line and a column, which counts bytes."""
        start = self.starts[line - 1]
        before = self.text[start : start + column].encode()[:column]
        return start + len(before.decode(errors="ignore"))

    def source(self, node: ast.AST) -> str:
        """Return the text of a node."""
        start, end = self.span(node)
        return self.text[start:end]


def changes(text: str) -> Iterator[Change]:
    """Yield the possible changes of a module."""
    return _Changes(text).walk(ast.parse(text), "")


def _conditions(node: ast.AST) -> list[ast.expr]:
    found = node.ifs if isinstance(node, ast.comprehension) else [getattr(node, "test", None)]
    return [test for test in found if isinstance(test, ast.expr) and not isinstance(test, ast.Constant)]


def _is_for_types(node: ast.AST) -> bool:
    """Whether no program runs the node: a name of a type, or what only type checkers or a start as a program read."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test).startswith(("TYPE_CHECKING", "__name__"))
    called = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Subscript) else None
    return isinstance(called, ast.Name) and called.id in {"cast", "TypeVar", "Literal", "Annotated", "Callable"}


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None

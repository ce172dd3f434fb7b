"""Compiled source texts: parsed and checked at once; the code is made at the first evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

from jinja2 import nodes
from jinja2.exceptions import TemplateError as JinjaError

from noetl_broker.template import engine, grammar
from noetl_broker.template.errors import TemplateError

CACHED: Final = 16_384  # more than one playbook may have
LONGEST_CACHED: Final = 4_096  # characters, so that the cache is limited in bytes too
REASON_CHARS: Final = 400
CALL: Final = re.compile(r"[\w.<>]+\(\) (?=takes |missing |got )")  # the name of a function in Python's message
T = TypeVar("T")
# Exceptions that are faults of the template. `NotLoaded` is not among them and passes through.
TEMPLATE_FAULTS: Final = (
    *(JinjaError, TypeError, ValueError, LookupError, ArithmeticError),
    *(AttributeError, AssertionError, RecursionError, MemoryError, SyntaxError),
)


def reason(fault: Exception) -> str:
    """Give the reason of a fault as one phrase."""
    if isinstance(fault, RecursionError):
        return "it is nested too deep"
    if isinstance(fault, MemoryError):
        return "it needs too much memory"
    if isinstance(fault, ZeroDivisionError):
        return "it divides by zero"
    message = (getattr(fault, "message", None) or getattr(fault, "msg", None) or str(fault)).strip().rstrip(".")
    if isinstance(fault, TypeError) and (call := CALL.match(message)):
        message = f"a filter, a test or a method has the wrong arguments ({message[call.end() :]})"
    elif isinstance(fault, AttributeError | AssertionError):
        message = f"a filter cannot work on what it is given ({message})"
    return f"{message[:REASON_CHARS]}…" if len(message) > REASON_CHARS else message or type(fault).__name__


PLAIN_TEXT: Final = grammar.Checked(grammar.NO_NAMES, grammar.NO_NAMES, plain=True, cost=0)


class Compiled:
    """A compiled source text, shared by all places with the same text.

    `template`: it is more than plain text. `native`: it is exactly one expression. `names` and `results` are what it
    reads; `plain` and `cost` are as in `grammar.Checked`.
    """

    __slots__ = ("_code", "cost", "names", "native", "plain", "results", "root", "template")

    def __init__(self, code: str, tree: nodes.Template | None, *, native: bool) -> None:
        """Take the source to parse and its tree (None: plain text). Raises as `grammar.check`."""
        checked = PLAIN_TEXT if tree is None else grammar.check(tree)
        self._code = code
        self.root: engine.Root | None = None
        self.template = tree is not None
        self.native = native
        self.plain = native and checked.plain
        self.cost = checked.cost
        self.results = checked.results
        if checked.names is not None:
            self.names = checked.names
        elif tree is not None:
            self.root, self.names = engine.generate(tree, native=native)

    def make(self) -> engine.Root:
        """Make the function that evaluates it: a generator of its texts, or (native) a function that gives its value.

        The source is parsed again: kept trees would take ten times the memory of the rest.
        """
        tree = engine.parse(self._code)
        grammar.check(tree)
        self.root, _ = engine.generate(tree, native=self.native)
        return self.root


def cached(read: Callable[[str], T]) -> Callable[[str], T]:
    """Cache the results for the sources read last, unless they are long."""
    recall = lru_cache(maxsize=CACHED)(read)
    return lambda source: recall(source) if len(source) <= LONGEST_CACHED else read(source)


def has_template(source: str) -> bool:
    """Tell whether Jinja sees a template in a text."""
    if "{{" in source or "{%" in source:
        return True
    opened = source.find("{#")
    return opened >= 0 and source.find("#}", opened + 2) >= 0


def _parsed(source: str) -> nodes.Template:
    try:
        return engine.parse(source)
    except TEMPLATE_FAULTS as fault:
        raise TemplateError(reason(fault), source, "") from fault


def names_of(source: str, fault: TemplateError) -> frozenset[str]:
    """Give the names read by a template that the broker refused; raises `fault` if it cannot be parsed."""
    try:
        tree = engine.parse(source)
    except TEMPLATE_FAULTS:
        raise fault from fault.__cause__
    return grammar.names_loaded(grammar.nodes_of(tree))


def results_of(source: str) -> frozenset[str] | None:
    """Give the steps that a template reads through `results`; None if the text does not tell."""
    return grammar.results_read(grammar.nodes_of(engine.parse(source)))


def single_expression(tree: nodes.Template, source: str) -> bool:
    """Tell whether a stripped source is exactly one `{{ expression }}`."""
    if not (source.startswith("{{") and source.endswith("}}")) or len(tree.body) != 1:
        return False
    output = tree.body[0]
    if not isinstance(output, nodes.Output) or len(output.nodes) != 1:
        return False
    return type(output.nodes[0]) is not nodes.TemplateData


def _build(tree: nodes.Template, code: str, source: str, *, native: bool) -> Compiled:
    try:
        return Compiled(code, tree, native=native)
    except TEMPLATE_FAULTS as fault:
        raise TemplateError(reason(fault), source, "") from fault


@cached
def compiled_text(source: str) -> Compiled:
    """Compile the text of a field. Errors have no place: the cache serves all places of a text."""
    if not has_template(source):
        return Compiled(source, None, native=False)
    stripped = source.strip()
    tree = _parsed(stripped)
    if single_expression(tree, stripped):
        return _build(tree, stripped, source, native=True)
    return _build(tree if stripped == source else _parsed(source), source, source, native=False)


@cached
def compiled_condition(source: str) -> Compiled:
    """Compile a condition's text."""
    stripped = source.strip()
    if not stripped:
        raise TemplateError("a condition is empty: write an expression", source, "")
    bare = not stripped.startswith("{{")
    written = f"{{{{ {stripped} }}}}" if bare else stripped
    try:
        tree = _parsed(written)
    except TemplateError as fault:
        raise TemplateError(_condition_reason(stripped, fault.message), source, "") from fault
    if not single_expression(tree, written):
        raise TemplateError("a condition is one expression: text outside the braces is not allowed", source, "")
    output = tree.body[0]
    if isinstance(output, nodes.Output) and isinstance(output.nodes[0], nodes.Tuple):
        raise TemplateError("a condition is one expression, not several with commas between", source, "")
    return _build(tree, written, source, native=True)


def _condition_reason(source: str, message: str) -> str:
    if "{{" in source or "{%" in source:
        return f"a condition is one expression, with or without braces around all of it ({message})"
    return message

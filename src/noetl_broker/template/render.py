"""Templates as the rest of the program uses them: compiled once, evaluated in a scope, giving JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from jinja2 import nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import UndefinedError

from noetl_broker.template import engine, grammar
from noetl_broker.template.fault import TemplateError
from noetl_broker.template.fuel import Evaluation, bounds
from noetl_broker.template.values import as_json, solid

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.template.scope import JSON, Scope

CACHED_TEMPLATES: Final = 8_192
FINAL_TYPES: Final = frozenset({bool, int, float, str, list, dict, type(None)})
# What code made by Jinja raises for the template's own faults. `NotLoaded` is none of these and passes through.
TEMPLATE_FAULTS: Final = (
    *(JinjaError, TypeError, ValueError, LookupError, ArithmeticError),
    *(AttributeError, AssertionError, RecursionError, MemoryError),
)
COMPILE_FAULTS: Final = (*TEMPLATE_FAULTS, SyntaxError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What a source text compiles to; shared by all places that have the same text.

    `root` is None for a text without a template. `native`: the text is exactly one expression. `plain`: what it gives
    needs no check.
    """

    root: engine.Root | None
    native: bool
    plain: bool
    names: frozenset[str]
    results: frozenset[str] | None


class Template:
    """One template at one place of a playbook."""

    __slots__ = ("_compiled", "at", "source")

    def __init__(self, source: str, at: str, compiled: Compiled) -> None:
        """Take what `compile_condition` and `compile_text` made."""
        self.source = source
        self.at = at
        self._compiled = compiled

    @property
    def names(self) -> frozenset[str]:
        """The root names that it reads."""
        return self._compiled.names

    @property
    def results(self) -> frozenset[str] | None:
        """The step names that it reads through `results`; None if they cannot be known from the text."""
        return self._compiled.results

    @property
    def constant(self) -> bool:
        """Whether it is a text without a template."""
        return self._compiled.root is None

    def evaluate(self, scope: Scope) -> JSON:
        """Give its value: the expression's own for a single expression, otherwise a text.

        Raises TemplateError; what the scope raises by way of `NotLoaded` passes through.
        """
        return self.run(Evaluation(scope))

    def run(self, run: Evaluation) -> JSON:
        """Evaluate on an account that is already open."""
        compiled = self._compiled
        if compiled.root is None:
            return self.source
        try:
            if not compiled.native:
                return as_json(run, "".join(compiled.root(run)))
            value = next(compiled.root(run))
            if compiled.plain and type(value) in FINAL_TYPES:
                return value
            return as_json(run, solid(value))
        except TEMPLATE_FAULTS as fault:
            undefined = isinstance(fault, UndefinedError)
            raise TemplateError(reason(fault), self.source, self.at, undefined=undefined) from fault

    def __repr__(self) -> str:
        """Show source and place."""
        return f"Template({self.source!r}, at={self.at!r})"


def reason(fault: Exception) -> str:
    """Say what went wrong, in one phrase."""
    if isinstance(fault, RecursionError):
        return "it is nested too deep"
    if isinstance(fault, MemoryError):
        return "it needs too much memory"
    if isinstance(fault, AttributeError | AssertionError):
        return f"a filter cannot work on what it is given ({fault})"
    if isinstance(fault, ZeroDivisionError):
        return "it divides by zero"
    message = getattr(fault, "message", None) or getattr(fault, "msg", None) or str(fault)
    return message.strip().rstrip(".") or type(fault).__name__


def has_template(source: str) -> bool:
    """Tell whether a text is more than plain text for Jinja."""
    if "{{" in source or "{%" in source:
        return True
    opened = source.find("{#")
    return opened >= 0 and source.find("#}", opened + 2) >= 0


def _parsed(source: str, at: str) -> nodes.Template:
    limit = bounds().source_characters
    if len(source) > limit:
        message = f"it is {len(source):,} characters long, more than the allowed {limit:,}"
        raise TemplateError(message, source, at)
    try:
        return engine.parse(source)
    except COMPILE_FAULTS as fault:
        raise TemplateError(reason(fault), source, at) from fault


def names_of(source: str, fault: TemplateError) -> frozenset[str]:
    """Give the names read by a template that the broker refused; raises its `fault` again if it is no template."""
    try:
        tree = engine.parse(source)
    except COMPILE_FAULTS:
        raise fault from fault.__cause__
    return grammar.names_loaded(tree)


def results_of(source: str) -> frozenset[str] | None:
    """Give the step names that the same template reads through `results`."""
    return grammar.results_read(engine.parse(source))


def single_expression(tree: nodes.Template, source: str) -> bool:
    """Tell whether a stripped source is exactly one `{{ expression }}`."""
    if not (source.startswith("{{") and source.endswith("}}")) or len(tree.body) != 1:
        return False
    output = tree.body[0]
    if not isinstance(output, nodes.Output) or len(output.nodes) != 1:
        return False
    return type(output.nodes[0]) is not nodes.TemplateData


def _build(tree: nodes.Template, source: str, at: str, *, native: bool) -> Compiled:
    try:
        grammar.check(tree)
        results = grammar.results_read(tree)
        plain = native and grammar.is_plain(tree)
        root, names = engine.generate(tree, native=native)
    except COMPILE_FAULTS as fault:
        raise TemplateError(reason(fault), source, at) from fault
    return Compiled(root=root, native=native, plain=plain, names=names, results=results)


@lru_cache(maxsize=CACHED_TEMPLATES)
def _text(source: str) -> Compiled:
    """Compile a field's text; cached by it, so errors carry no place yet."""
    if not has_template(source):
        return Compiled(root=None, native=False, plain=True, names=frozenset(), results=frozenset())
    stripped = source.strip()
    tree = _parsed(stripped, "")
    if single_expression(tree, stripped):
        return _build(tree, source, "", native=True)
    return _build(_parsed(source, ""), source, "", native=False)


@lru_cache(maxsize=CACHED_TEMPLATES)
def _condition(source: str) -> Compiled:
    """Compile a condition's text."""
    stripped = source.strip()
    if not stripped:
        message = "a condition is empty: write an expression"
        raise TemplateError(message, source, "")
    bare = not stripped.startswith("{{")
    written = f"{{{{ {stripped} }}}}" if bare else stripped
    try:
        tree = _parsed(written, "")
    except TemplateError as fault:
        raise TemplateError(_condition_reason(stripped, fault.message), source, "") from fault
    if not single_expression(tree, written):
        message = "a condition is one expression: text outside the braces is not allowed"
        raise TemplateError(message, source, "")
    output = tree.body[0]
    if isinstance(output, nodes.Output) and isinstance(output.nodes[0], nodes.Tuple):
        message = "a condition is one expression, not several with commas between"
        raise TemplateError(message, source, "")
    return _build(tree, source, "", native=True)


def _condition_reason(source: str, message: str) -> str:
    if "{{" in source or "{%" in source:
        return f"a condition is one expression, with or without braces around all of it ({message})"
    return message


def _placed(compile_source: Callable[[str], Compiled], source: str, at: str) -> Template:
    try:
        return Template(source, at, compile_source(source))
    except TemplateError as fault:
        raise TemplateError(fault.message, source, at) from fault.__cause__


def compile_text(source: str, at: str) -> Template:
    """Compile a field: exactly one `{{ expression }}` gives its native value, any other text a text.

    Raises TemplateError.
    """
    return _placed(_text, source, at)


def compile_condition(source: object, at: str, *, worker_words: frozenset[str] = grammar.WORKER_WORDS) -> Template:
    """Compile a `when`: one expression, with or without braces around it. A boolean or a number stands for itself.

    Raises TemplateError on text outside the braces, an empty or null condition, a mapping or list, and on the words
    that only a worker knows.
    """
    if isinstance(source, bool | int | float):
        source = json.dumps(source)
    if not isinstance(source, str):
        shown = "null" if source is None else f"a {type(source).__name__}"
        message = f"a condition is one expression, not {shown}"
        raise TemplateError(message, json.dumps(source, default=str), at)
    template = _placed(_condition, source, at)
    if unknown := template.names & worker_words:
        message = f"`{min(unknown)}` is known to workers only, and the broker decides conditions"
        raise TemplateError(message, source, at)
    return template

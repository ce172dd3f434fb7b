"""Templates as the rest of the program uses them: compiled once, evaluated in a scope, giving JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jinja2.exceptions import TemplateRuntimeError, UndefinedError

from noetl_broker.template import grammar
from noetl_broker.template.allowance import MAX_SOURCE_CHARS, Allowance
from noetl_broker.template.compiled import TEMPLATE_FAULTS, Compiled, condition_of, has_template, reason, text_of
from noetl_broker.template.fault import TemplateError
from noetl_broker.template.fuel import Evaluation
from noetl_broker.template.output import as_json, handed_on, joined
from noetl_broker.template.truth import is_true
from noetl_broker.template.values import solid

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.template.scope import JSON, Scope

SIZED: Final = frozenset({str, list, dict})
FINAL_TYPES: Final = frozenset({bool, int, float, str, list, dict, type(None)})


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
        return not self._compiled.template

    def evaluate(self, scope: Scope) -> JSON:
        """Give its value: the expression's own for a single expression, otherwise a text.

        Raises TemplateError; what the scope raises by way of `NotLoaded` passes through.
        """
        run = Evaluation(scope)
        try:
            return self.run(run)
        finally:
            run.close()

    def holds(self, scope: Scope) -> bool:
        """Tell whether its value counts as true. Raises as `evaluate` does."""
        run = Evaluation(scope)
        try:
            value = self.run(run)
            if type(value) is str:
                self._pay(run.spend, len(value) >> 5)
            return is_true(value)
        finally:
            run.close()

    def weigh(self, values: list[JSON], scope: Scope) -> None:
        """Pay for values that it gave, before they are compared with each other. Raises TemplateError."""
        run = Evaluation(scope)
        run.open_wide()
        try:
            self._pay(run.weigh, *values)
        finally:
            run.close()

    def give(self, run: Evaluation) -> JSON:
        """Evaluate as `run` does, and count what it gives as handed on."""
        value = self.run(run)
        if type(value) in SIZED:
            hand_on(value, run.allowance, self.at, self.source)
        return value

    def _pay(self, pay: Callable[..., None], *amounts: Any) -> None:
        try:
            pay(*amounts)
        except TemplateRuntimeError as fault:
            raise TemplateError(reason(fault), self.source, self.at) from fault

    def run(self, run: Evaluation) -> JSON:
        """Evaluate on an account that is already open."""
        compiled = self._compiled
        if not compiled.template:
            return self.source
        try:
            run.fuel -= compiled.cost
            if run.fuel < 0:
                raise TemplateRuntimeError(run.too_much())
            begin = compiled.root or compiled.make()
            if not compiled.native:
                return as_json(run, joined(run, begin(run)))
            value = next(begin(run))
            if compiled.plain and type(value) in FINAL_TYPES:
                return value
            return as_json(run, solid(value))
        except TEMPLATE_FAULTS as fault:
            undefined = isinstance(fault, UndefinedError)
            raise TemplateError(reason(fault), self.source, self.at, undefined=undefined) from fault

    def __repr__(self) -> str:
        """Show source and place."""
        return f"Template({self.source!r}, at={self.at!r})"


def _bound(source: str, at: str, max_source_chars: int | None) -> None:
    if max_source_chars is not None and len(source) > max_source_chars:
        message = f"it is {len(source):,} characters long, more than the allowed {max_source_chars:,}"
        raise TemplateError(f"{message} (template_max_source_chars)", source, at)


def _placed(compile_source: Callable[[str], Compiled], source: str, at: str) -> Template:
    try:
        return Template(source, at, compile_source(source))
    except TemplateError as fault:
        raise TemplateError(fault.message, source, at) from fault.__cause__


def compile_text(source: str, at: str, *, max_source_chars: int | None = MAX_SOURCE_CHARS) -> Template:
    """Compile a field: exactly one `{{ expression }}` gives its native value, any other text a text.

    `max_source_chars` None: however long it is. Raises TemplateError.
    """
    if has_template(source):
        _bound(source, at, max_source_chars)
    return _placed(text_of, source, at)


def compile_condition(
    source: object,
    at: str,
    *,
    worker_words: frozenset[str] = grammar.WORKER_WORDS,
    max_source_chars: int | None = MAX_SOURCE_CHARS,
) -> Template:
    """Compile a `when`: one expression, with or without braces around it. A boolean or a number stands for itself.

    Raises TemplateError on text outside the braces, an empty or null condition, a mapping or list, and on the words
    that only a worker knows.
    """
    if isinstance(source, bool | int | float):
        source = json.dumps(source)
    if not isinstance(source, str):
        shown = "null" if source is None else f"a {type(source).__name__}"
        raise TemplateError(f"a condition is one expression, not {shown}", json.dumps(source, default=str), at)
    _bound(source, at, max_source_chars)
    template = _placed(condition_of, source, at)
    if unknown := template.names & worker_words:
        raise TemplateError(f"`{min(unknown)}` is known to workers only, and the broker decides conditions", source, at)
    return template


def hand_on(value: JSON, allowance: Allowance, at: str, source: str = "") -> None:
    """Count a value that is written. Raises TemplateError where it is too deep, or the turn writes too much."""
    try:
        allowance.hand_on(handed_on(value))
    except TemplateRuntimeError as fault:
        raise TemplateError(reason(fault), source, at) from fault

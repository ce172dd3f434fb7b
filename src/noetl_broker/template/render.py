"""Templates as the rest of the program uses them: compiled once, evaluated in a scope to JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from jinja2.exceptions import TemplateRuntimeError, UndefinedError

from noetl_broker.template import grammar
from noetl_broker.template.allowance import MAX_SOURCE_CHARS, Allowance
from noetl_broker.template.budget import Evaluation
from noetl_broker.template.compiled import (
    TEMPLATE_FAULTS,
    Compiled,
    compiled_condition,
    compiled_text,
    has_template,
    reason,
)
from noetl_broker.template.errors import TemplateError
from noetl_broker.template.output import as_json, join_texts, output_size
from noetl_broker.template.scope import Results, StepResult
from noetl_broker.template.values import require_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from noetl_broker.template.scope import JSON, Scope

SIZED: Final = frozenset({str, list, dict})
FINAL_TYPES: Final = frozenset({bool, int, float, str, list, dict, type(None)})
FALSE_TEXTS: Final = frozenset({"", "false", "no", "off", "0", "none", "null"})
KEY_OF_RESULT: Final = re.compile(
    r"`(?P<results>results(\.|\['))?(?P<name>[^.`[']+)('\])?(\.(data|result))?(\.[^.`[]+|\[[^`[]+\])` is undefined"
)
LONGEST_FALSE: Final = max(map(len, FALSE_TEXTS))


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
        """The names that it reads."""
        return self._compiled.names

    @property
    def results(self) -> frozenset[str] | None:
        """The steps that it reads through `results`; None if the text does not tell."""
        return self._compiled.results

    @property
    def constant(self) -> bool:
        """Whether it is a text without a template."""
        return not self._compiled.template

    def evaluate(self, scope: Scope) -> JSON:
        """Give its value: for a single expression the expression's own, otherwise a text.

        Raises TemplateError. `NotLoaded`, which the scope raises, passes through.
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

    def charge(self, values: list[JSON], scope: Scope) -> None:
        """Charge for its values before they are compared with each other. Raises TemplateError."""
        run = Evaluation(scope)
        run.use_turn_steps()
        try:
            self._pay(run.charge, *values)
        finally:
            run.close()

    def run_and_count(self, run: Evaluation) -> JSON:
        """Evaluate as `run` does, and count the value as output of the turn."""
        value = self.run(run)
        if type(value) in SIZED:
            count_output(value, run.allowance, self.at, self.source)
        return value

    def _pay(self, pay: Callable[..., None], *amounts: Any) -> None:
        try:
            pay(*amounts)
        except TemplateRuntimeError as fault:
            raise TemplateError(reason(fault), self.source, self.at) from fault

    def run(self, run: Evaluation) -> JSON:
        """Evaluate within an evaluation that has begun."""
        compiled = self._compiled
        if not compiled.template:
            return self.source
        try:
            run.fuel -= compiled.cost
            if run.fuel < 0:
                raise TemplateRuntimeError(run.limit_message())
            begin = compiled.root or compiled.make()
            if not compiled.native:
                return as_json(run, join_texts(run, begin(run)))
            value = begin(run)
            if compiled.plain and type(value) in FINAL_TYPES:
                return value
            return as_json(run, require_value(value))
        except TEMPLATE_FAULTS as fault:
            undefined = isinstance(fault, UndefinedError)
            raise TemplateError(reason_in(run.scope, fault), self.source, self.at, undefined=undefined) from fault

    def __repr__(self) -> str:
        """Show source and place."""
        return f"Template({self.source!r}, at={self.at!r})"


def reason_in(scope: Scope, fault: Exception) -> str:
    """Give the reason of a fault; it says so if an undefined key was looked up in the data of an envelope."""
    message = reason(fault)
    found = KEY_OF_RESULT.match(message) if isinstance(fault, UndefinedError) else None
    if found is None:
        return message
    name = found["name"]
    result = scope.find("results" if found["results"] else name)
    if type(result) is Results:
        result = result.find(name)
    if type(result) is not StepResult or not result.unwrapped:
        return message
    return f"{message}; the result of `{name}` was an envelope, and `{name}` is only its `data`"


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
    """Compile a field: exactly one `{{ expression }}` gives its own value, any other text gives a text.

    `max_source_chars` None: no limit. Raises TemplateError.
    """
    if has_template(source):
        _bound(source, at, max_source_chars)
    return _placed(compiled_text, source, at)


def compile_condition(
    source: object,
    at: str,
    *,
    worker_words: frozenset[str] = grammar.WORKER_WORDS,
    max_source_chars: int | None = MAX_SOURCE_CHARS,
) -> Template:
    """Compile a `when`: one expression with or without braces, a boolean or a number.

    Raises TemplateError for text outside the braces, an empty condition, other types, and worker-side words.
    """
    if isinstance(source, bool | int | float):
        source = json.dumps(source)
    if not isinstance(source, str):
        shown = "null" if source is None else f"a {type(source).__name__}"
        raise TemplateError(f"a condition is one expression, not {shown}", json.dumps(source, default=str), at)
    _bound(source, at, max_source_chars)
    template = _placed(compiled_condition, source, at)
    if unknown := template.names & worker_words:
        raise TemplateError(f"`{min(unknown)}` is known to workers only, and the broker decides conditions", source, at)
    return template


def count_output(value: JSON, allowance: Allowance, at: str, source: str = "") -> None:
    """Count a value as output of the turn. Raises TemplateError if it is too deep or the turn writes too much."""
    try:
        allowance.add_output(output_size(value))
    except TemplateRuntimeError as fault:
        raise TemplateError(reason(fault), source, at) from fault


def is_true(value: JSON) -> bool:
    """Tell whether a condition with this value holds.

    False are: Python's false values, and the trimmed texts false, no, off, 0, none, null in any case. All else is true.
    """
    if value is True or value is False:
        return value
    if isinstance(value, str):
        word = value.strip()
        return len(word) > LONGEST_FALSE or word.lower() not in FALSE_TEXTS
    return bool(value)

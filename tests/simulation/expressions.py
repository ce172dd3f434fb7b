"""Expressions with a Jinja text for playbooks and, computed without Jinja, an expected value."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

FALSE_WORDS = {"false", "no", "off", "0", "none", "null", ""}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class EvaluationError(Exception):
    """A template cannot be evaluated; its execution fails."""


class Missing(NamedTuple):
    """The value of an unknown name, and of each key of it."""


class Outcome(NamedTuple):
    """The result of a step: its data, and how it ended. A template that names the step gets the data.

    `failed` are the places of failed items of an iterator; None for other steps, and if they are not known.
    """

    data: Any = None
    status: str = "COMPLETED"
    error: Any = None
    failed: tuple[int, ...] | None = None


MISSING = Missing()
Scope = Callable[[str], Any]


class Constant(NamedTuple):
    """A literal."""

    value: Any

    def text(self) -> str:
        """Return the Jinja text."""
        return str(self.value).lower() if self.value is None or isinstance(self.value, bool) else repr(self.value)

    def evaluate(self, scope: Scope) -> Any:  # noqa: ARG002 - the signature of all expressions
        """Return the value."""
        return self.value


class Read(NamedTuple):
    """A name with keys: `a.x`, or `results['a'].x` for a step."""

    root: str
    keys: tuple[str, ...] = ()
    by_results: bool = False

    def text(self) -> str:
        """Return the Jinja text."""
        return ".".join((f"results['{self.root}']" if self.by_results else self.root, *self.keys))

    def find(self, scope: Scope) -> Any:
        """Return the value, or MISSING."""
        value = scope(self.root)
        for key in self.keys:
            value = _value_of(value, key)
        return value.data if isinstance(value, Outcome) else value

    def evaluate(self, scope: Scope) -> Any:
        """Return the value; a missing one is an error."""
        value = self.find(scope)
        if value is MISSING:
            raise EvaluationError(f"{self.text()} is undefined")
        return value


def _value_of(value: Any, key: str) -> Any:
    """Return the value of a key: keys of the data first, then those of the step."""
    if isinstance(value, Outcome):
        data = value.data
        if isinstance(data, Mapping) and key in data:
            return data[key]
        known = {"data": data, "result": data, "status": value.status, "error": value.error}
        return known.get(key, MISSING)
    if isinstance(value, Mapping):
        return value.get(key, MISSING)
    return MISSING


class Default(NamedTuple):
    """`a.x | default(3)`."""

    read: Read
    value: Any

    def text(self) -> str:
        """Return the Jinja text."""
        return f"({self.read.text()} | default({Constant(self.value).text()}))"

    def evaluate(self, scope: Scope) -> Any:
        """Return the value, or the default."""
        found = self.read.find(scope)
        return self.value if found is MISSING else found


class FailedItems(NamedTuple):
    """The places of failed items of an iterator; empty if the name is no iterator."""

    root: str

    def text(self) -> str:
        """Return the Jinja text."""
        return f"({self.root}.failed | default([]) | map(attribute='index') | list)"

    def evaluate(self, scope: Scope) -> Any:
        """Return the places in order; data with a key `failed` hides them."""
        found = scope(self.root)
        hiding = _value_of(found, "failed")
        if hiding is MISSING:
            return [*(found.failed or ())] if isinstance(found, Outcome) else []
        if hiding:  # places, as results of playbooks have them
            raise EvaluationError("a number has no index")
        return []


class IsDefined(NamedTuple):
    """`a.x is defined`."""

    read: Read

    def text(self) -> str:
        """Return the Jinja text."""
        return f"{self.read.text()} is defined"

    def evaluate(self, scope: Scope) -> bool:
        """Tell whether the value exists."""
        return self.read.find(scope) is not MISSING


class Compare(NamedTuple):
    """A comparison of two values, as in Python."""

    left: Expression
    sign: str
    right: Expression

    def text(self) -> str:
        """Return the Jinja text."""
        return f"{self.left.text()} {self.sign} {self.right.text()}"

    def evaluate(self, scope: Scope) -> bool:
        """Compare; an error if Python cannot compare them."""
        left, right = self.left.evaluate(scope), self.right.evaluate(scope)
        try:
            return OPERATORS[self.sign](left, right)
        except TypeError as error:
            raise EvaluationError(str(error)) from error


class Add(NamedTuple):
    """The sum of a number and a constant."""

    left: Expression
    right: int

    def text(self) -> str:
        """Return the Jinja text."""
        return f"{self.left.text()} + {self.right}"

    def evaluate(self, scope: Scope) -> int:
        """Add; an error if the value is no number."""
        left = self.left.evaluate(scope)
        if not isinstance(left, int):
            raise EvaluationError(f"{left!r} is no number")
        return left + self.right


class And(NamedTuple):
    """`… and …`; the right side is evaluated only if the left side is true."""

    left: Expression
    right: Expression

    def text(self) -> str:
        """Return the Jinja text."""
        return f"({self.left.text()}) and ({self.right.text()})"

    def evaluate(self, scope: Scope) -> Any:
        """Return what Python's `and` returns."""
        return self.left.evaluate(scope) and self.right.evaluate(scope)


class Not(NamedTuple):
    """`not …`."""

    inner: Expression

    def text(self) -> str:
        """Return the Jinja text."""
        return f"not ({self.inner.text()})"

    def evaluate(self, scope: Scope) -> bool:
        """Return what Python's `not` returns."""
        return not self.inner.evaluate(scope)


Expression = Constant | Read | Default | FailedItems | IsDefined | Compare | Add | And | Not


class Text(NamedTuple):
    """A string with one expression in it."""

    before: str
    expression: Expression

    def text(self) -> str:
        """Return the template."""
        return f"{self.before} {{{{ {self.expression.text()} }}}}"

    def evaluate(self, scope: Scope) -> str:
        """Return the string."""
        return f"{self.before} {self.expression.evaluate(scope)}"


Value = Expression | Text


def template(value: Value) -> Any:
    """Return a value as it is in a playbook: a literal or a template."""
    if isinstance(value, Constant):
        return value.value
    return value.text() if isinstance(value, Text) else f"{{{{ {value.text()} }}}}"


def is_true(value: Any) -> bool:
    """Tell whether a condition with this value holds."""
    if isinstance(value, str):
        return value.strip().lower() not in FALSE_WORDS
    return bool(value)

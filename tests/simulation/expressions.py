"""Expressions that know their Jinja text and, without Jinja, their value: one is written, the other expected."""

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


class Unfit(Exception):
    """A template cannot be evaluated, which ends its execution."""


class Missing(NamedTuple):
    """What a name gives that is not there; it stays so along a chain."""


class Outcome(NamedTuple):
    """What a step left behind: its data, and how it ended. A template that names the step gets the data.

    `failed` are the places of the failed items of an iterator; None of any other step, or where nobody knows.
    """

    data: Any = None
    status: str = "COMPLETED"
    error: Any = None
    failed: tuple[int, ...] | None = None


MISSING = Missing()
Scope = Callable[[str], Any]


class Constant(NamedTuple):
    """A value written as such."""

    value: Any

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return str(self.value).lower() if self.value is None or isinstance(self.value, bool) else repr(self.value)

    def evaluate(self, scope: Scope) -> Any:  # noqa: ARG002 - all expressions are evaluated in a scope
        """Return the value."""
        return self.value


class Read(NamedTuple):
    """A name and what stands under it: `a.x`; by `results['a']` where the name is a step's."""

    root: str
    keys: tuple[str, ...] = ()
    by_results: bool = False

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return ".".join((f"results['{self.root}']" if self.by_results else self.root, *self.keys))

    def find(self, scope: Scope) -> Any:
        """Return what is there, or MISSING."""
        value = scope(self.root)
        for key in self.keys:
            value = _under(value, key)
        return value.data if isinstance(value, Outcome) else value

    def evaluate(self, scope: Scope) -> Any:
        """Return what is there; nothing there is an error."""
        value = self.find(scope)
        if value is MISSING:
            raise Unfit(f"{self.text()} is undefined")
        return value


def _under(value: Any, key: str) -> Any:
    """Look a key up: the data's own keys first, then what is known of the step."""
    if isinstance(value, Outcome):
        data = value.data
        if isinstance(data, Mapping) and key in data:
            return data[key]
        known = {"data": data, "result": data, "status": value.status, "error": value.error}
        return known.get(key, MISSING)
    if isinstance(value, Mapping):
        return value.get(key, MISSING)
    return MISSING


class Fallback(NamedTuple):
    """`a.x | default(3)`."""

    read: Read
    value: Any

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return f"({self.read.text()} | default({Constant(self.value).text()}))"

    def evaluate(self, scope: Scope) -> Any:
        """Return what is there, or the other value."""
        found = self.read.find(scope)
        return self.value if found is MISSING else found


class FailedItems(NamedTuple):
    """Which items of an iterator failed; none, where there is no iterator of that name."""

    root: str

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return f"({self.root}.failed | default([]) | map(attribute='index') | list)"

    def evaluate(self, scope: Scope) -> Any:
        """Return their places, in order."""
        found = scope(self.root)
        return [*(found.failed or ())] if isinstance(found, Outcome) else []


class Present(NamedTuple):
    """`a.x is defined`."""

    read: Read

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return f"{self.read.text()} is defined"

    def evaluate(self, scope: Scope) -> bool:
        """Tell whether it is there."""
        return self.read.find(scope) is not MISSING


class Compare(NamedTuple):
    """Two values, compared as Python does."""

    left: Expression
    sign: str
    right: Expression

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return f"{self.left.text()} {self.sign} {self.right.text()}"

    def evaluate(self, scope: Scope) -> bool:
        """Compare; what Python cannot compare is an error."""
        left, right = self.left.evaluate(scope), self.right.evaluate(scope)
        try:
            return OPERATORS[self.sign](left, right)
        except TypeError as error:
            raise Unfit(str(error)) from error


class Plus(NamedTuple):
    """A number and one more."""

    left: Expression
    right: int

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return f"{self.left.text()} + {self.right}"

    def evaluate(self, scope: Scope) -> int:
        """Add; only numbers can be added."""
        left = self.left.evaluate(scope)
        if not isinstance(left, int):
            raise Unfit(f"{left!r} is no number")
        return left + self.right


class Both(NamedTuple):
    """`… and …`; the right side is looked at only if it matters."""

    left: Expression
    right: Expression

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return f"({self.left.text()}) and ({self.right.text()})"

    def evaluate(self, scope: Scope) -> Any:
        """Return what Python's `and` returns."""
        return self.left.evaluate(scope) and self.right.evaluate(scope)


class Negated(NamedTuple):
    """`not …`."""

    inner: Expression

    def text(self) -> str:
        """Return it as Jinja writes it."""
        return f"not ({self.inner.text()})"

    def evaluate(self, scope: Scope) -> bool:
        """Return what Python's `not` returns."""
        return not self.inner.evaluate(scope)


Expression = Constant | Read | Fallback | FailedItems | Present | Compare | Plus | Both | Negated


class Sentence(NamedTuple):
    """A text with one expression in it: always a text."""

    before: str
    expression: Expression

    def text(self) -> str:
        """Return the template."""
        return f"{self.before} {{{{ {self.expression.text()} }}}}"

    def evaluate(self, scope: Scope) -> str:
        """Return the text."""
        return f"{self.before} {self.expression.evaluate(scope)}"


Value = Expression | Sentence


def template(value: Value) -> Any:
    """Return a value as a playbook writes it: plain, or a template."""
    if isinstance(value, Constant):
        return value.value
    return value.text() if isinstance(value, Sentence) else f"{{{{ {value.text()} }}}}"


def is_true(value: Any) -> bool:
    """Tell whether a condition with this value holds."""
    if isinstance(value, str):
        return value.strip().lower() not in FALSE_WORDS
    return bool(value)

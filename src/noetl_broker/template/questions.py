"""The tests of templates (`is odd`): Jinja's own, on values that are paid for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import pass_context

from noetl_broker.template import operators
from noetl_broker.template.fuel import NODE_COST, Evaluation
from noetl_broker.template.output import text
from noetl_broker.template.values import Missing, solid

Question = Callable[..., bool]
# Of Jinja's tests those on Python's objects are left out: `callable`, `escaped`, `filter`, `test`.
FROM_JINJA: Final = (
    *("none", "boolean", "false", "true", "integer", "float", "string", "mapping", "number", "sequence", "iterable"),
)
COMPARISONS: Final = {
    operators.eq: ("==", "eq", "equalto"),
    operators.ne: ("!=", "ne"),
    operators.gt: (">", "gt", "greaterthan"),
    operators.gteq: (">=", "ge"),
    operators.lt: ("<", "lt", "lessthan"),
    operators.lteq: ("<=", "le"),
    operators.contains: ("in",),
}


def defined(value: Any) -> bool:
    """Tell whether a value is defined."""
    return type(value) is not Missing


def _asked_of_kind(function: Any) -> Question:
    """Of what is in the value nothing is looked at."""

    @pass_context
    def ask(run: Evaluation, value: Any, /, *args: Any) -> bool:
        run.spend(NODE_COST * 2)
        return bool(function(solid(value), *args))

    return ask


def _compared(operator: Callable[..., bool]) -> Question:
    @pass_context
    def compare(run: Evaluation, value: Any, other: Any, /) -> bool:
        run.spend(NODE_COST * 2)
        return operator(run, value, other)

    return compare


def _cased(function: Callable[[str], bool]) -> Question:
    @pass_context
    def ask(run: Evaluation, value: Any, /) -> bool:
        return function(text(run, solid(value)))

    return ask


def _divided(run: Evaluation, value: Any, by: Any) -> Any:
    """Give the remainder; Jinja's own tests would take a text for a format."""
    return operators.mod(run, value, by)


@pass_context
def _odd(run: Evaluation, value: Any, /) -> bool:
    return bool(_divided(run, value, 2) == 1)


@pass_context
def _even(run: Evaluation, value: Any, /) -> bool:
    return bool(_divided(run, value, 2) == 0)


@pass_context
def _divisible(run: Evaluation, value: Any, /, num: Any) -> bool:
    return bool(_divided(run, value, num) == 0)


@pass_context
def _same(run: Evaluation, value: Any, /, other: Any) -> bool:
    """Tell whether two values are alike in type and value: identity would depend on the interpreter's caches."""
    return operators.eq(run, value, other) and type(value) is type(other)


TESTS: Final[dict[str, Question]] = {
    **{name: _asked_of_kind(JINJA_TESTS[name]) for name in FROM_JINJA},
    **{name: _compared(operator) for operator, names in COMPARISONS.items() for name in names},
    "odd": _odd,
    "even": _even,
    "divisibleby": _divisible,
    "lower": _cased(str.islower),
    "upper": _cased(str.isupper),
    "sameas": _same,
    "defined": defined,
    "undefined": lambda value: not defined(value),
}

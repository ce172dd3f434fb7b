"""The tests of templates (`is odd`). A new test is a function here and a row in `TESTS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import pass_context

from noetl_broker.template import operators
from noetl_broker.template.budget import NODE_COST, Evaluation
from noetl_broker.template.output import text
from noetl_broker.template.undefined import Missing
from noetl_broker.template.values import require_value

Test = Callable[..., bool]
# Not the tests on Python's objects: `callable`, `escaped`, `filter`, `test`.
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


def _kind_test(function: Any) -> Test:
    """Make a test of the type alone, at a fixed cost."""

    @pass_context
    def ask(run: Evaluation, value: Any, /, *args: Any) -> bool:
        run.spend(NODE_COST * 2)
        return bool(function(require_value(value), *args))

    return ask


def _comparison_test(operator: Callable[..., bool]) -> Test:
    @pass_context
    def compare(run: Evaluation, value: Any, other: Any, /) -> bool:
        run.spend(NODE_COST * 2)
        return operator(run, value, other)

    return compare


def _text_test(function: Callable[[str], bool]) -> Test:
    @pass_context
    def ask(run: Evaluation, value: Any, /) -> bool:
        return function(text(run, require_value(value)))

    return ask


def _remainder(run: Evaluation, value: Any, by: Any) -> Any:
    """Give the remainder; Jinja's own tests would format a text."""
    return operators.mod(run, value, by)


@pass_context
def _odd(run: Evaluation, value: Any, /) -> bool:
    return bool(_remainder(run, value, 2) == 1)


@pass_context
def _even(run: Evaluation, value: Any, /) -> bool:
    return bool(_remainder(run, value, 2) == 0)


@pass_context
def _divisible(run: Evaluation, value: Any, /, num: Any) -> bool:
    return bool(_remainder(run, value, num) == 0)


@pass_context
def _same(run: Evaluation, value: Any, /, other: Any) -> bool:
    """Tell whether type and value are equal: identity depends on the interpreter's caches."""
    return operators.eq(run, value, other) and type(value) is type(other)


TESTS: Final[dict[str, Test]] = {
    **{name: _kind_test(JINJA_TESTS[name]) for name in FROM_JINJA},
    **{name: _comparison_test(operator) for operator, names in COMPARISONS.items() for name in names},
    "odd": _odd,
    "even": _even,
    "divisibleby": _divisible,
    "lower": _text_test(str.islower),
    "upper": _text_test(str.isupper),
    "sameas": _same,
    "defined": defined,
    "undefined": lambda value: not defined(value),
}

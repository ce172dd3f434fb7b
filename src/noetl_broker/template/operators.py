"""The operators of templates; each charges and checks its limits before it works."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError

from noetl_broker.template.budget import KINDS, PLAIN, Evaluation, bounded
from noetl_broker.template.methods import room_to_search
from noetl_broker.template.numbers import INTEGER_LIMIT
from noetl_broker.template.output import text
from noetl_broker.template.undefined import template_type_name
from noetl_broker.template.values import require_value

NUMBERS: Final = frozenset({int, float, bool})
LENGTH_FIRST: Final = frozenset({str, list, dict})  # not tuples, which are compared element by element

Binary = Callable[[Evaluation, Any, Any], Any]


def _refuse(symbol: str, left: Any, right: Any) -> Any:
    raise TemplateRuntimeError(
        f"`{symbol}` does not work on a {template_type_name(left)} and a {template_type_name(right)}"
    )


def _arithmetic(symbol: str, compute: Callable[[Any, Any], Any], otherwise: Binary | None = None) -> Binary:
    def operate(run: Evaluation, left: Any, right: Any) -> Any:
        if type(left) in NUMBERS and type(right) in NUMBERS:
            result = compute(left, right)
            # Every comparison with NaN is false, so NaN goes to `bounded` too.
            return result if -INTEGER_LIMIT < result < INTEGER_LIMIT else bounded(result)
        require_value(left)
        require_value(right)
        return otherwise(run, left, right) if otherwise else _refuse(symbol, left, right)

    return operate


def _add_sequences(run: Evaluation, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        run.room_for_text(len(left) + len(right))
        return left + right
    if isinstance(left, list | tuple | range) and isinstance(right, list | tuple | range):
        run.room_for_list(len(left) + len(right))
        return [*left, *right]
    return _refuse("+", left, right)


def _repeat(run: Evaluation, left: Any, right: Any) -> Any:
    if type(left) in NUMBERS:
        left, right = right, left
    if type(right) is not int:
        return _refuse("*", left, right)
    if isinstance(left, str):
        run.room_for_text(len(left) * max(0, right))
        return left * right
    if isinstance(left, list | tuple | range):
        run.room_for_list(len(left) * max(0, right))
        return list(left) * right
    return _refuse("*", left, right)


def _no_formatting(_: Evaluation, left: Any, right: Any) -> Any:
    if isinstance(left, str):
        raise TemplateRuntimeError("`%` works on numbers only; write a text with the filter `format`")
    return _refuse("%", left, right)


add: Final = _arithmetic("+", operator.add, _add_sequences)
sub: Final = _arithmetic("-", operator.sub)
mul: Final = _arithmetic("*", operator.mul, _repeat)
div: Final = _arithmetic("/", operator.truediv)
floordiv: Final = _arithmetic("//", operator.floordiv)
mod: Final = _arithmetic("%", operator.mod, _no_formatting)


def _comparison(compute: Callable[[Any, Any], bool], symbol: str) -> Binary:
    def compare(run: Evaluation, left: Any, right: Any) -> bool:
        if type(left) in PLAIN and type(right) in PLAIN and (left is not None is not right or symbol in ("==", "!=")):
            return compute(left, right)
        left, right = _comparable(run, left), _comparable(run, right)
        if symbol not in ("==", "!=") or not _differ_in_shape(left, right):
            run.charge(left, right)
        try:
            return compute(left, right)
        except TypeError:
            return bool(_refuse(symbol, left, right))

    return compare


def _differ_in_shape(left: Any, right: Any) -> bool:
    """Tell whether two values differ in type or length, which Python compares first."""
    kind = type(left)
    if kind is type(right):
        return kind in LENGTH_FIRST and len(left) != len(right)
    return kind in KINDS and type(right) in KINDS


def _comparable(run: Evaluation, value: Any) -> Any:
    if type(require_value(value)) is range:
        run.room_for_list(len(value))
        return list(value)
    return value


def _contains(run: Evaluation, left: Any, right: Any) -> bool:
    require_value(left)
    if not isinstance(require_value(right), str | list | tuple | dict | range):
        return bool(_refuse("in", left, right))
    if isinstance(right, dict):
        run.spend(len(left) >> 5 if type(left) is str else 0)
        return (type(left) is str or type(left) in PLAIN) and left in right
    run.charge(left, right)
    if isinstance(right, range) and type(left) is not int:
        run.spend(len(right))
        return left in list(right)
    if isinstance(right, str):
        if not isinstance(left, str):
            return bool(_refuse("in", left, right))
        room_to_search(run, right, left)
    return left in right


eq: Final = _comparison(operator.eq, "==")
ne: Final = _comparison(operator.ne, "!=")
lt: Final = _comparison(operator.lt, "<")
lteq: Final = _comparison(operator.le, "<=")
gt: Final = _comparison(operator.gt, ">")
gteq: Final = _comparison(operator.ge, ">=")


def contains(run: Evaluation, left: Any, right: Any) -> bool:
    """Tell whether `left in right`."""
    return _contains(run, left, right)


def contains_not(run: Evaluation, left: Any, right: Any) -> bool:
    """Tell whether `left not in right`."""
    return not _contains(run, left, right)


def chain(run: Evaluation, first: Any, *rest: Any) -> bool:
    """Tell whether `first op second op third …` holds; rest alternates comparisons and operands."""
    left = first
    for index in range(0, len(rest), 2):
        if not rest[index](run, left, rest[index + 1]):
            return False
        left = rest[index + 1]
    return True


def concatenate(run: Evaluation, *parts: Any) -> str:
    """Join the texts of all parts (`~`)."""
    texts = [text(run, part) for part in parts]
    run.room_for_text(sum(map(len, texts)))
    return "".join(texts)

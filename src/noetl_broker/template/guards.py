"""What a filter of Jinja's may ask for: each that could cost much is weighed by its arguments before it starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError

from noetl_broker.template.fuel import Evaluation
from noetl_broker.template.values import text

SMALL_NUMBER: Final = 1_000
CONVERSION: Final = re.compile(r"%(?:%|(?:\(\w+\))?[-+ #0]{0,5}\d{0,2}(?:\.\d{0,2})?[diouxXeEfFgGcsr])")

Guard = Callable[..., None]


def small(*numbers: Any) -> None:
    """Refuse a number that is too large to be a width, an indent or a count."""
    for number in numbers:
        if isinstance(number, int | float) and not -SMALL_NUMBER <= number <= SMALL_NUMBER:
            message = f"{number!r:.40} is too large for this filter: numbers up to {SMALL_NUMBER} are allowed"
            raise TemplateRuntimeError(message)


def _small_arguments(_: Evaluation, __: Any, *args: Any, **kwargs: Any) -> None:
    small(*args, *kwargs.values())


def _small_precision(_: Evaluation, __: Any, *args: Any, **kwargs: Any) -> None:
    precision = args[0] if args else kwargs.get("precision", 0)
    small(precision * 50 if isinstance(precision, int) else precision)


def _slow_text(units: int) -> Guard:
    """Charge so many units a character."""

    def guard(run: Evaluation, value: Any, *_: Any, **__: Any) -> None:
        run.spend(len(str(value)) * units)

    return guard


def _trim_room(run: Evaluation, value: Any, chars: Any = "", *_: Any) -> None:
    run.spend((len(str(value)) * len(chars or "")) >> 8)


def _indent_room(run: Evaluation, value: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    plain = str(value)
    small(width)
    run.spend(plain.count("\n") * 4)
    run.room_for_text(len(plain) + (plain.count("\n") + 1) * (width if isinstance(width, int) else len(str(width))))


def _wrap_room(run: Evaluation, value: Any, width: Any = 79, *args: Any, **kwargs: Any) -> None:
    wrapped = args[1] if len(args) > 1 else kwargs.get("wrapstring") or "\n"
    plain = str(value)
    run.spend(len(plain) * 20)
    run.room_for_text(len(plain) * (1 + len(str(wrapped)) // max(1, width if isinstance(width, int) else 1)))


def _join_room(run: Evaluation, value: Any, d: Any = "", *_: Any, **__: Any) -> None:
    run.room_for_text(len(value) * len(str(d)) if isinstance(value, list | tuple | str) else 0)


def _format_room(run: Evaluation, value: Any, *args: Any, **kwargs: Any) -> None:
    rest = CONVERSION.sub("", str(value))
    if "%" in rest:
        message = "`format` takes plain conversions such as %s, %d, %05.2f; widths have at most two digits"
        raise TemplateRuntimeError(message)
    longest = sum(len(text(run, one)) for one in (*args, *kwargs.values()))
    run.room_for_text(len(str(value)) * 100 + longest * str(value).count("%"))


GUARDS: Final[dict[str, Guard]] = {
    "batch": _small_arguments,
    "slice": _small_arguments,
    "truncate": _small_arguments,
    "round": _small_precision,
    "urlize": _slow_text(10),
    "striptags": _slow_text(10),
    "title": _slow_text(2),
    "wordcount": _slow_text(2),
    "pprint": _slow_text(10),
    "float": _slow_text(1),
    "int": _slow_text(1),
    "urlencode": _slow_text(2),
    "xmlattr": _slow_text(1),
    "trim": _trim_room,
    "indent": _indent_room,
    "wordwrap": _wrap_room,
    "join": _join_room,
    "format": _format_room,
}

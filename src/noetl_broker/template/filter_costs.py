"""The costs of Jinja's filters that depend on their arguments, charged before the filter works.

Jinja's filters trust their templates: a width, an indent or a repeated attribute may ask for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError
from markupsafe import escape

from noetl_broker.template.budget import Evaluation
from noetl_broker.template.output import text
from noetl_broker.template.undefined import template_type_name

SMALL_NUMBER: Final = 1_000
MOST_PLACES: Final = 20  # of a number that is rounded
CONVERSION: Final = re.compile(r"%(?:%|(?:\(\w+\))?[-+ #0]{0,5}\d{0,2}(?:\.\d{0,2})?[diouxXeEfFgGcsr])")

Cost = Callable[..., None]


def small(*numbers: Any, most: int = SMALL_NUMBER) -> None:
    """Refuse a number that is too large to be a width, an indent or a count."""
    for number in numbers:
        if isinstance(number, int | float) and not -most <= number <= most:
            raise TemplateRuntimeError(f"{number!r:.40} is too large for this filter: numbers up to {most} are allowed")


def _small_arguments(_: Evaluation, __: Any, *args: Any, **kwargs: Any) -> None:
    small(*args, *kwargs.values())


def _numeric(_: Evaluation, value: Any, *args: Any, **kwargs: Any) -> None:
    """`round` multiplies by a power of ten; a list or a text must not be multiplied."""
    if not isinstance(value, int | float):
        raise TemplateRuntimeError(f"`round` takes a number, not a {template_type_name(value)}")
    small(args[0] if args else kwargs.get("precision", 0), most=MOST_PLACES)


def _grouped(run: Evaluation, value: Any, *args: Any, **kwargs: Any) -> None:
    """The default replaces missing attributes and is compared for each element."""
    before = run.fuel
    run.charge(args[1] if len(args) > 1 else kwargs.get("default"))
    run.spend((before - run.fuel) * len(value) if isinstance(value, list | tuple | dict | str | range) else 0)


def _each_character(eighths: int) -> Cost:
    """Charge eighths of a step for each character of the value's text."""

    def guard(run: Evaluation, value: Any, *_: Any, **__: Any) -> None:
        run.spend(len(text(run, value)) * eighths >> 3)

    return guard


def _printed(run: Evaluation, value: Any) -> None:
    """`pprint` writes a nested value again at each level."""
    depth, level = 0, [value]
    while level:
        depth += 1
        run.spend(len(level))
        level = [
            child
            for one in level
            if isinstance(one, dict | list | tuple)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    run.spend(len(text(run, value)) * (6 + 3 * depth))


def _trimmed(run: Evaluation, value: Any, chars: Any = None, *_: Any) -> None:
    run.spend((len(value) * (8 + len(chars or ""))) >> 8)


def _indented(run: Evaluation, value: str, width: Any = 4, *_: Any, **__: Any) -> None:
    small(width)
    run.spend(len(value) >> 2)
    lines = len(value.splitlines()) + 1
    run.spend(lines * 4)
    run.room_for_text(len(value) + lines * (len(width) if isinstance(width, str) else width))


def _wrapped(run: Evaluation, value: str, width: Any = 79, *args: Any, **kwargs: Any) -> None:
    """A broken word is copied for each of its lines, and each line may end in any text.

    Python's `textwrap` never ends if the width is not a number.
    """
    if not isinstance(width, int) or width < 1:
        raise TemplateRuntimeError("the width of `wordwrap` must be a whole number of at least 1")
    between = args[1] if len(args) > 1 else kwargs.get("wrapstring") or "\n"
    run.spend(len(value) * 20)
    run.spend(sum(len(word) ** 2 for word in value.split()) // width >> 11)
    lines = 1 + len(value) // width * 2 + value.count(" ") + len(value.splitlines())
    run.room_for_text(len(value) + min(lines, len(value) + 1) * len(between))


def _linked(run: Evaluation, value: str, *args: Any, **kwargs: Any) -> None:
    """Each word is searched in quadratic time, and each link repeats the attributes."""
    run.spend(len(value) * 10)
    words = str(escape(value)).split()
    schemes = args[4] if len(args) > 4 else kwargs.get("extra_schemes") or ()  # noqa: PLR2004 - the place in Jinja's signature
    run.spend(sum(len(word) ** 2 for word in words) >> 3)
    run.spend(len(words) * len(schemes) * 2)
    repeated = sum(len(one) for one in (*args, *kwargs.values()) if isinstance(one, str))
    run.room_for_text(2 * len(value) + len(words) * (30 + 5 * repeated) * (1 + len(schemes)))


def _formatted(run: Evaluation, value: str, *args: Any, **kwargs: Any) -> None:
    run.room_for_text(len(value) * 100)
    if "%" in CONVERSION.sub("", value):
        raise TemplateRuntimeError(
            "`format` takes plain conversions such as %s, %d, %05.2f; widths have at most two digits"
        )
    longest = sum(len(text(run, one)) for one in (*args, *kwargs.values()))
    run.room_for_text(longest * value.count("%"))


COSTS: Final[dict[str, Cost]] = {
    "batch": _small_arguments,
    "slice": _small_arguments,
    "truncate": _small_arguments,
    "round": _numeric,
    "groupby": _grouped,
    **dict.fromkeys(("capitalize", "e", "escape", "forceescape", "lower", "upper"), _each_character(1)),
    **dict.fromkeys(("float", "int"), _each_character(8)),
    **dict.fromkeys(("title", "wordcount", "urlencode", "xmlattr"), _each_character(16)),
    "striptags": _each_character(80),
    "pprint": _printed,
    "urlize": _linked,
    "trim": _trimmed,
    "indent": _indented,
    "wordwrap": _wrapped,
    "format": _formatted,
}

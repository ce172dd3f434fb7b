"""Checks values against JSON Schema, with bounded work: the keywords of draft 2020-12 without regular expressions.

`check_schema` refuses every keyword that is not supported, so none is silently ignored. `faults_of` works for schemas
that it accepted. Two numbers of one value are equal, as `1` and `1.0`; decimals are exact, so 0.3 is a multiple of 0.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from math import isfinite
from operator import ge, gt, le, lt
from typing import Any, NamedTuple

from noetl_broker.playbook.diagnostics import Location, did_you_mean, json_type_name, path_text

Schema = Any  # a mapping of keywords, or a boolean; checked by check_schema
MOST_STEPS = 200_000  # of one check: about a tenth of a second
MOST_FAULTS = 20  # that one check lists
SHOWN_CHARS = 60  # of a wrong value in a message
PATH_CHARS = 200  # of a location in a fault
SHOWN_VALUES = 10  # of the allowed values in a message
CHARS_OF_STEP = 64  # of a text that is compared, or bits of a number
COST_OF_DIVISION = 20  # steps

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
MEANT_TYPES = {
    **dict.fromkeys(("int", "long"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    **dict.fromkeys(("str", "text"), "string"),
    **dict.fromkeys(("dict", "map", "mapping"), "object"),
    "bool": "boolean",
    "list": "array",
    "none": "null",
}
ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "format", "deprecated", "readOnly", "writeOnly"}
    | {"$schema", "$id", "$comment", "contentEncoding", "contentMediaType"}
)
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
LISTS_OF_SCHEMAS = ("prefixItems", "allOf", "anyOf", "oneOf")
SCHEMAS = ("items", "additionalProperties", "not")
KEYWORDS = frozenset(
    {"type", "enum", "const", "multipleOf", "uniqueItems", "properties", "required"}
    | {*COUNTS, *BOUNDS, *LISTS_OF_SCHEMAS, *SCHEMAS}
)
NO_EXPRESSIONS = "list the values under `enum`, or bound the text by `minLength` and `maxLength`"
IN_PLACE = "write the schema in its place"
REFUSED = {
    "pattern": NO_EXPRESSIONS,
    "patternProperties": "list the names under `properties`, or give all others one schema by `additionalProperties`",
    **dict.fromkeys(("$ref", "$defs", "definitions", "$anchor", "$dynamicRef", "$dynamicAnchor"), IN_PLACE),
    **dict.fromkeys(("if", "then", "else", "dependentSchemas", "dependentRequired"), "list the cases under `anyOf`"),
    "additionalItems": "write `items`: it is the schema of what comes after `prefixItems`",
}


class SchemaFinding(NamedTuple):
    """An error in a schema; `location` is below the schema's own."""

    location: Location
    message: str
    hint: str
    of_key: bool = False  # the fault is the key, not its value


class ValueFault(NamedTuple):
    """How a value breaks its schema; `path` is a text as `order.items[0].price`, empty for the value itself."""

    path: str
    message: str  # goes on from the path: "is missing"


def check_schema(schema: Schema) -> list[SchemaFinding]:
    """Every fault of a schema, which is JSON; an empty list means that `faults_of` can use it."""
    return [*_check_schema(schema, ())]


def faults_of(schema: Schema, value: Any, *, most_steps: int = MOST_STEPS) -> list[ValueFault]:
    """The faults of a JSON value by a schema that `check_schema` accepts: at most MOST_FAULTS, and one that says so.

    A check that needs too many steps is a fault too. It never raises.
    """
    check = _Check(most_steps)
    try:
        found = [*islice(check.faults(schema, value, ()), MOST_FAULTS + 1)]
    except _TooManySteps:
        message = f"cannot be checked in {most_steps:,} steps: make the schema simpler, or the value smaller"
        return [ValueFault("", message)]
    listed = [ValueFault(_path(location), message) for location, message in found[:MOST_FAULTS]]
    if len(found) > MOST_FAULTS:
        listed.append(ValueFault("", f"has more faults than the {MOST_FAULTS} that are listed"))
    return listed


def _path(location: Location) -> str:
    text = path_text(location)
    return text if len(text) <= PATH_CHARS else f"{text[:PATH_CHARS]}…"


def _check_schema(schema: Schema, location: Location) -> Iterator[SchemaFinding]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield SchemaFinding(
            location, f"{json_type_name(schema)} is no schema", "write a mapping such as {type: string}"
        )
        return
    for keyword, value in schema.items():
        where = (*location, keyword)
        if keyword in KEYWORDS:
            yield from _check_keyword(keyword, value, where)
        elif keyword not in ANNOTATIONS:
            yield _unknown_keyword(keyword, value, where)


def _unknown_keyword(keyword: str, value: Any, location: Location) -> SchemaFinding:
    if keyword in REFUSED:
        return SchemaFinding(location, f"the keyword `{keyword}` is not supported", REFUSED[keyword], of_key=True)
    near = did_you_mean(keyword, KEYWORDS)
    hint = near if near or not isinstance(value, dict | bool) else f"write a field as properties: {{{keyword}: …}}"
    return SchemaFinding(location, f"unknown keyword `{keyword}` in a schema", hint, of_key=True)


def _check_type(value: Any, location: Location) -> Iterator[SchemaFinding]:
    hint = f"write one of {', '.join(TYPES)}"
    for index, name in enumerate(value) if isinstance(value, list) else [(None, value)]:
        if name in TYPES:
            continue
        what = f"`{name:.40}`" if isinstance(name, str) else json_type_name(name)
        meant = MEANT_TYPES.get(name.lower()) if isinstance(name, str) else '"null", in quotes' if name is None else ""
        where = location if index is None else (*location, index)
        yield SchemaFinding(where, f"{what} is no type of JSON", f"write {meant}" if meant else hint)


def _check_keyword(keyword: str, value: Any, location: Location) -> Iterator[SchemaFinding]:
    test, hint = _FORMS.get(keyword, (None, ""))
    if test is not None and not test(value):
        what = "an empty list" if value == [] else value if _is_number(value) else json_type_name(value)
        yield SchemaFinding(location, f"`{keyword}` is {what}", f"write {hint}")
    elif keyword == "type":
        yield from _check_type(value, location)
    elif keyword == "required":
        for index, name in enumerate(value):
            if not isinstance(name, str):
                what = f"`{keyword}` lists {json_type_name(name)}"
                yield SchemaFinding((*location, index), what, f"write {hint}")
    elif keyword in SCHEMAS:
        yield from _check_schema(value, location)
    elif keyword in LISTS_OF_SCHEMAS or keyword == "properties":
        for key, schema in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _check_schema(schema, (*location, key))


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


_BOUNDS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lt, "the least is"),
    "maximum": (gt, "the most is"),
    "exclusiveMinimum": (le, "it must be more than"),
    "exclusiveMaximum": (ge, "it must be less than"),
}


class _TooManySteps(Exception):
    """A check has used up its steps."""


Fault = tuple[Location, str]


class _Check:
    """One check of one value, with the steps that it may still take."""

    __slots__ = ("_left",)

    def __init__(self, most_steps: int) -> None:
        self._left = most_steps

    def faults(self, schema: Schema, value: Any, location: Location) -> Iterator[Fault]:
        """Give the faults of a value, then the faults of its parts."""
        if isinstance(schema, bool):
            self._spend(1)
            if not schema:
                yield location, "is not allowed"
            return
        self._spend(1 + len(schema))
        if "type" in schema and not _has_type(value, schema["type"]):
            yield location, f"is {_shown(value)}, it must be {_listed(schema['type'])}"
        yield from self._of_values(schema, value, location)
        if _is_number(value):
            yield from self._of_number(schema, value, location)
        elif isinstance(value, str):
            yield from _of_count(schema, len(value), location, "Length", "characters")
        elif isinstance(value, list):
            yield from self._of_list(schema, value, location)
        elif isinstance(value, dict):
            yield from self._of_mapping(schema, value, location)
        yield from self._of_alternatives(schema, value, location)

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _TooManySteps

    def _fits(self, schema: Schema, value: Any) -> bool:
        return next(self.faults(schema, value, ()), None) is None

    def _of_values(self, schema: Mapping[str, Any], value: Any, location: Location) -> Iterator[Fault]:
        if "const" in schema and self._text(value) != self._text(schema["const"]):
            yield location, f"is {_shown(value)}, it must be {_shown(schema['const'])}"
        if "enum" in schema:
            text = self._text(value)
            if not any(self._text(allowed) == text for allowed in schema["enum"]):
                allowed = ", ".join(_shown(item) for item in schema["enum"][:SHOWN_VALUES])
                more = ", …" if len(schema["enum"]) > SHOWN_VALUES else ""
                yield location, f"is {_shown(value)}, it must be one of {allowed}{more}"

    def _of_number(self, schema: Mapping[str, Any], value: float, location: Location) -> Iterator[Fault]:
        shown = _shown(value)
        for keyword, (breaks, text) in _BOUNDS.items():
            if keyword in schema and breaks(value, schema[keyword]):
                yield location, f"is {shown}, {text} {_shown(schema[keyword])}"
        if "multipleOf" in schema:
            self._spend(COST_OF_DIVISION + (int(value).bit_length() // CHARS_OF_STEP))
            if _exact(value) % _exact(schema["multipleOf"]):
                yield location, f"is {shown}, it must be a multiple of {_shown(schema['multipleOf'])}"

    def _of_list(self, schema: Mapping[str, Any], value: list[Any], location: Location) -> Iterator[Fault]:
        yield from _of_count(schema, len(value), location, "Items", "items")
        if schema.get("uniqueItems") is True:
            first: dict[str, int] = {}
            for index, item in enumerate(value):
                before = first.setdefault(self._text(item), index)
                if before != index:
                    yield (*location, index), f"is the same as item {before}, each may be there once"
                    break
        prefix = schema.get("prefixItems", ())
        for index, (inner, item) in enumerate(zip(prefix, value, strict=False)):
            yield from self.faults(inner, item, (*location, index))
        if schema.get("items", True) is not True:
            for index in range(len(prefix), len(value)):
                yield from self.faults(schema["items"], value[index], (*location, index))

    def _of_mapping(self, schema: Mapping[str, Any], value: dict[str, Any], location: Location) -> Iterator[Fault]:
        yield from _of_count(schema, len(value), location, "Properties", "keys")
        required = schema.get("required", ())
        self._spend(len(required))
        for name in dict.fromkeys(required):
            if name not in value:
                yield (*location, name), "is missing"
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        self._spend(len(known))
        for name, schema_of_name in known.items():
            if name in value:
                yield from self.faults(schema_of_name, value[name], (*location, name))
        for name in value if others is not True else ():
            if name not in known:
                yield from self.faults(others, value[name], (*location, name))

    def _of_alternatives(self, schema: Mapping[str, Any], value: Any, location: Location) -> Iterator[Fault]:
        for inner in schema.get("allOf", ()):
            yield from self.faults(inner, value, location)
        if "anyOf" in schema and not any(self._fits(inner, value) for inner in schema["anyOf"]):
            yield location, f"is {_shown(value)}, it fits none of the {len(schema['anyOf'])} schemas of `anyOf`"
        if "oneOf" in schema:
            fitting = [index for index, inner in enumerate(schema["oneOf"]) if self._fits(inner, value)]
            if len(fitting) != 1:
                count = len(schema["oneOf"])
                found = f"{len(fitting)} of the {count}" if fitting else f"none of the {count}"
                yield location, f"is {_shown(value)}, it fits {found} schemas of `oneOf`, it must fit one"
        if "not" in schema and self._fits(schema["not"], value):
            yield location, f"is {_shown(value)}, it fits the schema under `not`"

    def _text(self, value: Any) -> str:
        """Give a text that two values share if they are equal; a text, because hashes of numbers can collide."""
        text = self._text_of(value)
        self._spend(1 + len(text) // CHARS_OF_STEP)
        return text

    def _text_of(self, value: Any) -> str:
        if isinstance(value, str):
            return f'"{len(value)}:{value}'
        if isinstance(value, dict):
            return "{" + ",".join([self._text(key) + self._text(value[key]) for key in sorted(value)]) + "}"
        if isinstance(value, list):
            return "[" + ",".join([self._text(item) for item in value]) + "]"
        return hex(int(value)) if _is_whole(value) else repr(value)


def _of_count(schema: Mapping[str, Any], count: int, location: Location, word: str, what: str) -> Iterator[Fault]:
    least, most = schema.get(f"min{word}", 0), schema.get(f"max{word}", count)
    if count < least:
        yield location, f"has {count} {what}, the least is {int(least)}"
    if count > most:
        yield location, f"has {count} {what}, the most is {int(most)}"


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return value.is_integer() if isinstance(value, float) else _is_number(value)


def _has_type(value: Any, types: str | list[str]) -> bool:
    return any(_TYPE_TESTS[name](value) for name in ([types] if isinstance(types, str) else types))


_TYPE_TESTS: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_whole,
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


# What the value of a keyword must be, and what to write.
_FORMS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "type": (lambda value: value != [], f"one of {', '.join(TYPES)}"),
    "enum": (_is_list, "a list of values: [small, large]"),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "a number greater than 0, without quotes"),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    "required": (lambda value: isinstance(value, list), "a list of names beside `properties`: [order_id, total]"),
    "properties": (lambda value: isinstance(value, dict), "a schema for each name: {total: {type: number}}"),
    **dict.fromkeys(COUNTS, (lambda value: _is_whole(value) and value >= 0, "a whole number of at least 0")),
    **dict.fromkeys(BOUNDS, (_is_number, "a number, without quotes")),
    **dict.fromkeys(LISTS_OF_SCHEMAS, (_is_list, "a list of schemas: [{type: string}, …]")),
}


def _exact(number: Any) -> Fraction:
    return _exact_float(number) if isinstance(number, float) else Fraction(number)


_exact_float = lru_cache(maxsize=256)(lambda number: Fraction(repr(number)))


def _listed(types: str | list[str]) -> str:
    return types if isinstance(types, str) else " or ".join(types)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]!r}…"
    if isinstance(value, dict | list):
        return f"{json_type_name(value)} of {len(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 4 * SHOWN_CHARS:
        return "a number of many digits"
    return "null" if value is None else repr(value)

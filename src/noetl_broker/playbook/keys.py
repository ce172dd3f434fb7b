"""How a key of a playbook is declared: its name, what it may hold, and one sentence about it.

Readers, hints for misspelt keys, the JSON Schema and the page of all keys come from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any, Final, Literal, NamedTuple

from noetl_broker.playbook.diagnostics import UNKNOWN_KEY, Location, json_type_name
from noetl_broker.playbook.model import Raw
from noetl_broker.playbook.reader import NO_NAMES, Reading, TemplateSite, strings
from noetl_broker.template.durations import DURATION_FORMS, TIMEOUT_FORMS, parse_duration, parse_timeout

Schema = dict[str, Any]
NAME_CHARS = 255  # names are in indexes, whose rows Postgres bounds
KEY_BYTES = 1024  # of a signal, a throttle or a slot: as names
LARGEST_VERSION = 2**31 - 1  # an int4
QUOTED_VERSION = re.compile(r"[1-9][0-9]{0,9}")
NO_HINTS: Mapping[str, str] = {}
UNQUOTED = (["integer"], ["number"], ["boolean"])


class Form(NamedTuple):
    """What a key may hold.

    `parse` gives the value, and raises ValueError for a wrong one. `wanted` says in an error what is right; if it is
    empty, the text of the ValueError does, with a hint behind `; `. `schemas` are alternatives of JSON Schema.
    `templates`: the value, as a text, or parts of it may be templates.
    """

    wanted: str
    parse: Callable[[Any], Any]
    schemas: tuple[Schema, ...] = ()
    hint: str = ""  # in place of `write` and what is wanted
    templates: Literal["none", "text", "parts", "condition"] = "none"
    compiled: bool = False  # a value without a template becomes a tree, too

    def read(self, reading: Reading, value: Any, location: Location, site: TemplateSite, code: str = "") -> Any:
        """Give the value, as a tree if it is a template; report an error for a wrong one."""
        if self.templates == "condition":
            return reading.condition(value, location, site, code or "bad-when")
        parsed, has_template = None, self.has_template(value, location)
        if not has_template:
            try:
                parsed = self.parse(value)
            except ValueError as error:
                message, hint = self.fault(value, location), self.remedy(value)
                if not self.wanted:
                    message, _, hint = str(error).partition("; ")
                reading.report.error(code or "bad-value", location, message, hint)
        return reading.tree(value, location, site) if has_template or self.compiled else parsed

    def fits(self, value: Any) -> bool:
        """Whether a value without a template is right."""
        try:
            self.parse(value)
        except ValueError:
            return False
        return True

    def has_template(self, value: Any, location: Location) -> bool:
        """Whether the value is a template, and may be one."""
        may = self.templates == "parts" or (self.templates == "text" and isinstance(value, str))
        return may and any(strings(value, location))

    def fault(self, value: Any, location: Location) -> str:
        """Say what is wrong with a value."""
        return f"`{location[-1]}` is {shown_value(value):.80}, not {self.wanted}"

    def remedy(self, value: Any) -> str:
        """Say what to write instead."""
        if isinstance(value, str) and [one.get("type") for one in self.schemas] in UNQUOTED:
            return "write it without quotes or template"
        return (self.hint or f"write {self.wanted}") + (", or leave it out" if value is None else "")


class Layer(NamedTuple):
    """A mapping of the document."""

    raw: Raw
    location: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What has keys: mappings of the document, the weakest first, such as a workbook action and the step over it."""

    layers: tuple[Layer, ...]

    def lookup(self, key: str) -> tuple[Any, Location]:
        """Give the value of a key in the strongest layer, with its location; None if no layer has it."""
        for layer in reversed(self.layers):
            if layer.raw.get(key) is not None:
                return layer.raw[key], (*layer.location, key)
        return None, (*self.layers[-1].location, key)

    def has(self, key: str) -> bool:
        """Whether a layer has the key, perhaps with null."""
        return any(key in layer.raw for layer in self.layers)


def of_mapping(raw: Raw, location: Location) -> Layers:
    """Give the keys of one mapping."""
    return Layers(layers=(Layer(raw, location),))


class Key(NamedTuple):
    """One key of a mapping, with a sentence about it.

    `field` is its name in the compiled playbook, if that is another. `names` are further names that its templates find.
    """

    name: str
    form: Form
    about: str = ""
    field: str = ""
    required: str = ""  # what to write if it is missing
    null: bool = True  # a null says that it is absent; otherwise it is a value
    names: frozenset[str] = NO_NAMES
    default: Any = None

    def read(self, reading: Reading, source: Layers, site: TemplateSite, code: str = "") -> Any:
        """Give the value of the key in a source; None if it is absent or wrong."""
        value, location = source.lookup(self.name)
        if value is None and (self.null or not source.has(self.name)):
            return None
        if self.names:
            site = replace(site, names=site.names | self.names)
        return self.form.read(reading, value, location, site, code)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of one mapping, and its name in the JSON Schema.

    `word` is the key that holds the mapping, `example` its text in a hint. `compiled` has the defaults of the keys.
    """

    model: str
    about: str
    keys: tuple[Key, ...]
    word: str = ""
    example: str = ""
    code: str = ""  # of all errors in it
    wrong: str = "bad-value"  # without a `code`: of a value that is no such mapping
    compiled: type | None = None
    is_open: bool = False  # the schema lets other keys through: registration refuses them
    others: tuple[str, ...] = ()  # keys that are allowed and not read

    @cached_property
    def known(self) -> dict[str, None]:
        """The known keys, in their order."""
        return dict.fromkeys((*(key.name for key in self.keys), *self.others))

    def refuse_unknown(
        self,
        reading: Reading,
        raw: Mapping[str, Any],
        location: Location,
        hints: Mapping[str, str] = NO_HINTS,
        word: str = "",
    ) -> None:
        """Report the unknown keys of a mapping under `word`; `hints` are those of some of them."""
        place = f"`{word or self.word}`" if word or self.word else "a playbook"
        for key in raw if not raw.keys() <= self.known.keys() else ():
            if key in self.known:
                continue
            message = f"unknown key `{key}` in {place}"
            if self.is_open:
                reading.report.unknown_key((*location, key), message, frozenset(self.known), hints.get(key, ""))
            else:
                hint = hints.get(key) or reading.report.did_you_mean(key, self.known)
                reading.report.error(self.code or UNKNOWN_KEY, (*location, key), message, hint, key=True)

    def read_mapping(
        self, reading: Reading, raw: Any, location: Location, site: TemplateSite, hints: Mapping[str, str] = NO_HINTS
    ) -> dict[str, Any] | None:
        """Read a mapping that has these keys alone: the values by their fields, without those that are absent or wrong.

        Report an error and give None for anything else. `hints` are those of some unknown keys.
        """
        report = reading.report
        if not isinstance(raw, dict):
            message = f"`{self.word}` is {json_type_name(raw)}, not a mapping"
            report.error(self.code or self.wrong, location, message, f"write {self.word}: {self.example}")
            return None
        self.refuse_unknown(reading, raw, location, hints)
        for one in self.keys:
            if one.required and raw.get(one.name) is None:
                message = f"`{self.word}` has no `{one.name}`"
                report.error(self.code or self.wrong, location, message, f"write {one.name}: {one.required}")
        return read_keys(reading, self.keys, of_mapping(raw, location), site, self.code)


def read_keys(
    reading: Reading, keys: tuple[Key, ...], source: Layers, site: TemplateSite, code: str = ""
) -> dict[str, Any]:
    """Read some keys of a source: the values by their fields, without those that are absent or wrong."""
    found = {key.field or key.name: key.read(reading, source, site, code) for key in keys}
    return {field: value for field, value in found.items() if value is not None}


def bounds(least: float, most: float) -> str:
    """Give a range of numbers as an author reads it."""
    return f"of at least {least:g}" if most == inf else f"from {plain(least)} to {plain(most)}"


def plain(bound: float) -> str:
    """Give a bound without an exponent."""
    return f"{bound:g}" if bound != int(bound) else str(int(bound))


def number(least: float, most: float = inf, *, whole: bool = False) -> Form:
    """Give the form of a number within bounds; `whole`: of an integer."""
    kinds = int if whole else int | float

    def parse(value: Any) -> Any:
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(value)
        return value if whole else float(value)

    what, name = ("an integer", "integer") if whole else ("a number", "number")
    bound = {} if most == inf else {"maximum": most}
    return Form(f"{what} {bounds(least, most)}", parse, ({"type": name, "minimum": least, **bound},))


def integer(least: int, most: float = inf) -> Form:
    """Give the form of an integer within bounds."""
    return number(least, most, whole=True)


def whole(least: int, most: float = inf) -> Form:
    """Give the form of an integer within bounds, or of a template that gives one."""
    form = integer(least, most)
    hint = "write it without quotes, or a template that gives one"
    wanted = f"a whole number {bounds(least, most)}"
    return form._replace(wanted=wanted, schemas=(*form.schemas, TEXT), hint=hint, templates="text", compiled=True)


def seconds(least: float, most: float) -> Form:
    """Give the form of a duration within bounds of seconds."""

    def parse(value: Any) -> float:
        found = parse_duration(value)
        if not least <= found <= most:
            raise ValueError(value)
        return found

    wanted = f"a duration {bounds(least, most)} seconds"
    return Form(wanted, parse, ({"type": "number", "minimum": 0}, TEXT), f"write {DURATION_FORMS}")


def that(test: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """Give what takes a value as it is, if it passes a test."""

    def parse(value: Any) -> Any:
        if not test(value):
            raise ValueError(value)
        return value

    return parse


def word(*words: str) -> Form:
    """Give the form of one of a few words; the first is the default."""
    schema = {"enum": [*words], "type": "string"}
    known = that(lambda value: isinstance(value, str) and value in words)
    return Form(f"one of {', '.join(words)}", known, (schema,), f"the default is {words[0]}")


def parsed(kind: str, forms: str, parse: Callable[[Any], Any], *schemas: Schema) -> Form:
    """Give the form of what `parse` accepts, or of a template; it becomes a tree."""
    return Form(kind, parse, schemas, f"write {forms}", templates="text", compiled=True)


def holds(*schemas: Schema) -> Form:
    """Give the form of a value that is kept as written, or has a reader of its own."""
    return Form("", lambda value: value, schemas)


def entries_of(value: Any, location: Location) -> list[tuple[Any, Location]]:
    """Give the entries of a list, or the one in its place, with their locations."""
    if isinstance(value, list):
        return [(entry, (*location, index)) for index, entry in enumerate(value)]
    return [(value, location)]


def ref(model: str) -> Schema:
    """Give the schema of the mapping with this name."""
    return {"$ref": f"#/$defs/{model}"}


def one_or_list(*schemas: Schema) -> tuple[Schema, ...]:
    """Give the schemas of one value or a list of them."""
    return (*schemas, {"items": schemas[0] if len(schemas) == 1 else {"anyOf": [*schemas]}, "type": "array"})


def as_version(value: Any) -> Any:
    """Give a version such as "1" as a number; anything else unchanged."""
    return int(value) if isinstance(value, str) and QUOTED_VERSION.fullmatch(value) else value


def shown_value(value: Any) -> str:
    """Give a value as an error shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str | int | float) else json_type_name(value)


NUMBER: Final[Schema] = {"type": "number"}
TEXT: Final[Schema] = {"type": "string"}
BOOL: Final[Schema] = {"type": "boolean"}
MAPPING: Final[Schema] = {"additionalProperties": True, "type": "object"}
LIST: Final[Schema] = {"items": {}, "type": "array"}
EXPRESSION: Final[Schema] = {"description": "One expression, with or without {{ }} around it.", "type": "string"}
NAME = Form(
    f"a text of 1 to {NAME_CHARS} characters without a template",
    that(lambda value: isinstance(value, str) and 0 < len(value) <= NAME_CHARS and "{{" not in value),
    ({"maxLength": NAME_CHARS, "minLength": 1, "type": "string"},),
)
POOL_FORMS = "letters, digits, _, . and -, at most 63 characters"
_POOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")


def pool_name(value: Any) -> str:
    """Give the name of a pool of workers; raises ValueError for anything else."""
    if not isinstance(value, str) or not _POOL.fullmatch(value):
        raise ValueError(value)
    return value


POOL = Form(f"the name of a pool: {POOL_FORMS}", pool_name, (TEXT,), "write pool: gpu, or a template", templates="text")
TREE = holds()._replace(templates="parts", compiled=True)  # anything, with templates in it
BOOLEAN = Form("true or false", that(lambda value: isinstance(value, bool)), (BOOL,))
A_TEXT = Form("a text", that(lambda value: isinstance(value, str)), (TEXT,))
A_MAPPING = Form("a mapping", that(lambda value: isinstance(value, dict)), (MAPPING,))
CONDITION = holds(EXPRESSION)._replace(templates="condition")
WHEN = holds(EXPRESSION, BOOL)._replace(templates="condition")
DURATION = parsed("a duration", DURATION_FORMS, parse_duration, NUMBER, TEXT)
TIME_LIMIT = Form(TIMEOUT_FORMS, parse_timeout, (NUMBER, TEXT), templates="text")
PRIORITY = integer(-32_768, 32_767)  # a smallint of the queue

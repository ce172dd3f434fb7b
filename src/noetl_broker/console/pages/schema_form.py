"""Forms made from JSON Schema: a field for each value, and the values that a person typed.

A value that a person did not change is not sent: the playbook's default applies. A value that is no scalar is JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from noetl_broker.console.pages.screen import SentForm
from noetl_broker.playbook.diagnostics import path_text
from noetl_broker.service.typed_json import read_short_json
from noetl_broker.text import short_json

Kind = Literal["text", "lines", "integer", "number", "choice", "json"]
SCALARS: Final[Mapping[str, Kind]] = {"string": "text", "integer": "integer", "number": "number"}
MOST_OPTIONS: Final = 200  # of a choice; beyond them, the value is typed as JSON
LONG_TEXT: Final = 500  # characters that a text may have, from which on its field has lines
SHORT: Final = 60  # characters of JSON on one line
WHOLE: Final = "whole"  # the field for the whole payload
MORE: Final = "more"  # the field for values that the schema does not name
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,1000}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
ABSENT: Final[Any] = object()  # the default of a value that has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A field: `name` is the value's name, `field` the name in the form; `text` is its content."""

    name: str
    field: str
    kind: Kind
    label: str
    text: str = ""
    shown: str = ""  # what it held at first
    hint: str = ""
    placeholder: str = ""
    is_required: bool = False
    options: Sequence[tuple[str, str]] = ()
    error: str | None = None


def inputs_of_workload(schema: Any, workload: Mapping[str, Any]) -> list[Input]:
    """The fields of a start: one for each property and each default; without a schema one for the whole workload."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not properties:
        shown = json_for_editing(workload)
        hint = "The workload of the playbook, to be changed. What you leave out keeps its default."
        return [Input(name="", field=WHOLE, kind="json", label="Payload", text=shown, shown=shown, hint=hint)]
    required = set(schema.get("required", ()))
    names = [*properties, *(name for name in workload if name not in properties)]
    inputs = [
        _input(name, f"v{index}", properties.get(name, {}), workload.get(name, ABSENT), required=name in required)
        for index, name in enumerate(names)
    ]
    if schema.get("additionalProperties", True) is not False:
        hint = "A JSON object with values that have no field above."
        inputs.append(Input(name="", field=MORE, kind="json", label="Other values", hint=hint, placeholder="{}"))
    return inputs


def inputs_of_form(form: Mapping[str, Any], *, prefix: str) -> list[Input]:
    """The fields of an approval; `required` in a field's schema is a flag there."""
    schemas = {name: schema if isinstance(schema, dict) else {} for name, schema in form.items()}
    return [
        _input(name, f"{prefix}{index}", schema, ABSENT, required=schema.get("required") is True, merged=False)
        for index, (name, schema) in enumerate(schemas.items())
    ]


def _input(name: str, field: str, schema: Any, default: Any, *, required: bool, merged: bool = True) -> Input:
    schema = schema if isinstance(schema, dict) else {}
    if default is ABSENT and "default" in schema:
        default = schema["default"]
    options = _options(schema, default, required=required)
    kind: Kind = "choice" if options else _kind(schema, default)
    is_template = has_template(default)
    shown = "" if default is ABSENT or is_template else _as_text(kind, default)
    most = schema.get("maxLength")
    if kind == "text" and ("\n" in shown or (isinstance(most, int | float) and most > LONG_TEXT)):
        kind = "lines"
    title = schema.get("title")
    return Input(
        name=name,
        field=field,
        kind=kind,
        label=title if isinstance(title, str) and title else name,
        text=shown,
        shown=shown,
        hint=_hint(schema, kind, has_default=merged and kind == "json" and isinstance(default, dict)),
        placeholder=f"default: {short_json(default, longest=60)}" if is_template else "",
        is_required=required and default is ABSENT,
        options=options,
    )


def has_template(value: Any) -> bool:
    """Whether a default holds a template: what a start is given is never rendered."""
    if isinstance(value, dict | list):
        return any(map(has_template, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _kind(schema: Mapping[str, Any], default: Any) -> Kind:
    types = schema.get("type")
    names = [name for name in (types if isinstance(types, list) else [types]) if name != "null"]
    if len(names) == 1 and isinstance(names[0], str):
        return SCALARS.get(names[0], "json")
    if types is None and not schema.keys() & {"anyOf", "oneOf", "allOf", "properties", "items", "prefixItems"}:
        return {str: "text", int: "integer", float: "number"}.get(type(default), "json")  # type: ignore[return-value]
    return "json"


def _options(schema: Mapping[str, Any], default: Any, *, required: bool) -> list[tuple[str, str]]:
    """The values of a choice, as JSON, with their words; empty where the value is typed."""
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    if schema.get("type") == "boolean" or (schema.get("type") is None and isinstance(default, bool)):
        values = values or [True, False]
    if not 0 < len(values) <= MOST_OPTIONS:
        return []
    texts = {json.dumps(value): value if isinstance(value, str) else short_json(value) for value in values}
    if default is ABSENT or has_template(default) or json.dumps(default) not in texts:
        nothing = "Choose one" if required else f"default: {default}" if has_template(default) else "not given"
        return [("", nothing), *texts.items()]
    return [*texts.items()]


def _as_text(kind: Kind, value: Any) -> str:
    if kind in {"choice", "json"}:
        return json.dumps(value) if kind == "choice" else json_for_editing(value)
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def json_for_editing(value: Any) -> str:
    """A value as JSON: short ones on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHORT else json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _hint(schema: Mapping[str, Any], kind: Kind, *, has_default: bool) -> str:
    said = schema.get("description")
    parts = [said.rstrip(".") + "."] if isinstance(said, str) and said.strip() else []
    words = (
        ("minimum", "at least {}"), ("maximum", "at most {}"), ("exclusiveMinimum", "more than {}"),
        ("exclusiveMaximum", "less than {}"), ("multipleOf", "a multiple of {}"),
        ("minLength", "a length of at least {}"), ("maxLength", "a length of at most {}"),
        ("minItems", "a length of at least {}"), ("maxItems", "a length of at most {}"),
    )  # fmt: skip
    bounds = [text.format(short_json(schema[key], longest=20)) for key, text in words if key in schema]
    json_word = {"object": "a JSON object", "array": "a JSON list"}.get(str(schema.get("type")), "JSON")
    what = {"integer": "a whole number", "number": "a number", "json": json_word}.get(kind, "")
    if what or bounds:
        sentence = ", ".join([what, *bounds] if what else bounds)
        parts.append(f"{sentence[0].upper()}{sentence[1:]}.")
    if has_default:
        parts.append("Merged over the default.")
    return " ".join(parts)


def read_inputs(form: SentForm, inputs: Sequence[Input], *, merged: bool = True) -> tuple[dict[str, Any], list[Input]]:
    """The values that differ from what the form showed, and the fields with the `error` of what cannot be read.

    `merged`: the values are merged over the defaults, so a mapping has only what differs.
    """
    values: dict[str, Any] = {}
    found: list[Input] = []
    for one in inputs:
        text = form.text(one.field)
        error = None
        try:
            value = _read(one, text, merged=merged)
            if value is not ABSENT:
                values |= value if one.field in {WHOLE, MORE} else {one.name: value}
        except ValueError as fault:
            error = str(fault)
        found.append(replace(one, text=text, error=error))
    return values, found


def _read(one: Input, text: str, *, merged: bool) -> Any:
    if text == one.shown:
        return ABSENT
    if one.kind in {"text", "lines"}:
        return text
    if not text.strip():
        return ABSENT
    if one.kind in {"integer", "number"}:
        return _read_number(text.strip())
    if one.kind == "choice" and text not in dict(one.options):
        raise ValueError("it is none of the values to choose from")
    value = read_short_json(text)
    if one.field in {WHOLE, MORE} and not isinstance(value, dict):
        raise ValueError("it must be a JSON object, such as {}")
    if not merged or one.kind != "json" or not one.shown:
        return value
    return changed_only(json.loads(one.shown), value)


def _read_number(text: str) -> int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    raise ValueError(f"{text!r:.60} is not a number")


def changed_only(before: Any, after: Any) -> Any:
    """A value without the parts of mappings that are as before: a payload is merged over the defaults."""
    if isinstance(before, dict) and isinstance(after, dict):
        return {
            name: changed_only(before.get(name, ABSENT), value)
            for name, value in after.items()
            if name not in before or json.dumps(before[name]) != json.dumps(value)
        }
    return after


def with_errors(inputs: Sequence[Input], faults: Sequence[Mapping[str, str]]) -> tuple[list[Input], list[str]]:
    """The fields with the faults that the schema found in them, and the faults that belong to no field."""
    of_field: dict[str, list[str]] = {}
    rest: list[str] = []
    whole = next((each for each in inputs if each.field in {WHOLE, MORE}), None)
    for fault in faults:
        path, message = fault["path"], fault["message"]
        one = next((each for each in inputs if each.name and _is_in(path, each.name)), None)
        if one is not None:
            inner = path[len(path_text((one.name,))) :].lstrip(".")
            of_field.setdefault(one.field, []).append(f"{inner} {message}" if inner else f"It {message}")
        elif whole is not None and path:
            of_field.setdefault(whole.field, []).append(f"{path} {message}")
        else:
            rest.append(f"{path or 'the workload'} {message}")
    marked = [
        replace(one, error="; ".join([*filter(None, [one.error]), *of_field.get(one.field, ())]) or None)
        for one in inputs
    ]
    return marked, rest


def _is_in(path: str, name: str) -> bool:
    own = path_text((name,))
    return path == own or path.startswith((f"{own}.", f"{own}["))

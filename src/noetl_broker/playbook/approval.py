"""Reads an `approval` step: what people see, the form that they fill in, and until when they may decide.

A form is a mapping of field names to JSON Schema. `required: true` in a field's schema means that an approval needs the
field; a rejection does not. Each form has a field `comment`, a text, unless it defines its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from noetl_broker.playbook.diagnostics import json_type_name
from noetl_broker.playbook.keys import DURATION, TREE, Form, Key, Layers, read_keys, that
from noetl_broker.playbook.model import ApprovalSpec
from noetl_broker.playbook.reader import TemplateSite, strings
from noetl_broker.playbook.value_schema import Schema, SchemaFinding, ValueFault, check_schema, faults_of

if TYPE_CHECKING:
    from noetl_broker.playbook.reader import Reading

TITLE, FORM, APPROVERS = "title", "form", "approvers"
RESERVED = frozenset({"approved", "by", "at"})  # of the result
COMMENT = "comment"
REQUIRED, DEFAULT = "required", "default"
TITLE_FORMS = "one text"
APPROVERS_FORMS = "login:NAME, token:NAME, a role, or a list of these"
FORM_HINT = "write a schema for each field: {discount: {type: number, maximum: 30}}"


def read_approval(reading: Reading, declared: Layers, site: TemplateSite) -> ApprovalSpec:
    """Read what an `approval` step shows; a form with templates is checked when the approval begins."""
    form, where = declared.lookup(FORM)
    for fault in faults_of_form(form) if form is not None and not any(strings(form, where)) else ():
        location = (*where, *fault.location)
        reading.report.error("bad-form", location, fault.message, fault.hint, key=fault.of_key)
    return ApprovalSpec(**read_keys(reading, KEYS, declared, site))


def approvers_of(value: Any) -> list[str] | None:
    """The approvers as a list of texts; None if the value is something else, or names nobody."""
    listed = value if isinstance(value, list) else [value]
    return listed if listed and all(isinstance(one, str) and one.strip() for one in listed) else None


def faults_of_form(form: Any) -> list[SchemaFinding]:
    """The errors of a form; an empty list means that `schema_of_form` can use it."""
    if not isinstance(form, dict):
        return [SchemaFinding((), f"`{FORM}` is {json_type_name(form)}", FORM_HINT)]
    faults = []
    for name, schema in form.items():
        if name in RESERVED:
            message = f"`{name}` is no field of a form: the decision itself has it"
            faults.append(SchemaFinding((name,), message, "choose another name", of_key=True))
            continue
        if not isinstance(schema, dict | bool):
            message = f"`{FORM}.{name}` is {json_type_name(schema)}, not a schema"
            faults.append(SchemaFinding((name,), message, "write a mapping such as {type: string}"))
            continue
        faults += [
            fault._replace(location=(name, *fault.location)) for fault in check_schema(_without_required(schema))
        ]
    return faults


def schema_of_form(form: dict[str, Any], *, approved: bool) -> Schema:
    """The JSON Schema of a filled form: as `noetl.schema_of_form` makes it."""
    required = [name for name, schema in form.items() if approved and _is_required(schema)]
    properties = {name: _without_required(schema) for name, schema in form.items()}
    properties.setdefault(COMMENT, {"type": ["string", "null"]})
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def faults_of_filled(form: dict[str, Any], filled: Any, *, approved: bool) -> list[ValueFault]:
    """How a filled form breaks the form."""
    return faults_of(schema_of_form(form, approved=approved), filled)


def complete_form(form: dict[str, Any], filled: dict[str, Any]) -> dict[str, Any]:
    """The filled form with all fields: a missing field has its default, or null."""
    left_out = {
        name: schema.get(DEFAULT) if isinstance(schema, dict) else None
        for name, schema in form.items()
        if name not in filled
    }
    return {COMMENT: None, **filled, **left_out}


def _is_required(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get(REQUIRED) is True


def _without_required(schema: Any) -> Any:
    if isinstance(schema, dict) and isinstance(schema.get(REQUIRED), bool):
        return {key: value for key, value in schema.items() if key != REQUIRED}
    return schema


NAME_SOMEBODY: Final = that(lambda value: approvers_of(value) is not None)
KEYS: Final = (
    Key(TITLE, Form("a text", that(lambda value: not isinstance(value, dict | list)), compiled=True)),
    Key("details", TREE),
    Key(FORM, TREE),
    Key(
        APPROVERS,
        Form(APPROVERS_FORMS, NAME_SOMEBODY, hint=f"write {APPROVERS}: [login:ann, finance]", compiled=True),
        null=False,
    ),
    Key("timeout", DURATION),
)

"""The fields of a form, from the model of the request that it sends."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_origin

from noetl_broker.service.models.base import Given, type_of, words_of


class FormField(NamedTuple):
    """A field: `kind` is a line of text, JSON, a box to tick, or one of `options`."""

    name: str
    label: str
    hint: str
    kind: Literal["text", "json", "tick", "choice"]
    is_required: bool
    options: tuple[str, ...] = ()


def fields_of(model: type[Given], *, but: frozenset[str]) -> list[FormField]:
    """The fields of a request, without those that the page knows."""
    made = []
    for name, field in model.model_fields.items():
        if name in but:
            continue
        options = words_of(field)
        kind = "choice" if options else _kind_of(type_of(field))
        hint = "; ".join(filter(None, ["" if field.is_required() else "optional", field.description]))
        made.append(FormField(name, name.replace("_", " ").capitalize(), hint, kind, field.is_required(), options))
    return made


def _kind_of(annotation: Any) -> Literal["text", "json", "tick"]:
    if annotation is bool:
        return "tick"
    return "json" if annotation is Any or get_origin(annotation) in {dict, list} else "text"

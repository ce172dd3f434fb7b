"""A form with the fields of a request's model."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, StrictBool

from noetl_broker.console.pages.model_form import FormField, fields_of
from noetl_broker.console.pages.rendering import environment
from noetl_broker.service.models.base import OneExecution


class LabelRequest(OneExecution):
    """A request with a field of each kind."""

    label: str = Field(description="what people call it")
    note: str | None = None
    colour: Literal["red", "blue"] | None = Field(None, description="of its row")
    is_kept: StrictBool = False
    values: dict[str, Any] = Field(default_factory=dict)


def test_a_form_has_a_field_for_each_of_the_model() -> None:
    """What a person typed stays, and what is wrong stands at its field."""
    fields = fields_of(LabelRequest, but=frozenset({"execution_id"}))
    assert fields == [
        FormField("label", "Label", "what people call it", "text", is_required=True),
        FormField("note", "Note", "optional", "text", is_required=False),
        FormField("colour", "Colour", "optional; of its row", "choice", is_required=False, options=("red", "blue")),
        FormField("is_kept", "Is kept", "optional", "tick", is_required=False),
        FormField("values", "Values", "optional", "json", is_required=False),
    ]
    page = environment().from_string('{% import "macros.html" as m with context %}{{ m.asked(listed) }}')
    typed = {"label": "<b>", "colour": "blue", "is_kept": "true", "values": '{"a": 1}'}
    html = page.render(listed=fields, fields=typed, errors={"label": "it is taken"})
    assert re.findall(r'(?:<option selected>|<textarea[^>]*>\n|checked> |id="hint-label">)([^<]*)<', html) == [
        "It is taken.",
        "blue",
        "Is kept",
        "{&#34;a&#34;: 1}",
    ]
    assert re.findall(r'value="([^"]*)"', html) == ["&lt;b&gt;", "", "true"]

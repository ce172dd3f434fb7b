"""Requests whose fields a person wrote as texts: JSON, spans of time, rates, numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, get_origin

from noetl_broker.playbook.throttle import RATE_FORMS, parse_rate
from noetl_broker.service.field_errors import FieldFault, request_of
from noetl_broker.service.models.base import Given
from noetl_broker.service.spans import parse_span
from noetl_broker.service.typed_json import read_short_json
from noetl_broker.template.durations import DURATION_FORMS, parse_duration

Asked = TypeVar("Asked", bound=Given)
TAGS: Final = "tags"  # the field of a request; a person writes each as NAME=VALUE


def read_tags(lines: Iterable[str]) -> dict[str, str]:
    """The tags of lines `NAME=VALUE`. Raises ValueError for a line without a value, and for two values of one tag."""
    tags: dict[str, str] = {}
    for line in filter(str.strip, lines):
        name, equals, value = line.partition("=")
        if not equals:
            raise ValueError(f"the tag {line!r:.60} has no value; write NAME=VALUE, such as customer=7")
        if tags.setdefault(name.strip(), value) != value:
            raise ValueError(
                f"the tag {name.strip()} is there twice, as {tags[name.strip()]!r:.60} and {value!r:.60}; give one"
            )
    return tags


def tag_lines(tags: Mapping[str, object] | None) -> list[str]:
    """Tags as a person writes them, each `NAME=VALUE`."""
    return [f"{name}={value}" for name, value in (tags or {}).items()]


def parse_seconds(text: str) -> float:
    """The seconds of a span or of a number. Raises ValueError."""
    seconds = parse_span(text)
    return parse_duration(text.strip()) if seconds is None else seconds


# The numbers that are not written as such, by the names of their fields: their reader, their name, and examples.
WRITTEN: Final[Mapping[str, tuple[Callable[[str], float], str, str]]] = {
    "rate": (parse_rate, "rate", RATE_FORMS),
    **dict.fromkeys(
        ("keep_seconds", "start_after", "every", "jitter", "catch_up", "timeout"),
        (parse_seconds, "duration", DURATION_FORMS),
    ),
}


def written_request(model: type[Asked], written: Mapping[str, Any]) -> Asked:
    """The request of what a person wrote, by the names of fields; what is no text is a value already.

    A field that may be left out and is empty is not given. Raises FieldFault.
    """
    values, errors = dict[str, Any](), dict[str, str]()
    for name, text in written.items():
        field = model.model_fields.get(name)
        if text is None or (text == "" and field is not None and not field.is_required()):
            continue
        try:
            values[name] = (
                read_written(name, field.annotation, text) if isinstance(text, str) and field is not None else text
            )
        except ValueError as error:
            errors[name] = str(error)
    try:
        request = request_of(model, values)
    except FieldFault as fault:
        raise FieldFault({**fault.errors, **errors}) from None
    if errors:
        raise FieldFault(errors)
    return request


def read_written(name: str, kind: Any, text: str, read: Callable[[str], Any] = read_short_json) -> Any:
    """The value of a field of a type that a person wrote; `read` reads JSON. Raises ValueError."""
    if kind is Any or get_origin(kind) is dict:
        return read(text)
    if name == TAGS:
        return read_tags(text.splitlines())
    if kind is bool:
        return text == "true"
    if name not in WRITTEN:
        return text
    parse, what, forms = WRITTEN[name]
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"{text!r:.60} is not a {what}; write {forms}") from None

"""Says in one sentence what is wrong with a field of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from noetl_broker.errors import OperatorFault
from noetl_broker.playbook import tags
from noetl_broker.playbook.diagnostics import did_you_mean

Asked = TypeVar("Asked", bound=BaseModel)
SHOWN: Final = 80  # characters of a refused value

# The message about a field, by pydantic's type of the error, with its context. Other types keep the words of pydantic.
MESSAGES: Final[Mapping[str, str]] = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    **dict.fromkeys(("model_attributes_type", "model_type", "dict_type"), "it must be a JSON object"),
    "list_type": "it must be a list",
    "string_type": "it must be a text",
    **dict.fromkeys(("bool_parsing", "bool_type"), "it must be true or false"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "it must be a whole number"),
    "int_parsing_size": "it has too many digits",
    **dict.fromkeys(("float_parsing", "float_type"), "it must be a number"),
    "finite_number": "it must be a finite number",
    "literal_error": "it must be {expected}",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "string_too_short": "it must not be empty",
    "string_pattern_mismatch": "it must match {pattern}",
    "string_too_long": "it must have at most {max_length} characters",
    "too_long": "its length may be at most {max_length}",
    "value_error": "{error}",
}
# The message about a text that does not match a pattern, where a person writes such texts.
_TAG_NAME: Final = "a name of at most 63 small letters, digits and _ . -, with a letter first"
PATTERNS: Final[Mapping[object, str]] = {
    tags.PATTERN: f"it must be NAME=VALUE, such as customer=7, with {_TAG_NAME}",
    f"^{tags.NAME}$": f"it must be {_TAG_NAME}",
}


class FieldFault(OperatorFault):
    """Wrong fields of a request: what is wrong, by their names. The message is about the first."""

    def __init__(self, errors: Mapping[str, str], message: str | None = None) -> None:
        name, words = next(iter(errors.items()))
        super().__init__(message or f"{name}: {words}")
        self.errors = errors


def message_of(found: Mapping[str, Any], body: Any = None) -> str:
    """The message about a wrong field, from what pydantic says of it; `body` is the type of the whole request."""
    kind, path = found["type"], found["loc"]
    context = found.get("ctx", {})
    message = MESSAGES[kind].format_map(context) if kind in MESSAGES else str(found["msg"])
    message = PATTERNS.get(context.get("pattern"), message)
    shown = repr(found.get("input"))
    if kind == "missing":
        return f"{message}: send a JSON object" if path == ("body",) else message
    if kind == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), fields_at(body, path[1:-1]))
        return f"{message}; {hint}" if hint else message
    if "input" in found and shown not in message:
        return f"{message}; it is {shown if len(shown) <= SHOWN else f'{shown[: SHOWN - 1]}…'}"
    return message


def request_of(
    model: type[Asked], values: Mapping[str, Any], written: Callable[[str], str] = lambda name: name
) -> Asked:
    """The request with these values. Raises FieldFault, whose message has the name of the field as it is `written`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong: dict[str, list[str]] = {}
        for one in error.errors():
            wrong.setdefault(str(one["loc"][0]) if one["loc"] else "", []).append(message_of(one))
        errors = {name: _alternatives(words) for name, words in wrong.items()}
        first = next(iter(errors))
        where = written(first) if first else "the request"
        raise FieldFault(errors, f"{where}: {errors[first]}") from None


def _alternatives(words: Sequence[str]) -> str:
    """What a field of several types may be, with its value once."""
    given = words[-1].partition("; it is ")[2]
    return ", or ".join([*(word.removesuffix(f"; it is {given}") for word in words[:-1]), words[-1]])


def fields_at(body: Any, path: Sequence[Any]) -> list[str]:
    """The names of the fields of a body, or of the object at a path in it; none where it is not an object of ours."""
    models = [each for each in (body, *get_args(body)) if isinstance(each, type) and issubclass(each, BaseModel)]
    if not models:
        return []
    fields = {field.alias or name: field for name, field in models[0].model_fields.items()}
    if not path:
        return [*fields]
    return fields_at(fields[path[0]].annotation, path[1:]) if path[0] in fields else []

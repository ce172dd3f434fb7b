"""Reads the fields of a form as the API reads the fields of its documents."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from noetl_broker.errors import OperatorFault
from noetl_broker.playbook.durations import parse_duration
from noetl_broker.playbook.plain_values import LARGEST_VERSION
from noetl_broker.service.models.values import GivenId
from noetl_broker.service.spans import parse_span
from noetl_broker.service.typed_json import MANY_VALUES, has_many_values

_ID: Final = TypeAdapter[int](GivenId)
SHOWN: Final = 80  # characters of a refused value
LONGEST_VERSION: Final = 10  # digits


def read_id(text: str) -> int:
    """The number of an id. Raises OperatorFault, NotFoundFault."""
    try:
        return _ID.validate_python(text.strip())
    except ValidationError as error:
        raise OperatorFault(f"{text!r:.80} is no id: an id is a number of at most 19 digits") from error


def version_in(text: str) -> int | None:
    """The version that a text names; None if it names none."""
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_VERSION):
        return None
    return int(text) if 1 <= int(text) <= LARGEST_VERSION else None


def read_version(text: str) -> int:
    """The number of a version. Raises OperatorFault."""
    written = text.strip()
    if not (written.isascii() and written.isdigit() and len(written) <= LONGEST_VERSION and int(written) >= 1):
        raise OperatorFault(f"{text!r:.40} is no version: write latest, or a number such as 3")
    if int(written) > LARGEST_VERSION:
        raise OperatorFault(f"{written} is no version: the largest is {LARGEST_VERSION}")
    return int(written)


def read_json(text: str) -> Any:
    """The value of a JSON text; ValueError says what is wrong and where."""
    if has_many_values(text.encode(errors="surrogatepass")):
        raise ValueError(MANY_VALUES)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def read_seconds(text: str) -> float:
    """The seconds of a span, as `90s`, `15m`, `1h30m`, or of a number of seconds; ValueError says what is wrong."""
    seconds = parse_span(text)
    return parse_duration(text.strip()) if seconds is None else seconds

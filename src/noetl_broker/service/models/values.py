"""Values of the API's documents: ids as text, moments in UTC, and payloads that only an operator sees."""

from __future__ import annotations

import re
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from noetl_broker.errors import NotFoundFault
from noetl_broker.service.spans import parse_since
from noetl_broker.text import ids_as_text

LARGEST_ID = 2**63 - 1
_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")
_ID_SCHEMA = {"type": "string", "pattern": "^[0-9]{1,19}$", "examples": ["58123456789012345"]}

# Whether the answer that this task makes may show payloads. `access` sets it; without it, nothing is shown.
shows_payloads: ContextVar[bool] = ContextVar("shows_payloads", default=False)


def _read_id(value: object) -> int:
    """The number of an id; raises ValueError for what is no id, and NotFoundFault for a number past 64 bits."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_ID))):
        raise ValueError("an id is a number of at most 19 digits")
    number = int(text)
    if number > LARGEST_ID:
        raise NotFoundFault(f"there is nothing with the id {text}: ids have at most 63 bits")
    return number


# A 64-bit id. JavaScript rounds such a number, so JSON has it as a text of digits.
Id = Annotated[int, PlainSerializer(str, return_type=str, when_used="json"), WithJsonSchema(_ID_SCHEMA)]
GivenId = Annotated[int, BeforeValidator(_read_id), WithJsonSchema(_ID_SCHEMA)]  # an id in a request
# In a body: a program may send the number itself.
IdOfBody = Annotated[
    int,
    BeforeValidator(_read_id),
    WithJsonSchema({"anyOf": [_ID_SCHEMA, {"type": "integer", "minimum": 0, "maximum": LARGEST_ID}]}),
]
ExecutionId = Annotated[GivenId, Field(description="the id of an execution")]
Moment = datetime  # aware and in UTC, as the database gives it


def _read_time(text: str) -> str:
    parse_since(text)
    return text


# A moment, or a time span before now. `parse_since` also takes shorter moments, such as 2026-01-31T08:00Z.
_SPAN = "^([0-9]{1,3}w)?([0-9]{1,4}d)?([0-9]{1,5}h)?([0-9]{1,6}(m|min))?([0-9]{1,8}(s|sec))?$"
_TIME_SCHEMA = {
    "type": "string",
    "maxLength": 64,
    "anyOf": [{"format": "date-time"}, {"format": "date"}, {"minLength": 2, "pattern": _SPAN}],
    "examples": ["2h", "2026-01-31T08:00Z"],
}
Time = Annotated[str, AfterValidator(_read_time), Field(max_length=64), WithJsonSchema(_TIME_SCHEMA)]


def _hide(value: Any) -> Any:
    return value if shows_payloads.get() else None


# A document that the broker made, for everybody.
Facts = Annotated[Any, PlainSerializer(ids_as_text, return_type=Any)]

# Payloads, results, messages of errors and logs: a viewer must not see them, and gets null.
Payload = Annotated[Any, PlainSerializer(_hide, return_type=Any)]

# A value that the broker recorded, with payloads in it.
Recorded = Annotated[Any, PlainSerializer(lambda value: ids_as_text(_hide(value)), return_type=Any)]

# Names that may have been rendered from a payload, such as keys of signals; and the ids of workers, which prove leases.
Hidden = Payload


def _type_name(value: Any) -> Any:
    return value if shows_payloads.get() or (isinstance(value, str) and _TYPE_NAME.fullmatch(value)) else None


# The type of an error. A viewer sees the name of a class, and no other text: a worker may write any.
ErrorType = Annotated[Any, PlainSerializer(_type_name, return_type=Any)]


def _of_error(error: Any, *, names: tuple[str, ...]) -> Any:
    if shows_payloads.get() or not isinstance(error, dict):
        return ids_as_text(error) if shows_payloads.get() else None
    shown = {name: error[name] for name in names if isinstance(error.get(name), str)}
    return {**shown, **({"type": error["type"]} if _type_name(error.get("type")) else {})}


# A viewer sees the type of an error, never its message: that may hold a part of a payload. The error of an execution
# also shows the step, which the broker writes.
Fault = Annotated[Any, PlainSerializer(partial(_of_error, names=("step",)), return_type=Any)]
WorkerFault = Annotated[Any, PlainSerializer(partial(_of_error, names=()), return_type=Any)]

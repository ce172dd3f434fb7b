"""Limits: how long an execution may run, how much a turn may do, how large values may be.

An execution that exceeds a limit fails, and its error names the limit.
`noetl.limit_of` has the same numbers in SQL; a test compares them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple, cast

from noetl_broker.broker.model.values import JSON, as_stored

if TYPE_CHECKING:
    from noetl_broker.broker.model.event import Event
    from noetl_broker.broker.model.rules import Rules

MAX_PAYLOAD_BYTES = 16 << 20  # of an event's context, result or meta as JSON text
MAX_RESULT_BYTES = 2 << 20  # of a result as JSON text
MAX_FORM_BYTES = 64 << 10  # of a filled form of an approval as JSON text
MAX_LOG_BYTES = 64 << 10  # of what an attempt prints
MAX_PATH_CHARS = 1024  # of a playbook's path
MAX_ITEM_ERRORS = 10_000  # errors that the list of an iterator's failed items has
MAX_ATTEMPT = 999_999_999  # of an event; one above it counts as not given
MAX_ITEM_INDEX = 1_000_000  # that a worker may give to a child; those without one get larger ones
MAX_ID = 2**63 - 1  # of an execution or an event
MAX_NODE_CHARS = 1024  # of a node id or name, and of who decides
MAX_STARTS = 10_000  # of one call
MAX_KEY_BYTES = 100  # of the name of a field that a shortened error keeps


class ErrorLimit(NamedTuple):
    """The limit of an error in bytes of JSON text, and how much of a larger one is kept."""

    total: int
    message_chars: int
    field_bytes: int
    fields: int


ERROR = ErrorLimit(65_536, 4_000, 500, 10)
ITEM_ERROR = ErrorLimit(500, 250, 40, 5)  # in the list of failed items, which may have thousands


def max_turns_error(rules: Rules, turn: int) -> dict[str, JSON] | None:
    """The error of an execution that is still running after its last turn."""
    limit = rules.max_turns
    if turn < limit:
        return None
    message = f"the execution has not ended with turn {turn}; the limit max_turns is {limit}"
    return {"message": message, "type": "max_turns"}


def max_fan_out_error(rules: Rules, step: str, taken: int) -> dict[str, JSON] | None:
    """The error of an execution whose turn takes too many transitions; the last one leads to `step`."""
    limit = rules.max_fan_out
    if taken <= limit:
        return None
    message = f"step {step} would be at transition {taken} of one turn; the limit max_fan_out is {limit}"
    return {"step": step, "message": message, "type": "max_fan_out"}


def result_size_error(event: Event) -> dict[str, JSON]:
    """The error of an attempt whose result is larger than a worker may send."""
    message = f"the result takes {event.bytes_over} bytes; the limit max_result_bytes is {MAX_RESULT_BYTES}"
    return {"message": message, "type": "max_result_bytes"}


def oversized_start(event: Event) -> dict[str, JSON]:
    """The error of an execution whose start was not read, because a part of it is too large."""
    part, _, size = event.oversize.partition(" ")
    if part == "path":
        message = f"the path in the context of execution_start has {size} characters; it may have {MAX_PATH_CHARS}"
        return {"message": message, "type": "max_path_chars"}
    message = f"the {part} of execution_start takes {size} bytes; the limit max_payload_bytes is {MAX_PAYLOAD_BYTES}"
    return {"message": message, "type": "max_payload_bytes"}


def max_payload_keys_error(rules: Rules, payload: dict[str, JSON]) -> dict[str, JSON] | None:
    """The error of an execution whose payload has too many keys, counted in all its mappings."""
    limit = rules.max_payload_keys
    keys, level = 0, [cast("JSON", payload)]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            keys += len(item)
            if keys > limit:
                message = f"the payload has more than {limit} keys; the limit max_payload_keys is {limit}"
                return {"message": message, "type": "max_payload_keys"}
            level += [value for value in item.values() if isinstance(value, dict | list)]
        else:
            level += [value for value in item if isinstance(value, dict | list)]
    return None


def shorten_error(error: JSON, limit: ErrorLimit = ERROR) -> JSON:
    """The error as it is; of a large one the message, the type, the smallest other fields and `original_bytes`.

    Each event that follows from a failure repeats its error. `noetl.shorten_error` does the same.
    """
    text = _text(error)
    size = len(text.encode())
    if size <= limit.total:
        return error
    if not isinstance(error, dict):
        return {"original_bytes": size, "message": (error if isinstance(error, str) else text)[: limit.message_chars]}
    texts = {key: _text(value) for key, value in error.items() if len(key.encode()) <= MAX_KEY_BYTES}
    sizes = {key: len(text.encode()) for key, text in texts.items()}
    kept = sorted(texts, key=lambda key: (key not in {"message", "type"}, sizes[key], key))[: limit.fields]
    short: dict[str, JSON] = {"original_bytes": size}
    for key in kept:
        value, most = error[key], limit.message_chars if key == "message" else limit.field_bytes
        is_small = sizes[key] <= limit.field_bytes
        short[key] = value if is_small else (value if isinstance(value, str) else texts[key])[:most]
    return short


def _text(value: JSON) -> str:
    """The JSON text as Postgres writes a jsonb."""
    return json.dumps(as_stored(value), ensure_ascii=False)

"""How long an execution may grow, how wide one turn of it, how large a result: past a bound it fails with its name.

What ends it has a bound too: a long error is shortened.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from noetl_broker.broker.model import MAX_PATH_CHARS, MAX_PAYLOAD_BYTES, MAX_RESULT_BYTES
from noetl_broker.broker.state import RUNNING
from noetl_broker.template.output import size_of

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.model import JSON, Event
    from noetl_broker.broker.state import Arrival

MOST_ERROR_CHARS = 65_536  # of an error that came in a result; any other is shortened where it is read, by the database
MOST_MESSAGE_CHARS, MOST_FIELD_CHARS, MOST_FIELDS = 4_000, 500, 9
MOST_ITEM_ERROR_CHARS = 500  # of an error in the list of an iterator's failed items
MOST_ITEM_MESSAGE_CHARS, MOST_ITEM_FIELD_CHARS, MOST_ITEM_FIELDS = 250, 40, 5


def too_long(draft: Draft) -> dict[str, JSON] | None:
    """The error of an execution that has had all its turns, and would need another to end."""
    limit = draft.known.rules.max_turns
    if limit is None or draft.turn.number < limit or draft.status != RUNNING:
        return None
    message = f"the execution has not ended with turn {draft.turn.number}; the limit max_turns is {limit}"
    return {"message": message, "type": "max_turns"}


def too_wide(draft: Draft, arrival: Arrival, taken: int) -> dict[str, JSON] | None:
    """The error of an execution whose turn would take one transition too many, the one of this arrival."""
    limit = draft.known.rules.max_fan_out
    if limit is None or taken <= limit:
        return None
    message = f"step {arrival.step} would be at transition {taken} of one turn; the limit max_fan_out is {limit}"
    return {"step": arrival.step, "message": message, "type": "max_fan_out"}


def too_large(event: Event) -> dict[str, JSON]:
    """The error of an attempt whose result is larger than the database takes from workers."""
    message = f"the result takes {event.bytes_over} bytes; the limit max_result_bytes is {MAX_RESULT_BYTES}"
    return {"message": message, "type": "max_result_bytes"}


def oversized_start(event: Event) -> dict[str, JSON]:
    """The error of an execution whose start was not read, because a part of it is larger than the broker reads."""
    part, _, size = event.oversize.partition(" ")
    if part == "path":
        message = f"the path in the context of execution_start has {size} characters; it may have {MAX_PATH_CHARS}"
        return {"message": message, "type": "max_path_chars"}
    message = f"the {part} of execution_start takes {size} bytes; the limit max_payload_bytes is {MAX_PAYLOAD_BYTES}"
    return {"message": message, "type": "max_payload_bytes"}


def too_many_keys(draft: Draft, payload: dict[str, JSON]) -> dict[str, JSON] | None:
    """The error of an execution whose payload is wider than a turn can carry: the keys of all mappings in it count."""
    limit = draft.known.rules.max_payload_keys
    if limit is None:
        return None
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


def shortened(error: JSON) -> JSON:
    """The error as it is; of one that is too long the message and some small fields, and its `original_bytes`.

    Everything that follows from a failure says its error again.
    """
    if size_of(error) <= MOST_ERROR_CHARS:
        return error
    return _cut(error, MOST_MESSAGE_CHARS, MOST_FIELD_CHARS, MOST_FIELDS)


def brief(error: JSON) -> JSON:
    """The error as the list of an iterator's failed items has it: there may be a hundred thousand of them."""
    if size_of(error) <= MOST_ITEM_ERROR_CHARS:
        return error
    return _cut(error, MOST_ITEM_MESSAGE_CHARS, MOST_ITEM_FIELD_CHARS, MOST_ITEM_FIELDS)


def _cut(error: JSON, message_chars: int, field_chars: int, fields: int) -> JSON:
    told = error if isinstance(error, dict) else {"message": error}
    small = [(key, value) for key, value in told.items() if size_of([key, value]) <= field_chars]
    short: dict[str, JSON] = dict(small[:fields])
    if isinstance(told.get("message"), str):
        short["message"] = told["message"][:message_chars]
    return {**short, "original_bytes": len(json.dumps(error, ensure_ascii=False).encode())}

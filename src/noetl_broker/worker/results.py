"""Checks that a result can be stored: JSON that jsonb holds, and not too large."""

from __future__ import annotations

import json
import math
from typing import Any

from noetl_broker.store.json_codec import load_json
from noetl_broker.worker.errors import FinalFault
from noetl_broker.worker.tools.task import RESULT_BYTES


def encode_result(result: Any) -> str:
    """The JSON text of a result. Raises ToolFault when jsonb cannot hold it, or it is too large."""
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        path = find_unstorable(result) or "the result"
        raise FinalFault(f"{path} is no JSON: {error}", kind="bad_result") from None
    if "\\u0000" in text and (holder := find_unstorable(result)):
        raise FinalFault(f"{holder} holds a NUL character, which Postgres cannot store", kind="bad_result")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        holder = find_unstorable(result)
        raise FinalFault(f"{holder} holds half of a surrogate pair, which is no text", kind="bad_result") from None
    if size > RESULT_BYTES:
        raise FinalFault(
            f"the result has {size} bytes, more than the limit of {RESULT_BYTES}; store it and return where it is",
            kind="max_result_bytes",
        )
    return text


def read_back(result: Any) -> Any:
    """The result as the database will return it. Raises ToolFault as `encode_result` does."""
    return load_json(encode_result(result))


def find_unstorable(result: Any) -> str | None:
    """The path of the first value that jsonb cannot hold. None if there is none, or it is nested too deep."""
    try:
        return _find(result, "result")
    except RecursionError:
        return None


def _find(value: Any, path: str) -> str | None:
    if isinstance(value, str):
        return path if any(char == "\x00" or "\ud800" <= char <= "\udfff" for char in value) else None
    if isinstance(value, dict):
        items = ((f"{path}[{key!r}]", key, item) for key, item in value.items())
        found = (_find(key, at) or _find(item, at) for at, key, item in items)
    elif isinstance(value, (list, tuple)):
        found = (_find(item, f"{path}[{index}]") for index, item in enumerate(value))
    else:
        is_json = value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        return None if is_json else path
    return next(filter(None, found), None)

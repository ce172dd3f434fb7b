"""Errors as text: type, message, place and attempt on one line, and the traceback."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from noetl_broker.text import short_json

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import JSON

LONGEST_TYPE, LONGEST_ERROR = 100, 2000  # characters
# A frame of a step's code, as a worker's traceback has it.
_FRAME = re.compile(r'^  File "<step .*>", line (?P<line>\d+)(?:, in (?P<function>\S+))?', re.MULTILINE)


def error_text(error: JSON, attempt: str = "") -> str:
    """`KeyError: 'city' (line 3 in main, attempt 2)`; parts that the error lacks are left out.

    The error of a `catch` stands behind the error that it read.
    """
    first = _first_error(error)
    if first is not None:
        before = error_text(first, attempt_text(first.get("attempt")) or attempt)
        return f"{before}; then its catch failed: {_own_text(error, '')}"
    return _own_text(error, attempt)


def _own_text(error: JSON, attempt: str) -> str:
    details = ", ".join(part for part in (location_of(error), attempt) if part)
    return f"{_typed_message(error)} ({details})" if details else _typed_message(error)


def failure_text(status: str, error: JSON, attempt: str = "") -> str:
    """Give the reason why an execution did not complete: `failed in step fetch: http: connection refused`."""
    if status == "CANCELLED":
        reason = error.get("reason") or error.get("message") if isinstance(error, dict) else error
        return f"was cancelled: {reason}" if reason and reason != "cancelled" else "was cancelled"
    if not isinstance(error, dict):
        return "failed" if error is None else f"failed: {short_json(error, longest=LONGEST_ERROR)}"
    return f"failed{step_text(error)}: {error_text(error, attempt)}"


def step_text(error: JSON) -> str:
    """` in step fetch[3]`; empty where the error names no step."""
    if not isinstance(error, dict) or not error.get("step"):
        return ""
    return f" in step {error['step']}" + (f"[{error['index']}]" if isinstance(error.get("index"), int) else "")


def location_of(error: JSON) -> str:
    """The origin of an error: a place in the playbook, or a line of the step's code; empty if it is not known."""
    if not isinstance(error, dict):
        return ""
    if error.get("at"):
        return f"at {error['at']}"
    frames = [*_FRAME.finditer(traceback_of(error))]
    if not frames:
        return ""
    function = frames[-1]["function"]
    return f"line {frames[-1]['line']}{'' if function in {None, '<module>'} else f' in {function}'}"


def traceback_of(error: JSON) -> str:
    """The traceback in an error, or in the error that its `catch` read; empty where there is none."""
    trace = error.get("traceback") if isinstance(error, dict) else None
    if isinstance(trace, str):
        return trace
    first = _first_error(error)
    return "" if first is None else traceback_of(first)


def traceback_lines(text: str) -> list[str]:
    """The lines of a traceback, each after a bar, as in the log."""
    return [f"  | {line}" for line in text.splitlines()]


def _first_error(error: JSON) -> dict[str, JSON] | None:
    first = error.get("caused_by") if isinstance(error, dict) else None
    return first if isinstance(first, dict) else None


def attempt_text(attempt: JSON, most: JSON = None) -> str:
    """`attempt 2 of 3`, or `attempt 2` where the number of attempts is not known; empty without an attempt."""
    if type(attempt) is not int or attempt < 1:
        return ""
    return f"attempt {attempt} of {most}" if type(most) is int and most > 1 else f"attempt {attempt}"


def _typed_message(error: JSON) -> str:
    if not isinstance(error, dict):
        return error if isinstance(error, str) else short_json(error)
    message, kind = error.get("message"), error.get("type")
    text = str(message) if message else short_json(error)
    if not isinstance(kind, str) or not kind or not message or kind in text:
        return text
    return f"{kind if len(kind) <= LONGEST_TYPE else f'{kind[: LONGEST_TYPE - 1]}…'}: {text}"

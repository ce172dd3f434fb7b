"""Open waits as text: what ends each, and the signal that came too early for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.node_ids import name_of_node
from noetl_broker.text import moment

if TYPE_CHECKING:
    from collections.abc import Iterator


def awaited_by(wait: dict[str, Any], execution_id: int) -> str:
    """Say what ends a wait: its moment, a signal (of a key), or a person's decision on its title."""
    if wait["kind"] == "signal":
        signal = f"signal {', '.join(wait.get('names') or ())}".rstrip()
        if wait.get("key") in {None, str(execution_id)}:
            return signal
        return f"{signal} of {wait['key']}, sent since {moment(wait['since_at'])}"
    return f"a person: {wait.get('title') or ''}".rstrip(": ") if wait["kind"] == "approval" else "its moment"


def too_early(waits: list[dict[str, Any]]) -> Iterator[str]:
    """Name the last signal that each wait missed, because it was sent before the moment from which signals count."""
    for wait in waits:
        if wait.get("sent_too_early") is not None:
            signal = f"a signal {', '.join(wait['names'])} of {wait['key']}"
            step, at = name_of_node(wait["node_id"]), moment(wait["sent_too_early"])
            yield f"{signal} was sent at {at}, too early for {step}: `since` would include it"


def wait_lines(waits: list[dict[str, Any]], execution_id: int) -> Iterator[str]:
    """Give a line for each wait, and the lines of `too_early`."""
    for wait in waits:
        until = "" if wait["due_at"] is None else f", until {moment(wait['due_at'])}"
        yield f"{name_of_node(wait['node_id'])} waits for {awaited_by(wait, execution_id)}{until}"
    yield from too_early(waits)

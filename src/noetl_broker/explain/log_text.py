"""The log of an execution as lines: parts of a line that were stored apart become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.node_ids import name_of_row
from noetl_broker.text import moment

if TYPE_CHECKING:
    from collections.abc import Iterator


class LogLine(NamedTuple):
    """A line: its time and step with the attempt, its level (empty: a note of the log itself), and its text."""

    head: str
    level: str
    text: str


def log_lines(entries: list[dict[str, Any]]) -> Iterator[LogLine]:
    """Give entries as lines. A note says where bytes are missing."""
    started: dict[tuple[str, int, str], tuple[dict[str, Any], str]] = {}  # lines that have not ended
    for entry in entries:
        key = entry["node_id"], entry["attempt"], entry["level"]
        if entry["missing_bytes"]:
            for other in [other for other in started if other[:2] == key[:2]]:
                yield _line(*started.pop(other))
            yield _line(entry, f"… {entry['missing_bytes']:,} bytes are missing …")._replace(level="")
        first, begun = started.pop(key, (entry, ""))
        *lines, rest = (begun + entry["message"]).split("\n")
        for line in lines:
            yield _line(first, line)
            first = entry
        if rest:
            started[key] = first, rest
    for first, rest in started.values():
        yield _line(first, rest)


def _line(entry: dict[str, Any], text: str) -> LogLine:
    attempt = f" (attempt {entry['attempt']})" if entry["attempt"] > 1 else ""
    head = f"{moment(entry['created_at'])}  {name_of_row(entry)}{attempt}"
    return LogLine(head, entry["level"], text.removesuffix("\r").expandtabs())

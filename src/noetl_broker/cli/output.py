"""How answers look: tables for people (drawn on a terminal, plain in a pipe), one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from noetl_broker.times import moment, span

__all__ = ["Lines", "Part", "Rows", "cell", "compact_json", "moment", "note", "show_json", "show_table", "span"]

LONGEST_CELL = 120  # characters
MOST_DRAWN = 2_000  # rows of a table; to draw one takes a millisecond or more, so longer ones are told plainly
GAP, NARROWEST_LAST = 3, 20  # characters between two columns, and that the last column keeps
STATUS_STYLES = {
    "COMPLETED": "green",
    "FAILED": "red",
    "RUNNING": "cyan",
    "CANCELLED": "yellow",
    "dead": "red",
    "failed": "red",
    "leased": "cyan",
}


def show_json(value: Any) -> None:
    """Print one JSON document: indented on a terminal, one line in a pipe; moments in ISO 8601."""
    indent = 2 if sys.stdout.isatty() else None
    click.echo(json.dumps(value, ensure_ascii=False, indent=indent, default=_plain))


def compact_json(value: Any, *, longest: int | None = None) -> str:
    """Give a value as JSON on one line, cut at `longest` characters."""
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


class Lines(NamedTuple):
    """Some lines of an answer."""

    lines: tuple[str, ...]

    def show(self) -> None:
        """Print them."""
        for line in self.lines:
            click.echo(one_line(line))

    def drawn(self) -> Text:
        """Give them for a picture that is drawn anew as it changes."""
        return Text("\n".join(map(one_line, self.lines)))


class Rows(NamedTuple):
    """A table of an answer; None is shown as nothing."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def show(self) -> None:
        """Print it."""
        show_table(self.columns, self.rows)

    def drawn(self) -> Table:
        """Draw for a terminal: the last column folds, the others never, because half an id is none."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in self.columns[:-1]:
            table.add_column(name, no_wrap=True)
        table.add_column(self.columns[-1], overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(text, style=STATUS_STYLES.get(text, "")) for text in map(cell, row)))
        return table


Part = Lines | Rows


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their columns; None is shown as nothing."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    if sys.stdout.isatty() and len(cells) <= MOST_DRAWN:
        console = Console()
        least = sum(widths[:-1]) + GAP * len(widths) + min(widths[-1], NARROWEST_LAST)
        console.width = max(console.width, least)
        console.print(Rows(columns, rows).drawn())
        return
    for line in (columns, *cells):
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """Give a value as text on one line that cannot move a terminal's cursor."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return moment(value)
    text = one_line(value if isinstance(value, str) else compact_json(value))
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def one_line(text: str) -> str:
    """Give a text with a space for each letter that would end the line or move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def note(message: str) -> None:
    """Tell a person something beside the answer, on stderr."""
    click.echo(message, err=True)


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

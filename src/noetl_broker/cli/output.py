"""How answers look: tables for people (drawn on a terminal, plain in a pipe), one JSON document for programs.

All that a command prints goes through here and nowhere else, on either stream: names and messages come from anybody,
and what nobody would see of them as itself is shown as an escape.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import click
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from noetl_broker.times import moment, span
from noetl_broker.visible import visible, visible_json, visible_lines

__all__ = ["Lines", "Part", "Rows", "cell", "compact_json", "moment", "note", "say", "show_json", "show_table", "span"]

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


class Styled(NamedTuple):
    """A part of a line that stands out on a terminal."""

    text: str
    colour: str | None = None
    dim: bool = False
    bold: bool = False


class SafeConsole(Console):
    """A console whose drawings hold nothing hidden but what the drawing itself needs."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Give the parts of a drawing."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible_lines(segment.text))


def say(*parts: object, to_stderr: bool = False) -> None:
    """Print one line, whatever its parts hold: a newline in one of them ends it no sooner."""
    click.echo("".join(map(_styled, parts)), err=to_stderr)


def note(message: str) -> None:
    """Tell a person something beside the answer, on stderr."""
    say(message, to_stderr=True)


def show_text(text: str, *, newline: bool = True) -> None:
    """Print a text of ours whose lines are wanted, such as a picture or a script."""
    click.echo(visible_lines(text), nl=newline)


def show_traceback() -> None:
    """Print where the error came from that is being handled, on stderr, each line behind a bar as in the log."""
    for line in traceback.format_exc().splitlines():
        say("  | ", line, to_stderr=True)


def console(*, on_stderr: bool = False) -> Console:
    """Give what draws on a terminal."""
    return SafeConsole(stderr=on_stderr)


def show_json(value: Any) -> None:
    """Print one JSON document: indented on a terminal, one line in a pipe; moments in ISO 8601."""
    indent = 2 if sys.stdout.isatty() else None
    click.echo(visible_json(json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)))


def show_json_line(value: Any) -> None:
    """Print one JSON document of several, each on a line."""
    click.echo(compact_json(value))


def compact_json(value: Any, *, longest: int | None = None) -> str:
    """Give a value as JSON on one line, cut at `longest` characters."""
    text = visible_json(json.dumps(value, ensure_ascii=False, default=_plain))
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


class Lines(NamedTuple):
    """Some lines of an answer."""

    lines: tuple[str, ...]

    def show(self) -> None:
        """Print them."""
        for line in self.lines:
            say(one_line(line))

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
        terminal = console()
        least = sum(widths[:-1]) + GAP * len(widths) + min(widths[-1], NARROWEST_LAST)
        terminal.width = max(terminal.width, least)
        terminal.print(Rows(columns, rows).drawn())
        return
    for line in (columns, *cells):
        say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """Give a value as text on one line that cannot move a terminal's cursor."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return moment(value)
    text = one_line(value if isinstance(value, str) else compact_json(value))
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def one_line(text: str) -> str:
    """Give a text as one line: a space where it begins another, an escape for what nobody would see as itself."""
    return visible(" ".join(text.split("\n")).replace("\t", " "))


def _styled(part: object) -> str:
    if isinstance(part, Styled):
        return click.style(visible(part.text), fg=part.colour, dim=part.dim or None, bold=part.bold or None)
    return visible(str(part))


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

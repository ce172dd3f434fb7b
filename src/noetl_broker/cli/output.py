"""The output of commands: tables for people (drawn on a terminal, plain in a pipe), JSON, progress bars.

Commands print only through this module, on stdout and stderr. It escapes control characters: names and messages come
from playbooks, producers and servers.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any, NamedTuple

import click
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from noetl_broker.explain.error_text import traceback_lines
from noetl_broker.text import clock, ids_as_text, moment, span
from noetl_broker.visible import visible, visible_json, visible_lines

__all__ = ["Lines", "Part", "Rows", "cell", "compact_json", "moment", "note", "say", "show_json", "span"]

LONGEST_CELL = 120  # characters
MOST_DRAWN = 2_000  # rows of a table; drawing takes a millisecond or more a row, so longer tables are plain
GAP, NARROWEST_FOLDED = 2, 10  # characters between columns; least width of a column that folds
STATUS_STYLES = {
    "COMPLETED": "green",
    "FAILED": "red",
    "QUEUED": "dim",
    "RUNNING": "cyan",
    "PAUSED": "yellow",
    "COMPENSATING": "yellow",
    "CANCELLED": "yellow",
    "dead": "red",
    "failed": "red",
    "leased": "cyan",
}


class Styled(NamedTuple):
    """A part of a line with a style on a terminal."""

    text: str
    colour: str | None = None
    dim: bool = False
    bold: bool = False


class SafeConsole(Console):
    """A console that escapes control characters in texts, but not its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Give the segments of a drawing."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible_lines(segment.text))


def can_ask() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def say(*parts: object, to_stderr: bool = False) -> None:
    """Print one line; newlines in its parts are escaped."""
    click.echo("".join(map(_styled, parts)), err=to_stderr)


def note(message: str) -> None:
    """Print a message for people on stderr."""
    say(message, to_stderr=True)


def show_text(text: str, *, newline: bool = True) -> None:
    """Print a text of several lines, such as a picture or a script."""
    click.echo(visible_lines(text), nl=newline)


def show_traceback() -> None:
    """Print the traceback of the current exception on stderr."""
    for line in traceback_lines(traceback.format_exc()):
        say(line, to_stderr=True)


def console(*, on_stderr: bool = False) -> Console:
    """Give a console for drawings on a terminal."""
    return SafeConsole(stderr=on_stderr)


def show_json(document: Any) -> None:
    """Print one JSON document that the broker made: ids as text, times in ISO 8601."""
    show_value(ids_as_text(document))


def show_value(value: Any) -> None:
    """Print a value that people gave as JSON: indented on a terminal, one line in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    click.echo(visible_json(json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)))


def show_json_line(document: Any) -> None:
    """Print a JSON document that the broker made on one line."""
    click.echo(compact_json(ids_as_text(document)))


def compact_json(value: Any, *, longest: int | None = None) -> str:
    """Give a value as JSON on one line, cut at `longest` characters."""
    text = visible_json(json.dumps(value, ensure_ascii=False, default=_plain))
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


class Lines(NamedTuple):
    """Lines of an answer."""

    lines: tuple[str, ...]

    def show(self) -> None:
        """Print them."""
        for line in self.lines:
            say(one_line(line))

    def drawn(self) -> Text:
        """Give them for a live display."""
        return Text("\n".join(map(one_line, self.lines)))


Field = str | Callable[[Any], Any]  # of a row: its name, or what gives it
Columns = Mapping[str, Field]  # of a table: the field of each by its head


class Rows(NamedTuple):
    """A table of an answer; None is an empty cell. On a terminal, `folding` columns fold if it is narrow."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    folding: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rows: Iterable[Any], columns: Columns, folding: frozenset[str] = frozenset()) -> Rows:
        """The table of documents."""
        fields = [each if callable(each) else itemgetter(each) for each in columns.values()]
        return cls([*columns], [[field(row) for field in fields] for row in rows], folding)

    def show(self) -> None:
        """Print it: drawn on a terminal, plain in a pipe."""
        if sys.stdout.isatty() and len(self.rows) <= MOST_DRAWN:
            terminal = console()
            terminal.width = max(terminal.width, sum(self._least_widths()) + GAP * len(self.columns))
            terminal.print(self.drawn())
            return
        cells = self._cells(None)
        widths = [max(map(len, column)) for column in zip(self.columns, *cells, strict=True)]
        for line in (self.columns, *cells):
            say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())

    def drawn(self) -> Table:
        """Draw for a terminal; only the last column and `folding` ones fold, so that ids stay whole.

        A moment of today is a time of day.
        """
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name, width in zip(self.columns, self._least_widths(), strict=True):
            table.add_column(name, overflow="fold", no_wrap=not self._folds(name), min_width=width)
        for texts in self._cells(datetime.now(UTC).date()):
            table.add_row(*(Text(text, style=STATUS_STYLES.get(text, "")) for text in texts))
        return table

    def _cells(self, today: date | None) -> list[list[str]]:
        return [[cell(value, today=today) for value in row] for row in self.rows]

    def _least_widths(self) -> list[int]:
        """The widths below which a terminal would cut columns."""
        return [
            min(width, NARROWEST_FOLDED) if self._folds(column[0]) else width
            for column in zip(self.columns, *self._cells(datetime.now(UTC).date()), strict=True)
            for width in [max(map(len, column))]
        ]

    def _folds(self, column: str) -> bool:
        return column == self.columns[-1] or column in self.folding


Part = Lines | Rows


def cell(value: Any, *, today: date | None = None) -> str:
    """Give a value as text on one line without control characters; a moment of `today` as a time of day."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        if today is None:
            return moment(value)
        at = value.astimezone(UTC)
        if at.date() == today:
            return f"{clock(at)}Z"
        return at.strftime("%m-%d %H:%MZ" if at.year == today.year else "%Y-%m-%d")
    text = one_line(value if isinstance(value, str) else compact_json(value))
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def one_line(text: str) -> str:
    """Give a text on one line: newlines and tabs become spaces, control characters escapes."""
    return visible(" ".join(text.split("\n")).replace("\t", " "))


def _styled(part: object) -> str:
    if isinstance(part, Styled):
        return click.style(visible(part.text), fg=part.colour, dim=part.dim or None, bold=part.bold or None)
    return visible(str(part))


def _plain(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else str(value)


@contextmanager
def progress_bar(total: int | None) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on a terminal's stderr (total None: no bar); yields a function that advances it."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("executions"),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console(on_stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        disable=total is None or not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("executions", total=total, pace="")

        def advance(count: int) -> None:
            progress.advance(task, count)
            speed = progress.tasks[0].speed
            progress.update(task, pace=f"{speed:.0f}/s" if speed else "")

        yield advance


def spinner(sentence: str) -> AbstractContextManager[object]:
    """Show a spinner on a terminal's stderr."""
    return console(on_stderr=True).status(sentence) if sys.stderr.isatty() else nullcontext()


def executions(number: int) -> str:
    """Give a number of executions: 1 execution, 2 executions."""
    return f"{number} execution" if number == 1 else f"{number} executions"

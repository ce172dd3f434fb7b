"""How long work shows that it goes on: on a terminal and only there, on stderr, beside what is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from noetl_broker.cli import output


@contextmanager
def bar(total: int | None) -> Iterator[Callable[[int], object]]:
    """Show how far it has got through so many executions (None: nothing is shown); yields what says how many more."""
    if total is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("executions"),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=output.console(on_stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        task = progress.add_task("executions", total=total, pace="")

        def advance(count: int) -> None:
            progress.advance(task, count)
            speed = progress.tasks[0].speed
            progress.update(task, pace=f"{speed:.0f}/s" if speed else "")

        yield advance


@contextmanager
def working(sentence: str) -> Iterator[None]:
    """Show that something goes on of which nobody knows how long it takes."""
    if not sys.stderr.isatty():
        yield
        return
    with output.console(on_stderr=True).status(sentence):
        yield

"""A mutant: one small change of a source text, at a place that has a name."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.mutation import python_changes, sql_changes

PYTHON_SHARE = 0.7


class Mutant(NamedTuple):
    """A change in a function or statement; the `ordinal`-th of this kind and these texts there."""

    file: str
    function: str
    kind: str
    before: str
    after: str
    ordinal: int

    def __str__(self) -> str:
        place = f"{self.file} {self.function}" + (f" #{self.ordinal + 1}" if self.ordinal else "")
        return f"{place} [{self.kind}] {_line(self.before)} -> {_line(self.after)}"


class Place(NamedTuple):
    """Where a mutant is in one version of its file: characters from `start` to `end`."""

    mutant: Mutant
    start: int
    end: int

    def changed(self, text: str) -> str:
        """Return the text with the change."""
        return text[: self.start] + self.mutant.after + text[self.end :]

    def lines(self, text: str) -> range:
        """Return the numbers of the lines that change."""
        first = text.count("\n", 0, self.start) + 1
        return range(first, first + text.count("\n", self.start, self.end) + 1)


def draw(root: Path, seed: int, count: int, share: float = PYTHON_SHARE) -> list[Mutant]:
    """Draw `count` mutants, each place with the same chance; `share` of them are of Python, the others of SQL."""
    chance = random.Random(seed)
    texts = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sources(root)}
    dead = sql_changes.replaced_functions({name: text for name, text in texts.items() if name.endswith(".sql")})
    python: list[Mutant] = []
    sql: list[Mutant] = []
    for name, text in texts.items():
        found = [place.mutant for place in places(name, text)]
        (python if name.endswith(".py") else sql).extend(m for m in found if (m.file, m.function) not in dead)
    of_python = round(count * share)
    return [*chance.sample(python, of_python), *chance.sample(sql, count - of_python)]


def sources(root: Path) -> list[Path]:
    """Return the files that are changed, in a fixed order."""
    package = root / "src" / "noetl_broker"
    return [
        *sorted(package.rglob("*.py")),
        *sorted((root / "migrations").glob("*.sql")),
        *sorted(package.rglob("*.sql")),
    ]


def places(file: str, text: str) -> Iterator[Place]:
    """Yield each possible mutant of a file with its place."""
    changes = python_changes.changes if file.endswith(".py") else sql_changes.changes
    seen: Counter[tuple[str, ...]] = Counter()
    for change in changes(text):
        key = (change.function, change.kind, text[change.start : change.end], change.after)
        yield Place(Mutant(file, *key, seen[key]), change.start, change.end)
        seen[key] += 1


def find(mutant: Mutant, text: str) -> Place | None:
    """Return the place of a mutant in this version of its file; None if it has none there."""
    return next((place for place in places(mutant.file, text) if place.mutant == mutant), None)


def _line(text: str, longest: int = 90) -> str:
    line = " ".join(text.split()) or "(nothing)"
    return line if len(line) <= longest else f"{line[: longest - 1]}…"

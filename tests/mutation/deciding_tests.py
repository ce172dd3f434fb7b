"""Chooses the tests that decide about a mutant: those that executed its line, as a coverage file with contexts says.

A named statement is decided by the tests of the Python lines that name it. A SQL function is decided by these too, by
those of the functions and statements that call it, and by test files that name it.
"""

from __future__ import annotations

import ast
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.mutation.mutants import Place, sources
from tests.mutation.sql_changes import functions

UNKNOWN_SECONDS = 1.0  # of a test whose duration nobody measured
FEW_TESTS = 20
FILE_SECONDS = 0.3  # to collect a file and set up what its tests share
NEAR_SHARE = 5  # so many tests of a near file come before the second one of another file
# The tests of a part of the program are in the folder of its name, or here.
NEAR = {
    "sql": ("tests/store", "tests/daemon"),
    "console": ("tests/console", "tests/api"),
    "operations": ("tests/console", "tests/cli"),
    "nodes.py": ("tests/broker",),
    "client.py": ("tests/store",),
}
# They start many other tests, or install packages.
LEFT_OUT = ("tests/mutation", "tests/test_matrix", "tests/packaging")
EXECUTED = """
select distinct c.context
from arc a join context c on c.id = a.context_id
where a.file_id = (select f.id from file f where f.path like '%/' || :file)
  and (a.fromno between :first and :last or a.tono between :first and :last)
"""
EVERY_LINE = range(1, 1_000_000)


class DecidingTests:
    """What the coverage of a whole run says about each line: an empty name stands for an import or another process."""

    def __init__(self, root: Path, coverage: Sequence[Path], durations: Path | None) -> None:
        texts = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sources(root)}
        self.python = {file: text for file, text in texts.items() if file.endswith(".py")}
        self.sql = {
            name: body for file, text in texts.items() if file.endswith(".sql") for name, body in functions(text)
        }
        tests = root.glob("tests/**/test_*.py")
        self.tests = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in tests}
        self.seconds = dict(_durations(durations)) if durations else dict.fromkeys(self.tests, UNKNOWN_SECONDS)
        self.coverage = coverage

    def of(self, place: Place, text: str, seconds: float) -> list[str]:
        """Return the ids of tests that take about `seconds` together; an empty list if no test executes the place."""
        file = place.mutant.file
        if file.endswith(".sql"):
            near, found = self.near_sql(place.mutant.function), self.of_sql(place.mutant.function)
        else:
            part = file.split("/")[2]
            near = NEAR.get(part, (f"tests/{part}",))
            found = self.executing(file, _statement(text, place.lines(text)))
            if self.coverage and not found:
                return []
            if not found - {""}:
                found = self.executing(file, EVERY_LINE)
            elif "" in found and len(found) < FEW_TESTS:  # mostly other processes execute it
                found |= self.in_folders(near, "")
        return self.chosen(found - {""} or self.in_folders(near, place.mutant.function), near, seconds)

    def in_folders(self, folders: tuple[str, ...], name: str) -> set[str]:
        """Return the tests of files that are named as the first word of a name, such as verify; or those of folders."""
        word = name.partition("_")[0]
        named = {test for test in self.seconds if word and f"test_{word}" in test.partition("::")[0]}
        return named or {test for test in self.seconds if test.startswith(folders)}

    def executing(self, file: str, lines: range) -> set[str]:
        """Return the tests that executed one of the lines, from the databases that the package coverage writes."""
        found: set[str] = set()
        for database in self.coverage:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                numbers = {"file": file, "first": lines.start, "last": lines.stop - 1}
                found.update(context.rpartition("|")[0] for (context,) in connection.execute(EXECUTED, numbers))
        return found

    def of_sql(self, name: str) -> set[str]:
        """Return the tests that execute a statement or a function, as far as texts tell."""
        found: set[str] = set()
        for user in self.users(name):
            named = re.compile(rf"[\"'. ]{re.escape(user)}[\"'(]")
            for file, text in self.python.items():
                for match in named.finditer(text):
                    line = text.count("\n", 0, match.start()) + 1
                    found |= self.executing(file, _statement(text, range(line, line + 1)))
            files = self.naming(user)
            found |= {test for test in self.seconds if test.split("::")[0] in files}
        return found

    def near_sql(self, name: str) -> tuple[str, ...]:
        """Return the test files that name a function, or else its first user that they name."""
        named = (self.naming(user) for user in self.users(name))
        return next((files for files in named if files), NEAR["sql"])

    def naming(self, function: str) -> tuple[str, ...]:
        """Return the test files that name a SQL function."""
        pattern = re.compile(rf"\b{re.escape(function)}\b")
        return tuple(file for file, text in self.tests.items() if "." in function and pattern.search(text))

    def users(self, name: str) -> list[str]:
        """Return the name, and the SQL functions and statements that use it or one of its users."""
        found = [name]
        for used in found:  # it grows meanwhile
            pattern = re.compile(rf"\b{re.escape(used if '.' in used else f'part.{used}')}\b")
            found += [other for other, body in self.sql.items() if other not in found and pattern.search(body)]
        return found

    def chosen(self, tests: Iterable[str], near: tuple[str, ...], seconds: float) -> list[str]:
        """Choose the quickest tests of each file, then the next ones of each, as many as fit into the time."""
        position: Counter[str] = Counter()
        ranked: list[tuple[int, bool, float, str]] = []
        for duration, test in sorted((self.seconds.get(test, UNKNOWN_SECONDS), test) for test in tests):
            file = test.split("::")[0]
            is_near = file.startswith(near)
            ranked.append((position[file] // (NEAR_SHARE if is_near else 1), not is_near, duration, test))
            position[file] += 1
        picked: list[str] = []
        files: set[str] = set()
        for _, _, duration, test in sorted(ranked):
            file = test.split("::")[0]
            cost = duration + FILE_SECONDS * (file not in files)
            if (cost <= seconds or not picked) and file in self.tests and not test.startswith(LEFT_OUT):
                seconds -= cost
                picked.append(test)
                files.add(file)
        return picked


def _statement(text: str, lines: range) -> range:
    """Return the lines of the statement around these lines, until their end: a long statement counts at its first."""
    statements = (
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.stmt) and node.lineno <= lines[0] <= (node.end_lineno or 0)
    )
    return range(max(statements), lines.stop)


def _durations(report: Path) -> Iterator[tuple[str, float]]:
    """Yield the id and the seconds of each test of a report in the format of JUnit."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
        yield f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}", float(case.get("time", 0))

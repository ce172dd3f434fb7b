"""Runs the tests that decide about a mutant, in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.mutation.mutants import Mutant, Place

NOT_COPIED = (".venv*", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "results")
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", re.MULTILINE)
NOT_FOUND = re.compile(r"^ERROR: (?:file or directory )?not found: .*?(tests/.*)$", re.MULTILINE)
SECONDS_TO_STOP = 10


class Result(NamedTuple):
    """What became of a mutant; `by` is the test that failed, or "timeout"."""

    mutant: Mutant
    outcome: str
    by: str = ""
    line: int = 0
    tests: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.outcome}: {self.mutant} (line {self.line})" + (f": {self.by}" if self.by else "")

    def row(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return self._asdict() | {"mutant": self.mutant._asdict()}

    @classmethod
    def read(cls, row: dict[str, Any]) -> Self:
        """Return the result of a `row`."""
        return cls(**row | {"mutant": Mutant(**row["mutant"])})


class Checkout:
    """A copy of the checkout, in which one file at a time is changed."""

    failing: set[str] = set()  # tests that fail without a mutant, here or in another copy # noqa: RUF012
    passing: set[str] = set()  # noqa: RUF012

    def __init__(self, root: Path, folder: Path, limit: float) -> None:
        shutil.copytree(root, folder, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
        (folder / ".venv").symlink_to(root / ".venv")
        self.folder = folder
        self.limit = limit
        self.written = int(time.time()) - 1_000_000

    def run(self, place: Place, text: str, tests: list[str]) -> Result:
        """Run the tests with the mutant. A test only counts if it passes without it."""
        began = time.monotonic()
        while tests := [test for test in tests if test not in self.failing]:
            code, output = self._with(place, text, tests)
            if code == 0:
                return self._result(place, text, "survived", "", tests, began)
            missing = [test for test in tests if test.startswith(tuple(NOT_FOUND.findall(output)))]
            if missing:
                tests = [test for test in tests if test not in missing]
                continue
            if code is None:
                if len(tests) > 1 and self._pytest(tests)[0] is None:
                    tests = tests[: len(tests) // 2]
                    continue
                return self._result(place, text, "found", "timeout", tests, began)
            if place.mutant.file.endswith(".sql") and "PostgresSyntaxError" in output:
                return self._result(place, text, "invalid", "PostgresSyntaxError", tests, began)
            failed = FAILED.search(output)
            if failed is None or failed[1] not in tests or self._passes(failed[1]):
                by = failed[1] if failed else f"exit code {code}: {output.strip()[-200:]}"
                return self._result(place, text, "found", by, tests, began)
        return self._result(place, text, "not covered", "", tests, began)

    def _with(self, place: Place, text: str, tests: list[str]) -> tuple[int | None, str]:
        self.write(place.mutant.file, place.changed(text))
        try:
            return self._pytest(tests)
        finally:
            self.write(place.mutant.file, text)

    def write(self, file: str, text: str) -> None:
        """Write a file with a time of its own: a compiled module of another text is not taken."""
        path = self.folder / file
        path.write_text(text, encoding="utf-8")
        self.written += 1
        os.utime(path, (self.written, self.written))

    def _passes(self, test: str) -> bool:
        """Whether a test passes without a mutant."""
        if test not in self.passing:
            (self.passing if self._pytest([test])[0] == 0 else self.failing).add(test)
        return test in self.passing

    def _pytest(self, tests: list[str]) -> tuple[int | None, str]:
        """Run tests until the first failure; returns exit code and output. The code is None if they take too long."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=line", *tests]
        environment = os.environ | {"PYTHONPATH": f"{self.folder / 'src'}{os.pathsep}{self.folder}"}
        with (self.folder / "output").open("w+", errors="replace") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            code = self._wait(process)
            output.seek(0)
            return code, output.read()

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """Wait for pytest; after the limit interrupt it, so that it stops its server, then kill its session."""
        with suppress(subprocess.TimeoutExpired):
            return process.wait(self.limit)
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_STOP)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None

    @staticmethod
    def _result(place: Place, text: str, outcome: str, by: str, tests: list[str], began: float) -> Result:
        return Result(place.mutant, outcome, by, place.lines(text)[0], len(tests), round(time.monotonic() - began, 1))

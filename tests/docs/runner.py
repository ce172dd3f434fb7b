"""Runs what a page shows, in the order of the page: shell commands, SQL, and calls with their output.

A command of the program runs in this process if its line is only that. Other lines run in a shell.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from noetl_broker.sql_text import split_statements
from tests.cli.conftest import Command, decide, write_playbook
from tests.docs.pages import BLOCK
from tests.postgres import Database, psycopg_connect

PATIENCE_SECONDS = 600
ID = re.compile(r"\b\d{17}\b")
CALL = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", re.MULTILINE)
VARIABLE = re.compile(r"(\w+)=([^\s']+|\$\(.*\))")
FREE_PARTS = {
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z": "TIME",
    r"\b\d+(\.\d+)? (ms|s|min|h|d)\b( \d+ (s|min|h)\b)?": "SPAN",
    r"\b\d{15,}\b": "ID",
    r"(?<= from )\S+(?= \(event)": "WORKER",
}


class PageRun:
    """A page's reader: a folder, mostly a database, and the ids of the executions that take the place of the page's.

    Each line or statement that names an id of the page takes the next of `ids`.
    """

    def __init__(self, command: Command, database: Database | None = None, *, decides: bool = True) -> None:
        """Without `decides`, the page itself has a broker."""
        self.command, self.database, self.decides = command, database, decides
        self.folder = command.folder
        self.ids: Iterator[str] = iter(())
        self.calls: list[tuple[str, str]] = []  # with their outputs
        self._environment = {**command.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._others: list[subprocess.Popen[bytes]] = []

    def register(self, body: str, path: str = "examples/story") -> None:
        """Register a playbook with this workload and workflow."""
        self.run(f"noetl-broker register {write_playbook(self.folder, body, path=path)}")

    def start(self, path: str) -> str:
        """Start an execution and let a broker decide; return its id."""
        return self.run(f"noetl-broker start {path}").strip()

    def aside(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something with the database that no page shows."""
        asyncio.run(work)

    def decide(self) -> None:
        """Let a broker decide all mail."""
        if self.database is not None and self.decides:
            decide(self.database)

    def page(self, text: str) -> str:
        """Run the commands and statements of a page; return what was printed."""
        printed = ""
        for form, block in BLOCK.findall(text):
            if form == "sh" or (form == "" and block.startswith("noetl-broker ")):
                printed += self.run(block)
            elif form == "sql":
                self.sql(block)
        return printed

    def calls_of(self, text: str) -> None:
        """Take the shown calls of a page, each with its output, for `shown`."""
        self.calls = [
            call for form, block in BLOCK.findall(text) if form in {"", "console"} for call in CALL.findall(block)
        ]

    def run(self, commands: str) -> str:
        """Run shell commands; the first that fails fails the test."""
        lines = commands.replace("\\\n", " ").splitlines()
        printed = "".join(self._line(line) for line in lines if line.strip() and not line.startswith("pip install"))
        self.decide()
        return printed

    def sql(self, statements: str) -> list[list[tuple[object, ...]]]:
        """Run statements; return the rows of each that has rows."""
        assert self.database is not None
        found = []
        with psycopg_connect(self.database, autocommit=True) as connection:
            for statement in split_statements(statements):
                cursor = connection.execute(self._with_ids(statement).encode())
                if cursor.description is not None:
                    found.append(cursor.fetchall())
        self.decide()
        return found

    def shown(self, beginning: str) -> None:
        """Run the next call of the page, which begins so, and compare its output: ids, times and padding are free."""
        call, text = self.calls.pop(0)
        assert call.startswith(beginning), call
        words = shlex.split(self._with_ids(call))
        answer = self.command(*words[1:])
        assert comparable(answer.stdout + answer.stderr) == comparable(text)
        self.decide()

    def close(self) -> None:
        """End what runs in the background."""
        for other in self._others:
            other.terminate()
            other.wait(PATIENCE_SECONDS)

    def _with_ids(self, text: str) -> str:
        return ID.sub(next(self.ids), text) if ID.search(text) else text

    def _line(self, line: str) -> str:
        line = self._with_ids(line)
        if found := VARIABLE.fullmatch(line):
            self._environment[found[1]] = self._shell(f'value={found[2]}; printf %s "$value"')
            return ""
        words = shlex.split(line, comments=True)
        if words[-1] == "&":
            return self._background(words[:-1])
        variables = dict(word.split("=", 1) for word in itertools.takewhile(lambda word: "=" in word, words))
        words = words[len(variables) :]
        if words[0] != "noetl-broker" or any(word in {"|", "||", "&&"} or "$" in word for word in words):
            return self._shell(line)
        file = None
        if words[-2] == ">":
            *words, _, file = words
        answer = self.command(*words[1:], **variables)
        assert (answer.exit_code, line) == (0, line), answer.output
        if file is None:
            return answer.stdout
        (self.folder / file).write_text(answer.stdout, encoding="utf-8")
        return ""

    def _background(self, words: list[str]) -> str:
        if words[0] == "noetl-broker":
            self.command.start(*words[1:])
        else:
            self._others.append(subprocess.Popen(words, cwd=self.folder, env=self._environment))
        return ""

    def _shell(self, line: str) -> str:
        answer = subprocess.run(
            ["/bin/sh", "-euc", line],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert (answer.returncode, line) == (0, line), answer.stderr + answer.stdout
        return answer.stdout


def comparable(text: str) -> list[str]:
    """Return the lines without free parts and the padding of tables."""
    for part, word in FREE_PARTS.items():
        text = re.sub(part, word, text)
    return [re.sub(r"(?<=\S)  +", "  ", line.rstrip()) for line in text.splitlines() if line.strip()]

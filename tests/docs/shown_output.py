"""Plays the execution that docs/troubleshoot.md and docs/recover.md show, and compares what commands print."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from noetl_broker.playbook.diagnostics import PlaybookRules
from tests.brokers import drain
from tests.cli.conftest import Command, write_playbook
from tests.docs.pages import code_blocks, read_page
from tests.postgres import Database, psycopg_connect

ID_ON_THE_PAGE = "95913832453505121"
PLAYBOOK = next(
    block for block in code_blocks(read_page("troubleshoot"), "yaml") if block.startswith("workload: {limit")
)
CALL = re.compile(r"^\$ noetl-broker (.*)\n((?:(?!\$ ).*\n?)*)", re.MULTILINE)
GET = "noetl.complete_job(queue_id, 'w1', attempts, '{\"temp\": 31, \"ok\": false}')"
LOG = "noetl.complete_job(queue_id, 'w1', attempts, '1')"
NEWS = "noetl.fail_job(queue_id, 'w1', attempts, '{\"message\": \"503 Service Unavailable\"}')"


def shown_calls(page: str) -> list[tuple[str, str]]:
    """Return each call of a page with the output that is shown below it."""
    blocks = [block for block in code_blocks(page, "") if block.startswith("$ ")]
    return [(call, text) for block in blocks for call, text in CALL.findall(block)]


def without_changing_parts(text: str) -> str:
    """Return the text with times, time spans and ids replaced by a word."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", "TIME", text)
    text = re.sub(r"\b\d+(\.\d+)? (ms|s|min|h|d)\b( \d+ (s|min|h)\b)?", "SPAN", text)
    return re.sub(r"\b\d{15,}\b", "ID", text)


def comparable_lines(text: str) -> list[str]:
    """Return the lines without changing parts, and without the padding of tables."""
    lines = without_changing_parts(text).splitlines()
    return [re.sub(r"(?<=\S)  +", "  ", line.rstrip()) for line in lines if line.strip()]


class Play:
    """The execution of the pages, advanced by a test."""

    def __init__(self, command: Command, database: Database, page: str) -> None:
        """Register the playbook and start it; a broker reads the start."""
        self.command, self.database = command, database
        self.calls: list[str] = []
        self._shown = shown_calls(page)
        command("register", write_playbook(command.folder, PLAYBOOK, path="examples/weather"))
        self.id = command("start", "examples/weather").stdout.strip()
        self.decide()

    def decide(self) -> None:
        """Let a broker decide and stop."""
        asyncio.run(drain(self.database, playbook_rules=PlaybookRules()))

    def sql(self, statement: str) -> None:
        """Run one statement."""
        with psycopg_connect(self.database, autocommit=True) as connection:
            connection.execute(statement.encode())

    def answer(self, step: str, call: str) -> None:
        """End the job of a step, and let a broker decide."""
        lease = (
            f"noetl.lease_jobs('w1', 1, 60, (select array_agg(node_type) from noetl.queue where node_name = '{step}'))"
        )
        self.sql(f"select {call} from {lease}")
        self.decide()

    def end_all_jobs(self) -> None:
        """Complete `get` and `log`, and fail `news`: the execution fails."""
        for step, call in (("get", GET), ("log", LOG), ("news", NEWS)):
            self.answer(step, call)

    def assert_shown(self, call: str) -> None:
        """Assert that the call prints what the page shows; the nth call is compared with its nth place."""
        shown = [text for each, text in self._shown if each == call][self.calls.count(call)]
        self.calls.append(call)
        answer = self.command(*_words(call.replace(ID_ON_THE_PAGE, self.id)))
        assert comparable_lines(answer.stdout + answer.stderr) == comparable_lines(shown)


def _words(arguments: str) -> Iterator[str]:
    for quoted, plain in re.findall(r"'([^']*)'|(\S+)", arguments):
        yield quoted or plain

"""What the page about operations shows of `explain`, `retry`, `fork` and the others is what they print."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from noetl_broker.playbook.findings import Rules
from tests.brokers import drain, running
from tests.chaos.swallow import Swallower
from tests.cli.conftest import Command, write_playbook
from tests.postgres import Database
from tests.roles import logins

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
ID_ON_THE_PAGE = "95913832453505121"
CALL = re.compile(r"^\$ noetl-broker (.*)\n((?:(?!\$ ).*\n?)*)", re.MULTILINE)
SHOWN = [
    (call, text)
    for block in re.findall(r"^```\n(\$ .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for call, text in CALL.findall(block)
]
(PLAYBOOK,) = re.findall(r"^```yaml\n(workload: \{limit.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def told(text: str) -> list[str]:
    """The lines without what is never twice the same: ids, times and spans."""
    return [re.sub(r"(?<=\S)  +", "  ", line.rstrip()) for line in told_text(text).splitlines() if line.strip()]


def told_text(text: str) -> str:
    """As `told`, with the lines as they are."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", "TIME", text)
    text = re.sub(r"\b\d+(\.\d+)? (ms|s|min|h|d)\b( \d+ (s|min|h)\b)?", "SPAN", text)
    return re.sub(r"\b\d{15,}\b", "ID", text)


class Play:
    """The execution of the page, moved on by its test."""

    def __init__(self, command: Command, database: Database) -> None:
        """Register the page's playbook and start it; a broker has read the start."""
        self.command, self.database = command, database
        self._calls: list[str] = []
        command("register", write_playbook(command.folder, PLAYBOOK, path="examples/weather"))
        self.id = command("start", "examples/weather").stdout.strip()
        self.decide()

    def decide(self) -> None:
        """Let a broker decide, which is then gone."""
        asyncio.run(drain(self.database, playbook_rules=Rules()))

    def sql(self, statement: str) -> None:
        """Run one statement."""
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    def answer(self, step: str, call: str) -> None:
        """End the job of a step, and let a broker decide."""
        lease = (
            f"noetl.lease_jobs('w1', 1, 60, (select array_agg(node_type) from noetl.queue where node_name = '{step}'))"
        )
        self.sql(f"select {call} from {lease}")
        self.decide()

    def shows(self, call: str) -> None:
        """Assert that the call prints what the page shows where it stands for the first time, or for the next."""
        shown = [text for each, text in SHOWN if each == call][self._calls.count(call)]
        self._calls.append(call)
        answer = self.command(*_words(call.replace(ID_ON_THE_PAGE, self.id)))
        assert told(answer.stdout + answer.stderr) == told(shown)


def _words(arguments: str) -> Iterator[str]:
    for quoted, plain in re.findall(r"'([^']*)'|(\S+)", arguments):
        yield quoted or plain


@pytest.fixture
def play(database: Database, tmp_path: Path) -> Play:
    """The execution of the page, at its beginning."""
    return Play(Command(tmp_path, database.dsn), database)


GET = "noetl.complete_job(queue_id, 'w1', attempts, '{\"temp\": 31, \"ok\": false}')"
LOG = "noetl.complete_job(queue_id, 'w1', attempts, '1')"
NEWS = "noetl.fail_job(queue_id, 'w1', attempts, '{\"message\": \"503 Service Unavailable\"}')"


def test_the_page_shows_what_explain_prints(play: Play) -> None:
    """Of an execution that waits, and of steps that did not run or wait."""
    play.answer("get", GET)
    play.answer("log", LOG)
    play.sql("select noetl.lease_jobs('w7', 1, 60, array['http'])")
    play.shows(f"explain {ID_ON_THE_PAGE}")
    play.shows(f"explain {ID_ON_THE_PAGE} alert")
    play.shows(f"explain {ID_ON_THE_PAGE} report")


def test_the_page_shows_how_mail_comes_back(play: Play) -> None:
    """Listed, put back, and put back once."""
    play.sql(
        """
        create function audit() returns trigger language plpgsql as $$
        begin raise exception 'the audit table is full'; end $$;
        create trigger audit after insert on noetl.turn for each row execute function audit()
        """
    )
    play.answer("get", GET)
    play.sql("drop trigger audit on noetl.turn")
    play.shows("dead-letters")
    play.shows(f"reevaluate {ID_ON_THE_PAGE}")
    play.shows(f"reevaluate {ID_ON_THE_PAGE}")


def test_the_page_shows_how_a_failed_execution_comes_back(play: Play) -> None:
    """Explained, retried, retried again, and forked with a result given by hand."""
    for step, call in (("get", GET), ("log", LOG), ("news", NEWS)):
        play.answer(step, call)
    play._calls.append(f"explain {ID_ON_THE_PAGE}")  # the page explains it while it runs, too
    play.shows(f"explain {ID_ON_THE_PAGE}")
    play.shows(f"retry {ID_ON_THE_PAGE}")
    play.shows(f"retry {ID_ON_THE_PAGE}")
    play.shows(f"fork {ID_ON_THE_PAGE} --from report --set 'news.result={{\"count\": 0}}'")


def test_the_page_shows_how_many_come_back(play: Play) -> None:
    """Counted first."""
    for step, call in (("get", GET), ("log", LOG), ("news", NEWS)):
        play.answer(step, call)
    play.shows("retry --failed-step news --since 2h")
    play.shows("retry --failed-step news --since 2h --yes")


def test_the_rights_on_the_page_are_enough_for_an_operator(play: Play, maintenance: psycopg.Connection) -> None:
    """For each command, as that role."""
    (grants,) = re.findall(r"^```sql\n(create role noetl_operator.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    name = f"operator_of_{play.database.name}"
    play.sql(grants.replace("noetl_operator", name))
    address = play.database.dsn.split("@", 1)[1]
    operator = Command(play.command.folder, f"postgresql://{name}:change%20me@{address}")
    for step, ending in (("get", GET), ("log", LOG), ("news", NEWS)):
        play.answer(step, ending)
    file = write_playbook(play.command.folder, PLAYBOOK.replace("limit: 25", "limit: 26"), path="examples/weather")
    set_news = ("--from", "report", "--set", 'news.result={"count": 0}')
    calls: tuple[tuple[str, ...], ...] = (
        ("explain", play.id),
        ("explain", play.id, "alert"),
        ("dead-letters",),
        ("reevaluate", play.id),
        ("retry", play.id),
        ("retry", "--all", "--yes"),
        ("fork", play.id, *set_news),
        ("fork", play.id, *set_news, "--playbook", str(file)),
    )
    try:
        for call in calls:
            answer = operator(*call)
            assert (answer.exit_code, call) == (0, call), answer.stderr
    finally:
        play.sql(f"drop owned by {name}")
        maintenance.execute(f"drop role {name}".encode())


def _looked_at(text: str) -> list[str]:
    """The lines of `doctor` without what is the server's own, and without what only a test's server is set to."""
    for own in (
        r"PostgreSQL \S+, database \S+ as \S+,",
        r"works as \d+",
        r"within \S+ s",
        r"version \d+",
        r"the role broker_1|the role noetl_broker_of_\S+",
    ):
        text = re.sub(own, "OWN", told_text(text))
    lines = re.sub(r"notice +durability.*\n.*\n.*\n", "", text).replace(", 1 notice", "").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


async def test_the_page_shows_what_doctor_prints(database: Database, tmp_path: Path) -> None:
    """Of a broker's login behind a pooler that swallows notifications."""
    (shown,) = [text for call, text in SHOWN if call == "doctor"]
    async with (
        logins(database) as those,
        running(those.broker),
        Swallower(those.broker, deaf=b"noetl-broker doctor", greets_as=1006156413) as pooler,
    ):
        answer = await asyncio.to_thread(Command(tmp_path, pooler.database.dsn).run, "doctor")
    assert _looked_at(answer.stdout) == _looked_at(shown)


def test_everything_that_the_page_shows_is_printed_by_a_test() -> None:
    """Those of the commands that this file is about."""
    calls = [call.split()[0] for call, _ in SHOWN if not call.startswith("replay")]
    assert (len(calls), {*calls}) == (13, {"explain", "dead-letters", "reevaluate", "retry", "fork", "doctor"})

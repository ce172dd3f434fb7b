"""`--json`: each command prints one document and nothing beside it, of what is there as of what is not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from noetl_broker.cli.group import COMMANDS
from noetl_broker.resources import playbooks_folder
from tests.cli.conftest import Command, decide
from tests.postgres import Database

FILE = playbooks_folder() / "conditional.yaml"
# With their option, these are tested where they serve: test_serving.py, test_demo.py.
SERVING = {"demo", "run", "worker"}
# Each command as it is called on a database where nothing has ever run; the code that it ends with stands last.
EMPTY = (
    ("migrate", 0), ("migrate --status", 0), ("migrate --sql", 0), ("migrate --roles", 0), ("validate FILE", 0),
    ("register FILE", 0), ("schema", 0), ("executions", 0), ("dead-letters", 0), ("retry --all", 0),
    ("reevaluate --all", 0), ("replay --all", 0), ("replay --all --against FILE", 0), ("verify", 0),
    ("verify --deep --all", 0), ("archive --older-than 1d --dry-run", 0), ("archive --older-than 1d", 0), ("doctor", 1),
    ("completion bash", 0), ("config", 0),
)  # fmt: skip
# And of an execution that waits for its first job.
OF_ONE = (
    ("start examples/conditional", 0), ("status ID", 0), ("events ID", 0), ("explain ID", 0), ("explain ID note", 0),
    ("graph ID", 0), ("graph examples/conditional", 0), ("replay ID", 0), ("replay ID --until turn:1", 0),
    ("replay ID --story", 0), ("replay ID --against FILE", 0), ("verify ID", 0), ("reevaluate ID", 0),
    ("fork ID --from measure", 0), ("cancel ID", 0),
)  # fmt: skip
# Errors are told on stderr alone.
REFUSED = (
    ("register nowhere.yaml", 2), ("start examples/nothing", 1), ("start examples/conditional --payload {", 2),
    ("explain ID nothing", 2), ("fork ID --from nothing", 2), ("retry ID", 1), ("replay", 2), ("archive", 2),
    ("archive --restore 20200101", 1), ("graph examples/nothing", 1),
    *((f"{name} 5", 1) for name in ("status", "events", "explain", "reevaluate", "retry", "graph", "replay", "verify")),
    ("cancel 5", 1), ("fork 5 --from measure", 1),
)  # fmt: skip


def words(call: str, started: str = "") -> Iterator[str]:
    """Give a call of the tables as a shell would."""
    places = {"FILE": str(FILE), "ID": started}
    for word in call.split():
        yield places.get(word, word)


@pytest.fixture
def started(command: Command, database: Database) -> str:
    """An execution that waits for its first job."""
    command("register", FILE)
    answer = command("start", "examples/conditional")
    decide(database)
    return answer.stdout.strip()


def test_every_command_is_here() -> None:
    """But for those that serve."""
    assert {call.split()[0] for call, _ in (*EMPTY, *OF_ONE)} == COMMANDS.keys() - SERVING


def test_each_command_prints_one_document_where_nothing_has_run(command: Command) -> None:
    """Of which there is mostly nothing to say."""
    for call, code in EMPTY:
        answer = command(*words(call), "--json")
        assert (call, answer.exit_code, answer.stderr) == (call, code, "")
        json.loads(answer.stdout)


def test_each_command_prints_one_document_of_an_execution(command: Command, started: str) -> None:
    """Which is cancelled last."""
    for call, code in OF_ONE:
        answer = command(*words(call, started), "--json")
        assert (call, answer.exit_code, answer.stderr) == (call, code, "")
        json.loads(answer.stdout)


def test_what_is_refused_is_one_sentence_and_no_document(command: Command, started: str) -> None:
    """With its code."""
    for call, code in REFUSED:
        answer = command(*words(call, started), "--json")
        assert (call, answer.exit_code, answer.stdout, answer.stderr.count("\n")) == (call, code, "", 1)

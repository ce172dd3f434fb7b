"""`--json`: each command prints one document and nothing else, also if there is nothing to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from noetl_broker.commands import COMMANDS
from noetl_broker.resources import playbooks_folder
from tests.cli.conftest import Command, decide
from tests.postgres import Database

FILE = playbooks_folder() / "conditional.yaml"
# tests/daemon/processes and test_dev.py test these with --json; tests/agents has `mcp`, whose stdout is a protocol.
SERVING = {"console", "demo", "dev", "mcp", "run", "worker"}
# test_approvals.py tests these with --json.
DECIDING = {"approve", "reject"}
# test_undo.py tests these with --json.
UNDOING = {"undo", "abandon"}
# The call of each command on a database without executions, and its exit code.
EMPTY = (
    ("migrate", 0), ("migrate --status", 0), ("migrate --sql", 0), ("migrate --roles", 0), ("validate FILE", 0),
    ("register FILE", 0), ("schema", 0), ("executions", 0), ("stats", 0), ("workers", 0),
    ("dead-letters", 0), ("retry --all", 0),
    ("reevaluate --all", 0), ("replay --all", 0), ("replay --all --against FILE", 0), ("verify", 0),
    ("verify --deep --all", 0), ("archive --older-than 1d --dry-run", 0), ("archive --older-than 1d", 0), ("doctor", 1),
    ("completion bash", 0), ("config", 0), ("schedule list", 0), ("step-type list", 0), ("pause --all", 0),
    ("resume --all", 0),
    ("cancel --all", 0), ("erase --all", 0), ("fork --all --from measure", 0), ("pause --path examples/conditional", 0),
    ("resume --path examples/conditional", 0), ("approvals", 0),
    ("signal payment --key 42 --payload 5", 0), ("token create ci --role viewer", 0), ("token list", 0),
    ("limit put api --concurrency 5", 0), ("limit list", 0), ("limit list api", 0), ("limit delete api", 0),
)  # fmt: skip
# The calls about an execution that waits for its first job.
OF_ONE = (
    ("start examples/conditional", 0), ("status ID", 0), ("events ID", 0), ("explain ID", 0), ("explain ID note", 0),
    ("logs ID", 0), ("stats examples/conditional", 0),
    ("graph ID", 0), ("graph examples/conditional", 0), ("replay ID", 0), ("replay ID --until turn:1", 0),
    ("replay ID --story", 0), ("replay ID --against FILE", 0), ("verify ID", 0), ("reevaluate ID", 0),
    ("fork ID --from measure", 0), ("schedule put s examples/conditional --every 1d", 0), ("schedule show s", 0),
    ("schedule next s", 0), ("schedule pause s", 0), ("schedule resume s", 0), ("schedule backfill s --from 5d", 0),
    ("schedule backfill s --from 5d --yes", 0), ("schedule delete s", 0), ("pause ID", 0), ("resume ID", 0),
    ("signal go --execution ID", 0), ("erase ID", 0), ("cancel ID", 0),
)  # fmt: skip
NO_EXECUTION = "noetl-broker: no execution 5; noetl-broker executions lists them\n"
NO_SCHEDULE = "no schedule s; noetl-broker schedule list lists them\n"
# What commands refuse of an unknown name, and of a call that lacks something. Errors are printed on stderr only.
REFUSED = (
    *((f"{name} 5", 1, NO_EXECUTION) for name in (
        "status", "events", "explain", "logs", "graph", "replay", "verify", "reevaluate", "retry",
        "fork --from measure", "pause", "resume", "cancel", "undo", "abandon", "erase", "signal go --execution",
    )),
    *((f"{name} 5 a", 1, "there is no execution 5; noetl-broker approvals lists") for name in ("approve", "reject")),
    *((f"{name} examples/nothing", 1, "no playbook examples/nothing is registered") for name in ("start", "graph")),
    *((f"schedule {call}", 1, NO_SCHEDULE) for call in ("show s", "backfill s --from 5d", "delete s")),
    ("explain ID nothing", 2, "playbook examples/conditional has no step nothing; known are: start, measure, warn"),
    ("fork ID --from nothing", 2, "playbook examples/conditional has no step nothing; known are"),
    ("logs ID nothing", 1, "execution ID has no step nothing; its steps are start, measure, warn, note, end\n"),
    ("register nowhere.yaml", 2, "the file nowhere.yaml cannot be read: No such file or directory"),
    ("start examples/conditional --payload {", 2, "the payload in --payload is not JSON: Expecting property name"),
    ("retry ID", 1, "ID is RUNNING and has no dead letters; noetl-broker explain ID says what it waits for\n"),
    ("undo ID", 1, "has not ended, it is RUNNING; noetl-broker cancel ID ends it, and undoes what it did\n"),
    ("abandon ID", 1, "ID is RUNNING; only an undo can be abandoned; noetl-broker cancel ID ends it"),
    ("replay", 2, "replay needs the id of an execution, a filter (see replay --help) or --all"),
    ("archive", 2, "archive needs --older-than, for example --older-than 90d"),
    ("archive --older-than 1d --restore 20250101", 2, "archive takes either --restore or --older-than"),
    ("archive --restore 20200101", 1, "there is no period 20200101; noetl-broker archive --older-than 90d --dry-run"),
    ("limit list api", 1, "there is no limit api; noetl-broker limit list names them"),
    ("limit put api", 2, "throttle api has neither a concurrency nor a rate; give one of them, or both"),
    ("token revoke ci", 1, "there is no token 'ci'; noetl-broker token list lists them"),
    ("token create ci", 2, "token create needs --role: viewer, producer, approver, author, operator"),
    ("signal go", 2, "give one of --key and --execution"),
    ("signal go --key 1 --payload {", 2, "the payload in --payload is not JSON"),
    ("pause --path x", 1, "no playbook x is registered; noetl-broker register FILE adds a playbook to the catalog\n"),
    ("pause --path x*", 2, "and x* is a pattern; add --status running to pause executions\n"),
    ("pause --path x --yes", 2, "--yes is for executions, and --path x alone names none; add --status to"),
    ("resume --path x --limit 1", 2, "--limit is for executions, and --path x alone names none"),
    ("schedule put s nowhere --every 1d", 1, "no playbook nowhere is registered"),
    ("schedule put s examples/conditional", 2, "the schedule s: it has neither cron nor every; give one of them"),
)  # fmt: skip


LARGEST_NUMBER = 2**53  # JavaScript and jq round larger ones


def read(document: str) -> Any:
    """Read a document; fails at an id that is a number."""
    return json.loads(document, parse_int=_small, object_hook=_without_ids)


def _small(digits: str) -> int:
    assert int(digits) <= LARGEST_NUMBER, digits
    return int(digits)


def _without_ids(found: dict[str, Any]) -> dict[str, Any]:
    assert [name for name, value in found.items() if name.endswith("_id") and type(value) is int] == []
    return found


def words(call: str, started: str = "") -> Iterator[str]:
    """Give the arguments of a call, as a shell would."""
    places = {"FILE": str(FILE), "ID": started}
    for word in call.split():
        yield places.get(word, word)


@pytest.fixture
def started(command: Command, database: Database) -> str:
    """Give an execution that waits for its first job."""
    command("register", FILE)
    answer = command("start", "examples/conditional")
    decide(database)
    return answer.stdout.strip()


def test_every_command_is_tested_for_json() -> None:
    """Except services, and those that need a question for a person, or an undo."""
    assert {call.split()[0] for call, _ in (*EMPTY, *OF_ONE)} == COMMANDS.keys() - SERVING - DECIDING - UNDOING


def test_each_command_prints_one_document_on_an_empty_database(command: Command) -> None:
    """Mostly an empty one."""
    for call, code in EMPTY:
        answer = command(*words(call), "--json")
        assert (call, answer.exit_code, answer.stderr) == (call, code, "")
        read(answer.stdout)


def test_each_command_prints_one_document_of_an_execution(command: Command, started: str) -> None:
    """The last call cancels it."""
    for call, code in OF_ONE:
        answer = command(*words(call, started), "--json")
        assert (call, answer.exit_code, answer.stderr) == (call, code, "")
        read(answer.stdout)


def test_an_id_in_a_payload_stays_a_number(command: Command, database: Database) -> None:
    """Only ids that the broker makes are text."""
    command("register", FILE)
    started = command("start", "examples/conditional", "--payload", '{"customer_id": 7}').stdout.strip()
    decide(database)
    events = command.json("events", started)
    assert events[0]["execution_id"] == started
    assert events[0]["context"]["workload"]["customer_id"] == 7


def test_an_error_prints_no_document(command: Command, started: str) -> None:
    """It is one line, and exits with its code."""
    for call, code, said in REFUSED:
        answer = command(*words(call, started), "--json")
        found = (answer.exit_code, answer.stdout, answer.stderr.count("\n"))
        assert (call, *found) == (call, code, "", 1)
        assert said.replace("ID", started) in answer.stderr

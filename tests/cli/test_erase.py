"""`erase`, and what other commands say of an execution that was erased."""

from __future__ import annotations

import asyncio

from tests.brokers import drain, start
from tests.cli.conftest import FETCH, Command, write_playbook
from tests.postgres import Database
from tests.undos import work

MARK = "ann.marker@example.org"


def ended(command: Command, database: Database, count: int = 1) -> list[int]:
    """Let executions of one job end; give their ids."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    made = asyncio.run(start(database, "examples/fetch", {"who": MARK}, count=count))
    asyncio.run(work(database))
    return made


def test_erase_asks_before_it_acts(command: Command, database: Database) -> None:
    """Of an id, of several, and of a filter. What was erased is not found by the filter again."""
    one, *others = ended(command, database, 3)
    [live] = asyncio.run(start(database, "examples/fetch"))
    asyncio.run(drain(database))
    shown = command("erase", one)
    assert "erases it" in shown.stdout
    assert "executions are erased: 1 execution; nothing was done, --yes does it" in shown.stdout
    refused = command("erase", live)
    assert "it has not ended: it is RUNNING" in refused.stdout
    assert command("erase", live, "--yes").exit_code == 1
    assert "executions are erased: 1 of 1 execution\n" in command("erase", one, "--yes").stdout
    document = command.json("erase", "--path", "examples/*", "--yes")
    assert sorted(int(each["execution_id"]) for each in document["done"]) == others
    assert command("erase", "--path", "examples/*").stdout == "no execution is left to be erased\n"


def test_commands_show_what_is_left(command: Command, database: Database) -> None:
    """They name the erasure where they need a value, and print none."""
    [one] = ended(command, database)
    command("erase", one, "--yes")
    calls = {
        ("status", one): (0, "erased at "),
        ("executions",): (0, "COMPLETED"),
        ("events", one): (0, "step_completed"),
        ("logs", one): (0, ""),
        ("graph", one): (0, "fetch"),
        ("explain", one): (0, "its values were erased at "),
        ("explain", one, "fetch"): (0, "its values were erased at "),
        ("verify", one, "--deep"): (0, ""),
        ("replay", "--all"): (0, "0 different, 1 erased"),
        ("replay", one): (1, f"execution {one} was erased"),
        ("fork", one, "--from", "fetch"): (1, f"execution {one} was erased"),
        ("undo", one): (1, f"execution {one} was erased"),
        ("erase", one, "--yes"): (0, "executions are erased: 1 of 1"),
    }
    for call, (code, words) in calls.items():
        answer = command(*call)
        assert (answer.exit_code, words in answer.output, MARK in answer.output) == (code, True, False), answer.output

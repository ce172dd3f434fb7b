"""docs/recover.md: its commands print what it shows, and an operator's rights are enough for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from noetl_broker.store.migrations import create_roles
from tests.cli.conftest import Command, write_playbook
from tests.docs.pages import code_blocks, read_page
from tests.docs.shown_output import GET, ID_ON_THE_PAGE, PLAYBOOK, Play, comparable_lines, shown_calls
from tests.postgres import Database
from tests.undos import ORDER, work

PAGE = read_page("recover")


@pytest.fixture
def play(database: Database, tmp_path: Path) -> Play:
    """The execution of the page, at its start."""
    return Play(Command(tmp_path, database.dsn), database, PAGE)


def test_reevaluate_gives_dead_letters_back(play: Play) -> None:
    """They are listed, given back, and then gone."""
    play.sql(
        """
        create function audit() returns trigger language plpgsql as $$
        begin raise exception 'the audit table is full'; end $$;
        create trigger audit after insert on noetl.turn for each row execute function audit()
        """
    )
    play.answer("get", GET)
    play.sql("drop trigger audit on noetl.turn")
    play.assert_shown("dead-letters")
    play.assert_shown(f"reevaluate {ID_ON_THE_PAGE}")
    play.assert_shown(f"reevaluate {ID_ON_THE_PAGE}")


def test_a_failed_execution_is_retried_and_forked(play: Play) -> None:
    """It is explained, retried, retried again, and forked with a given result."""
    play.end_all_jobs()
    play.assert_shown(f"explain {ID_ON_THE_PAGE}")
    play.assert_shown(f"retry {ID_ON_THE_PAGE}")
    play.assert_shown(f"retry {ID_ON_THE_PAGE}")
    play.assert_shown(f"fork {ID_ON_THE_PAGE} --from report --set 'news.result={{\"count\": 0}}'")


def test_many_failed_executions_are_counted_and_retried(play: Play) -> None:
    """Only `--yes` retries them."""
    play.end_all_jobs()
    play.assert_shown("retry --step news --since 2h")
    play.assert_shown("retry --step news --since 2h --yes")


def test_what_was_left_is_undone(tmp_path: Path, database: Database) -> None:
    """The page shows the answer of `undo`."""
    command = Command(tmp_path, database.dsn)
    command("register", write_playbook(tmp_path, ORDER, path="examples/order"))
    execution = command("start", "examples/order").stdout.strip()
    asyncio.run(work(database, failing=("ship", "charge!undo")))
    [shown] = [text for call, text in shown_calls(PAGE) if call == f"undo {ID_ON_THE_PAGE}"]
    answer = command("undo", execution)
    assert comparable_lines(answer.stdout + answer.stderr) == comparable_lines(shown)


def test_each_shown_output_has_a_test() -> None:
    """A call that is added to the page needs one."""
    calls = [call.split()[0] for call, _ in shown_calls(PAGE)]
    assert (len(calls), {*calls}) == (10, {"explain", "dead-letters", "reevaluate", "retry", "fork", "undo"})


def test_the_rights_of_an_operator_are_enough(play: Play, maintenance: psycopg.Connection) -> None:
    """Each command runs with that role."""
    [grants] = code_blocks(PAGE, "sql")
    name = f"operator_of_{play.database.name}"
    asyncio.run(create_roles(play.database))
    play.sql(grants.replace("operator_1", name))
    address = play.database.dsn.split("@", 1)[1]
    operator = Command(play.command.folder, f"postgresql://{name}:change%20me@{address}")
    play.end_all_jobs()
    file = write_playbook(play.command.folder, PLAYBOOK.replace("limit: 25", "limit: 26"), path="examples/weather")
    assert play.command("register", str(file)).exit_code == 0
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
        unknown = write_playbook(
            play.command.folder, PLAYBOOK.replace("limit: 25", "limit: 27"), path="examples/weather"
        )
        refused = operator("fork", play.id, *set_news, "--playbook", str(unknown))
        assert (refused.exit_code, "only the owner of the schema may register it" in refused.stderr) == (77, True)
    finally:
        play.sql(f"drop owned by {name}")
        maintenance.execute(f"drop role {name}".encode())

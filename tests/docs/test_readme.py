"""README.md: its playbook, its commands and its outputs are real."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from noetl_broker.playbook import PlaybookRules, check
from tests.cli.conftest import Command, decide, rows
from tests.docs.pages import code_blocks
from tests.docs.shell import run_script
from tests.docs.shown_output import without_changing_parts
from tests.postgres import Database
from tests.running_dev import RunningDev, folder_for_every_account
from tests.test_tidy import ROOT

PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
[PLAYBOOK] = code_blocks(PAGE, "yaml")
INSTALL, START = code_blocks(PAGE, "sh")
DEV, EXPLAIN = code_blocks(PAGE, "console")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the playbook."""
    (tmp_path / "order.yaml").write_text(PLAYBOOK, encoding="utf-8")
    return tmp_path


def test_the_playbook_is_short_and_valid() -> None:
    """Ten lines, and no finding of `validate`."""
    assert len(PLAYBOOK.splitlines()) == 10
    assert check(PLAYBOOK, file="order.yaml", rules=PlaybookRules()) == ()


def test_the_playbook_runs_in_a_folder_of_ones_own() -> None:
    """The first command installs the program; the test has done so."""
    install, folder_of, dev = INSTALL.splitlines()
    assert (install.split()[0], folder_of.split()[0], dev) == ("pip", "cd", "noetl-broker dev")
    with folder_for_every_account() as folder:
        (folder / "order.yaml").write_text(PLAYBOOK, encoding="utf-8")
        command = Command(folder, None)
        running = RunningDev(command)
        assert run_script(START, folder).stdout.splitlines()[-1] == '"not reviewed"'
        assert running.end(signal.SIGINT) == 0
        command.close()


def test_explain_prints_what_is_shown(database: Database, folder: Path) -> None:
    """Except for ids."""
    command = Command(folder, database.dsn)
    command("register", folder / "order.yaml")
    execution_id = command("start", "examples/order", "--payload", '{"amount": 200}').stdout.strip()
    decide(database)
    complete = "select noetl.complete_job(queue_id, 'w1', attempts, '{\"risk\": 0.2}') from noetl.lease_jobs('w1')"
    assert rows(database, complete) == [(True,)]
    decide(database)
    call, shown = EXPLAIN.split("\n", 1)
    assert call == "$ noetl-broker explain 96217895280836641 review"
    answer = command("explain", execution_id, "review")
    assert _comparable(answer.stdout) == _comparable(shown)


def _comparable(text: str) -> str:
    return re.sub(r"from \S+ \(event", "from WORKER (event", without_changing_parts(text))


def test_dev_prints_what_is_shown() -> None:
    """Except for the password and the ports."""
    call, _dots, *shown = DEV.splitlines()
    assert call == "$ make dev"
    with folder_for_every_account() as folder:
        command = Command(folder, None)
        running = RunningDev(command, ROOT / "playbooks", "--home", ".")
        assert _without_places("\n".join(shown)) in _without_places(running.start)
        assert running.end(signal.SIGINT) == 0
        command.close()


def _without_places(text: str) -> str:
    text = re.sub(r"\S*/noetl-broker", "noetl-broker", text)
    return re.sub(r":\d+\b", ":PORT", re.sub(r":[^:@/\s]+@", ":PASSWORD@", text))


def test_the_commands_of_make_are_targets() -> None:
    """`make dev`, `make demo` and `make test`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("dev", "demo", "test"):
        assert f"make {target}" in PAGE
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)

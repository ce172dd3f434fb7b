"""`dev` runs all that a folder of playbooks needs, and ends with all of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from noetl_broker.dev.watch import FileChanges, Watcher, scan
from tests.cli.conftest import PATIENCE_SECONDS, Command, write_playbook
from tests.running_dev import RunningDev, folder_for_every_account

QUERY = "workflow: [{step: start, type: postgres, command: 'select 6 * 7 as answer'}]\n"
FIRST_PLAYBOOK = """\
apiVersion: noetl.io/v1
kind: Playbook
metadata: {path: examples/hello}
workflow: [{step: start, type: python, code: "def main(): return 'Hello'"}]
"""
DEFAULT_PORT = 8080
ON_ONE_LINE = (
    '{"apiVersion": "noetl.io/v1", "kind": "Playbook", "metadata": {"path": "a/b"}, "workflow": [{"step": "start"}]}'
)
BROKEN = "workflow: [{step: start, next: nowhere}]\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder for one test."""
    with folder_for_every_account() as path:
        yield path


@pytest.fixture(scope="module")
def running() -> Iterator[RunningDev]:
    """Yield a `dev` that all tests share; its folder has a playbook, two in subfolders, a broken one and others."""
    with folder_for_every_account() as folder:
        (folder / "nested" / "deeper").mkdir(parents=True)
        (folder / "hello.yaml").write_text(FIRST_PLAYBOOK, encoding="utf-8")
        (folder / "nested" / "b.JSON").write_text(ON_ONE_LINE, encoding="utf-8")
        others = {"compose.yaml": "services: {}\n", "package.json": '{"name": "shop",\n"workflow": []}'}
        for name in (".hidden/c.yaml", "node_modules/d.yaml", "venv/e.yaml", "venv/pyvenv.cfg"):
            others[name] = FIRST_PLAYBOOK.replace("hello", "other")
        for name, text in others.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "nested" / "back").symlink_to(folder)
        write_playbook(folder / "nested" / "deeper", QUERY, path="examples/query")
        write_playbook(folder / "nested", BROKEN, path="examples/broken")
        command = Command(folder, None)
        dev = RunningDev(command)
        yield dev
        assert dev.end(signal.SIGTERM) == 0
        assert not (folder / ".noetl" / "postgres" / "data" / "postmaster.pid").exists()
        command.close()


def test_findings_of_one_playbook_do_not_stop_the_others(running: RunningDev) -> None:
    """Other YAML files are no playbooks. The next commands are printed."""
    lines = running.start.splitlines()
    assert [line.split(": ")[:2] for line in lines if line.startswith("nested/")] == [
        ["nested/broken.yaml:4:32", "error"]
    ]
    assert "3 playbooks registered (3 new): examples/hello, a/b, examples/query" in lines
    assert "not registered: nested/broken.yaml" in lines
    assert len([line for line in lines if line.startswith("  ") and " explain " in line]) == 1


def test_another_terminal_needs_no_dsn(running: RunningDev) -> None:
    """`config` shows where it comes from. A `postgres` step uses that database, too."""
    inside = Command(running.command.folder / "nested", None)
    answer = inside.run("start", "examples/query", "--wait", "--json")
    assert json.loads(answer.stdout)["result"]["rows"] == [{"answer": 42}]
    rows = {row["name"]: row for row in json.loads(inside.run("config", "--json").stdout)}
    assert rows["dsn"]["source"] == f"file {running.command.folder / '.noetl' / 'dsn'}"


def test_the_printed_address_signs_in(running: RunningDev) -> None:
    """Nobody else of this machine is let in: without its token, or with a wrong one."""
    url = _console(running)
    base = url.partition("/?token=")[0]
    with httpx.Client(base_url=base, timeout=PATIENCE_SECONDS, follow_redirects=True) as client:
        before = [client.get("/api/v1/executions"), client.get("/?token=nbt_wrong")]
        entered = client.get(url)
        after = client.get("/api/v1/executions")
    assert [answer.status_code for answer in (*before, entered, after)] == [401, 401, 200, 200]
    assert str(entered.url) == f"{base}/"


def test_a_saved_playbook_is_registered(running: RunningDev) -> None:
    """With its version, an edit that is taken back too; a broken one is refused with its findings, the last stays."""
    file = running.command.folder / "hello.yaml"
    file.write_text(FIRST_PLAYBOOK.replace("Hello", "Good day"), encoding="utf-8")
    running.read_until("hello.yaml: registered examples/hello version 2")
    file.write_text(FIRST_PLAYBOOK, encoding="utf-8")
    running.read_until("hello.yaml: registered examples/hello version 3")
    file.write_text(FIRST_PLAYBOOK.replace("start", "begin"), encoding="utf-8")
    assert "hello.yaml:4:" in running.read_until("hello.yaml: not registered")
    assert running.command.run("start", "examples/hello", "--wait").stdout.splitlines()[-1] == '"Hello"'


def test_a_playbook_is_registered_when_its_step_type_is_announced(running: RunningDev) -> None:
    """Nobody has to save it again. A renamed file keeps its path."""
    own = "workflow: [{step: start, type: ship, to: Oslo}]\n"
    write_playbook(running.command.folder, own, path="examples/ship")
    running.read_until("ship.yaml: not registered")
    assert running.command.run("step-type", "add", "ship").returncode == 0
    running.read_until("ship.yaml: registered examples/ship version 1")
    file = running.command.folder / "ship.yaml"
    file = file.rename(running.command.folder / "sail.yaml")
    file.write_text(f"{file.read_text(encoding='utf-8')}# renamed\n", encoding="utf-8")
    running.read_until("sail.yaml: registered examples/ship version 2")


def test_a_path_belongs_to_one_file(running: RunningDev) -> None:
    """Otherwise each save of one would replace the other."""
    file = running.command.folder / "twin.yaml"
    file.write_text((running.command.folder / "nested" / "deeper" / "query.yaml").read_text(), encoding="utf-8")
    answer = running.read_until("twin.yaml: not registered")
    assert answer.splitlines()[0] == (
        "twin.yaml: error: nested/deeper/query.yaml has the path examples/query; change metadata.path in one of them"
    )
    file.unlink()


def test_a_second_dev_in_the_folder_is_refused(running: RunningDev) -> None:
    """One sentence names the process and the remedy. Git ignores the folder; only our account reads DSN and token."""
    folder = running.command.folder / ".noetl"
    assert (folder / ".gitignore").read_text().splitlines()[-1] == "*"
    assert [(folder / name).stat().st_mode & 0o777 for name in ("dsn", "console_token")] == [0o600] * 2
    answer = running.command.run("dev")
    place, process_id = running.command.folder / ".noetl", running.process.pid
    sentence = f"dev already runs on {place} (process {process_id}): use that one, or end it with Ctrl-C or kill -TERM"
    assert (answer.returncode, answer.stderr) == (2, f"noetl-broker: {sentence}\n")


def test_a_kill_leaves_no_process_and_the_next_start_recovers(folder: Path) -> None:
    """At once, while the old Postgres may still stop. The data are kept until `--fresh`; so are port and token.

    An older text does not replace a newer version: one line says so, with the command that replaces it.
    """
    (folder / "hello.yaml").write_text(FIRST_PLAYBOOK, encoding="utf-8")
    command = Command(folder, None)
    with _default_port_taken():
        dev = RunningDev(command)
    assert command.run("start", "examples/hello", "--wait").returncode == 0
    (folder / "hello.yaml").write_text(f"{FIRST_PLAYBOOK}# better\n", encoding="utf-8")
    dev.read_until("registered examples/hello version 2")
    processes = _processes_of(folder)
    assert len(processes) > 1
    dev.process.kill()
    dev.process.wait(PATIENCE_SECONDS)
    (folder / "hello.yaml").write_text(FIRST_PLAYBOOK, encoding="utf-8")
    again = RunningDev(command)
    assert _have_ended(processes)
    kept = "has the text of version 1 of examples/hello, and the newer version 2 stays; noetl-broker register"
    assert kept in again.start
    assert _console(again) == _console(dev)
    assert f":{DEFAULT_PORT}/" not in _console(dev)
    assert len(json.loads(command.run("executions", "--json").stdout)) == 1
    assert again.end(signal.SIGINT) == 0
    answer = command.run("executions")
    assert (answer.returncode, f"is noetl-broker dev running in {folder}?" in answer.stderr) == (69, True)
    fresh = RunningDev(command, "--fresh")
    assert "1 playbook registered (1 new)" in fresh.start
    assert _console(fresh).partition("/?token=")[2] != _console(dev).partition("/?token=")[2]
    assert fresh.end(signal.SIGTERM) == 0
    command.close()


@contextlib.contextmanager
def _default_port_taken() -> Iterator[None]:
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # another program has it already
            held.enter_context(socket.create_server(("127.0.0.1", DEFAULT_PORT)))
        yield


def _console(dev: RunningDev) -> str:
    [url] = re.findall(r"console +(http://127\.0\.0\.1:\d+/\?token=\S+)", dev.start)
    return str(url)


def test_an_empty_folder_shows_a_first_playbook(folder: Path) -> None:
    """Saved, it is registered, and the command that starts it is printed."""
    command = Command(folder, None)
    dev = RunningDev(command)
    assert FIRST_PLAYBOOK in dev.start
    (folder / "hello.yaml").write_text(FIRST_PLAYBOOK, encoding="utf-8")
    dev.read_until("start examples/hello --wait")
    assert dev.end(signal.SIGTERM) == 0  # a Postgres that still ends writes into the folder
    command.close()


def test_dev_prints_its_places_as_one_json_document(folder: Path) -> None:
    """When everything runs. Findings are no part of it."""
    write_playbook(folder, BROKEN, path="examples/broken")
    command = Command(folder, None)
    process = command.start("dev", "--json")
    assert process.stdout is not None
    document = json.loads(process.stdout.readline())
    assert (document["folder"], document["home"]) == (str(folder), str(folder / ".noetl"))
    headers = {"Authorization": f"Bearer {document['token']}"}
    answer = httpx.get(f"{document['console']}/api/v1/executions", headers=headers, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    # Another program may have the default port, such as a test of another run.
    found = [line.split(" error:")[0] for line in err.splitlines() if "another program has port" not in line]
    assert (process.returncode, out, found) == (0, "", ["broken.yaml:4:32:"])
    command.close()


def test_a_wrong_call_is_refused(lone_command: Command) -> None:
    """Nothing is made."""
    lone_command.refuses(
        [
            ("--dsn postgresql://x", 2, "dev starts a Postgres of its own: leave --dsn out"),
            ("nowhere", 2, "there is no folder nowhere: name the folder of your playbooks"),
        ],
        "dev",
    )


def _processes_of(folder: Path) -> list[int]:
    """Give the processes that name the folder in their command line, or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                used = (entry / "cmdline").read_bytes() + os.fsencode((entry / "cwd").readlink())
            except OSError:
                continue
            if os.fsencode(folder) in used:
                found.append(int(entry.name))
    return found


def _have_ended(processes: list[int]) -> bool:
    """Wait until processes have ended; they are not our children."""
    for process in processes:
        try:
            handle = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], PATIENCE_SECONDS)[0]:
                return False
        finally:
            os.close(handle)
    return True


def test_a_change_counts_when_two_polls_agree(tmp_path: Path) -> None:
    """An editor may empty a file before it writes it. The first poll counts at once."""
    file, watcher = tmp_path / "a.yaml", Watcher()
    file.write_text("one")
    answers = [watcher.compare(scan(tmp_path))]
    for text in ("", "two words", None):
        if text is not None:
            file.write_text(text)
        answers.append(watcher.compare(scan(tmp_path)))
    assert answers == [FileChanges([file], []), FileChanges([], []), FileChanges([], []), FileChanges([file], [])]


def test_a_renamed_file_is_gone_and_new_in_one_answer(tmp_path: Path) -> None:
    """So its path can move to the new file."""
    file, watcher = tmp_path / "a.yaml", Watcher()
    file.touch()
    watcher.compare(scan(tmp_path))
    file.rename(tmp_path / "b.yaml")
    answers = [watcher.compare(scan(tmp_path)) for _ in range(2)]
    assert answers == [FileChanges([], []), FileChanges([tmp_path / "b.yaml"], [file])]


STEPS = ("create_flat_table", "create_nested_table", "create_summary_table")
EVENTS = ("step_started", "action_started", "action_completed", "step_completed")
LOG = [
    "execution_start    | create_tables",
    *(f"{event:<18} | {step}" for step in STEPS for event in EVENTS),
    "execution_complete | create_tables",
]


def test_the_demo_prints_the_documented_sequence_of_events(demo: Command) -> None:
    """Twice in one folder, which keeps its data. No process is left running."""
    for _ in range(2):
        answer = demo.run("demo")
        assert (answer.returncode, answer.stderr) == (0, "")
        assert [line for line in answer.stdout.splitlines() if " | " in line] == LOG
        assert (demo.folder / ".demo" / "data").exists()
        assert not (demo.folder / ".demo" / "data" / "postmaster.pid").exists()


def test_a_signal_ends_the_demo_with_all_that_it_started(demo: Command) -> None:
    """Its Postgres also shuts down cleanly."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = demo.start("demo")
        assert process.stdout is not None
        while not process.stdout.readline().startswith("migrated"):
            pass
        process.send_signal(number)
        assert process.wait(PATIENCE_SECONDS) == 128 + number
        assert not (demo.folder / ".demo" / "data" / "postmaster.pid").exists()


def test_the_demo_prints_one_json_document(lone_command: Command) -> None:
    """The log, the tables, and both executions."""
    document = json.loads(lone_command.run("demo", "--json").stdout)
    assert [f"{event_type:<18} | {node_name}" for event_type, node_name in document["log"]] == LOG
    assert [(table["schema"], table["name"]) for table in document["tables"]] == [
        ("demo", "flat"),
        ("demo", "nested"),
        ("demo", "summary"),
    ]
    assert min(table["rows"] for table in document["tables"]) > 0
    assert [document["first"]["status"], document["second"]["status"]] == ["COMPLETED", "COMPLETED"]


def test_the_demo_says_what_is_missing(lone_command: Command) -> None:
    """A folder that it may write: a file has the name of the demo's folder. Or a Postgres: it says what to install."""
    missing = lone_command.run("demo", NOETL_BROKER_PG_BINDIR="/nowhere/bin")
    assert (missing.returncode, missing.stderr) == (
        2, "noetl-broker: NOETL_BROKER_PG_BINDIR is /nowhere/bin: there are no programs postgres and initdb.\n",
    )  # fmt: skip
    (lone_command.folder / ".demo").write_text("in the way")
    answer = lone_command.run("demo")
    assert (answer.returncode, answer.stderr.count("\n"), ".demo" in answer.stderr) == (2, 1, True)

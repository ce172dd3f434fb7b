"""`run` and `worker` as services: signals, several processes, systemd, and a database that is not there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
import yaml

from noetl_broker.cli import serving
from noetl_broker.cli.processes import Family
from noetl_broker.daemon.figures import Figures
from noetl_broker.daemon.report import Account, Report
from tests.cli.conftest import PATIENCE_SECONDS, Command, rows, write_playbook
from tests.postgres import Database

ONE_STEP = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"
WAITS = "select pid from pg_locks where not granted"
NOWHERE = "postgresql://127.0.0.1:1/nowhere"


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Read the log of a command up to the line with this word; one that never says it is killed."""
    assert process.stderr is not None
    too_late = threading.Timer(PATIENCE_SECONDS, process.kill)
    too_late.start()
    try:
        for line in process.stderr:
            if word in line:
                return line
    finally:
        too_late.cancel()
    raise AssertionError(f"the command ended with {process.wait()} and never said {word!r}")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_broker_with_0(command: Command, number: signal.Signals, processes: int) -> None:
    """It lets go of what it does and says so; SIGHUP comes when a terminal is closed."""
    process = command.start("run", "--processes", processes)
    read_until(process, "ready")
    process.send_signal(number)
    read_until(process, "stopped")
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_sighup_that_comes_twice_is_no_second_signal(command: Command, database: Database, processes: int) -> None:
    """A shell and the system both send it, and systemd sends it after SIGTERM: what is under way is still finished."""
    command("register", write_playbook(command.folder, ONE_STEP))
    process = command.start("run", "--processes", processes)
    read_until(process, "all processes are ready" if processes > 1 else "ready")
    with psycopg.connect(database.dsn) as connection:
        connection.execute("lock table noetl.turn in share mode")  # a turn cannot be written before we let it
        command("start", "examples/story")
        while not rows(database, WAITS):
            pass
        process.send_signal(signal.SIGHUP)
        read_until(process, "stopping")
        process.send_signal(signal.SIGHUP)
    read_until(process, "stopped")
    assert process.wait(PATIENCE_SECONDS) == 0
    assert rows(database, "select count(*) from noetl.turn") == [(1,)]


@pytest.mark.parametrize("kind", ["run", "worker"])
def test_sighup_that_is_ignored_stays_ignored(command: Command, kind: str) -> None:
    """As under nohup: the terminal goes, the service stays."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" HUP; exec "$0" -m noetl_broker "$@"', sys.executable, kind],
        cwd=command.folder, env=command.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    read_until(process, "ready" if kind == "run" else "worker_started")
    process.send_signal(signal.SIGHUP)
    process.terminate()
    assert "SIGTERM" in read_until(process, "stopping")
    assert process.wait(PATIENCE_SECONDS) == 0
    process.communicate()


def test_a_signal_ends_a_broker_that_waits_for_its_database(lone_command: Command) -> None:
    """There is nothing to finish."""
    process = lone_command.start("run", "--dsn", NOWHERE)
    read_until(process, "waiting for the database")
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_fail_fast_does_not_wait(lone_command: Command, processes: int) -> None:
    """A database that is not there is 69, for the parent of several as well."""
    answer = lone_command.run("run", "--fail-fast", "--dsn", NOWHERE, "--processes", processes)
    assert answer.returncode == 69
    assert "the database cannot be reached" in answer.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_schema_that_is_not_known_is_78(bare_command: Command, processes: int) -> None:
    """Waiting would not mend it, so the broker ends."""
    answer = bare_command.run("run", "--processes", processes)
    assert answer.returncode == 78
    assert "run noetl-broker migrate" in answer.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_dsn_that_can_be_read_once_is_read_once(command: Command, processes: int) -> None:
    """From a pipe on standard input, say; the children of several are given it."""
    dsn = command.environment.pop("NOETL_BROKER_DSN")
    with subprocess.Popen(
        [sys.executable, "-m", "noetl_broker", "run", "--processes", str(processes)],
        env=command.environment | {"NOETL_BROKER_DSN_FILE": "/dev/stdin"},
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as broker:  # fmt: skip
        try:
            assert broker.stdin is not None
            broker.stdin.write(dsn)
            broker.stdin.close()
            read_until(broker, "all processes are ready" if processes > 1 else "ready")
            broker.terminate()
            assert broker.wait(PATIENCE_SECONDS) == 0
        finally:
            broker.kill()


def test_drain_takes_what_waits_and_ends(command: Command) -> None:
    """With the count of what it did."""
    body = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"
    command("register", write_playbook(command.folder, body))
    command("start", "examples/story")
    answer = command.run("run", "--drain", "--json")
    assert (answer.returncode, json.loads(answer.stdout)["turns"]) == (0, 1)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("drain", [True, False])
def test_a_broker_tells_programs_at_its_end_what_it_did(command: Command, processes: int, *, drain: bool) -> None:
    """One document, whoever of several processes took the turn."""
    start_sleeping(command, 0)
    broker = command.start("run", "--json", "--processes", processes, *(["--drain"] if drain else []))
    if not drain:
        read_until(broker, "all processes are ready" if processes > 1 else "ready")
        broker.terminate()
    out, _ = broker.communicate(timeout=PATIENCE_SECONDS)
    told = json.loads(out)
    assert (broker.returncode, told["turns"], told["batches"], told["set_aside"]) == (0, 0, 0, 0)


def test_several_processes_tell_the_sum_of_what_they_drained(command: Command) -> None:
    """For people in a line, for programs in one document."""
    body = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"
    command("register", write_playbook(command.folder, body))
    command("start", "examples/story")
    assert command.run("run", "--drain", "--processes", 2).stdout == "took 1 turns in 1 transactions\n"
    command("start", "examples/story")
    told = json.loads(command.run("run", "--drain", "--processes", 2, "--json").stdout)
    assert (told["turns"], told["executions_ended"]) == (1, 1)


async def test_what_a_process_counts_in_many_databases_is_heard(tmp_path: Path) -> None:
    """However long the line is on which it says so."""
    figures = Figures()
    figures.put_all("faults_total", {f"{number:05}": 1 for number in range(100)})
    account = Account(Figures(), {f"database {number}": Report(figures, {}, 0.0) for number in range(100)})
    (tmp_path / "account").write_text(account.as_line())
    family = Family(
        command=(sys.executable, "-c", f"print(open({str(tmp_path / 'account')!r}).read())"),
        environment=os.environ,
        size=1,
        restart=False,
        drain_seconds=1,
    )
    assert await family.run() == 0
    assert len(family.counted) == 1 + 100


def process_ids(parent: subprocess.Popen[str], count: int) -> list[int]:
    """Read the log of a parent until that many children have been started; give their process ids."""
    return [json.loads(read_until(parent, "started a process"))["process_id"] for _ in range(count)]


@pytest.mark.parametrize(
    "arguments, said, lanes", [((), {}, 3), (("--processes", 2), {}, 2), (("--processes", 2), {"lanes": 5}, 5)]
)
def test_several_processes_have_fewer_lanes_each(
    command: Command, arguments: tuple[str | int, ...], said: dict[str, int], lanes: int
) -> None:
    """Unless a setting says how many."""
    config = command.folder / "broker.yaml"
    config.write_text(yaml.safe_dump({"log_format": "json", **said}), encoding="utf-8")
    broker = command.start("run", "--config", config, *arguments)
    assert json.loads(read_until(broker, '"ready"'))["lanes"] == lanes


def test_a_parent_brings_back_a_child_that_died(command: Command) -> None:
    """And ends them all at a signal."""
    parent = command.start("run", "--processes", 2, NOETL_BROKER_LOG_FORMAT="json")
    first, second = process_ids(parent, 2)
    read_until(parent, "all processes are ready")
    os.kill(first, signal.SIGKILL)
    read_until(parent, "a process died")
    [third] = process_ids(parent, 1)
    read_until(parent, "all processes are ready")
    parent.terminate()
    # Ends when the last of them has closed the log that they share.
    _, err = parent.communicate(timeout=PATIENCE_SECONDS)
    assert parent.returncode == 0
    assert (len({first, second, third}), err.count('"event": "stopped"')) == (3, 2)


def test_children_end_with_a_parent_that_was_killed(command: Command) -> None:
    """Nobody is left who would pass a signal on."""
    parent = command.start("run", "--processes", 2)
    read_until(parent, "all processes are ready")
    parent.kill()
    _, err = parent.communicate(timeout=PATIENCE_SECONDS)
    assert err.count("stopped") == 2


def test_a_child_that_is_stuck_does_not_keep_its_parent(command: Command) -> None:
    """It is killed a little after the time in which it should have ended by itself; the others end in good order."""
    parent = command.start("run", "--processes", 2, NOETL_BROKER_LOG_FORMAT="json", NOETL_BROKER_DRAIN_SECONDS="1")
    stuck, _ = process_ids(parent, 2)
    read_until(parent, "all processes are ready")
    os.kill(stuck, signal.SIGSTOP)
    try:
        parent.terminate()
        _, err = parent.communicate(timeout=PATIENCE_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stuck, signal.SIGKILL)
    assert (parent.returncode, err.count("killing a process")) == (0, 1)


def test_systemd_hears_of_start_and_stop(command: Command, tmp_path: Path) -> None:
    """READY when the broker listens, STOPPING when it was asked to end."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        heard.settimeout(PATIENCE_SECONDS)
        process = command.start("run", NOTIFY_SOCKET=address)
        ready = heard.recv(1000).decode()
        process.terminate()
        stopping = heard.recv(1000).decode()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert (ready.splitlines()[0], stopping) == ("READY=1", "STOPPING=1")


def start_sleeping(command: Command, seconds: float) -> None:
    """Start an execution and let a broker make its one job: to sleep so long."""
    body = f"workflow:\n  - {{step: start, next: rest}}\n  - {{step: rest, type: sleep, seconds: {seconds}}}\n"
    command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"] = '["sleep"]'
    assert command("register", write_playbook(command.folder, body)).exit_code == 0
    assert command("start", "examples/story").exit_code == 0
    assert command.run("run", "--drain").returncode == 0


def test_a_second_signal_ends_at_once(command: Command, database: Database) -> None:
    """The job is not waited for: another worker gets it when its lease runs out."""
    start_sleeping(command, 600)
    process = command.start("worker", "--types", "sleep", "--debug", NOETL_BROKER_DRAIN_SECONDS="300")
    while rows(database, "select count(*) from noetl.queue where status = 'leased'") == [(0,)]:
        assert process.poll() is None
    process.terminate()
    read_until(process, "stopping")
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert rows(database, "select status from noetl.queue") == [("leased",)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_does_jobs_and_ends_at_a_signal(command: Command, database: Database, number: signal.Signals) -> None:
    """Started with the types that it may do."""
    start_sleeping(command, 0)
    process = command.start("worker", "--types", "sleep,noop", "--worker-id", "w9")
    read_until(process, "job_ended")
    process.send_signal(number)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert rows(database, "select status, worker_id from noetl.queue") == [("done", "w9")]


@pytest.mark.parametrize("options", [("--types", "sleep"), ("--null",)])
def test_a_worker_tells_programs_at_its_end_what_it_did(
    command: Command, database: Database, options: tuple[str, ...]
) -> None:
    """One document: the jobs that it leased, and the answers that counted."""
    start_sleeping(command, 0)
    worker = command.start("worker", *options, "--worker-id", "w9", "--json")
    while rows(database, "select count(*) from noetl.event where event_type = 'action_completed'") == [(0,)]:
        assert worker.poll() is None
    worker.terminate()
    out, _ = worker.communicate(timeout=PATIENCE_SECONDS)
    assert json.loads(out) == {"worker_id": "w9", "leased": 1, "done": 1, "failed": 0}


def test_a_worker_that_cannot_do_a_type_says_so(command: Command) -> None:
    """A typing error in `--types` would otherwise wait for ever."""
    answer = command.run("worker", "--types", "pyhton")
    assert answer.returncode == 2
    assert "pyhton" in answer.stderr


@pytest.mark.parametrize("empty", ["", ",", " , "])
def test_a_worker_told_to_lease_no_type_says_so(command: Command, empty: str) -> None:
    """A variable of the shell that is not set must not stand for every type."""
    answer = command.run("worker", "--types", empty)
    assert answer.returncode == 2
    assert "--types names no type" in answer.stderr


def test_a_supervisor_that_does_not_read_stops_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its socket is full long before the last of these; each is sent or let go, at once."""
    address = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        serving._notifier.cache_clear()
        try:
            for _ in range(2000):
                serving.notify("WATCHDOG=1")
        finally:
            serving._notifier().socket.close()
            serving._notifier.cache_clear()
        assert supervisor.recv(100) == b"WATCHDOG=1"

"""`run` and `worker` as services: signals, several processes, systemd, and a missing database."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import NOWHERE, PATIENCE_SECONDS, Command, begin, read_until, rows, until_job_is, write_playbook
from tests.postgres import Database, psycopg_connect
from tests.processes import Process

ONE_STEP = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"
WAITS = """
    select pid
    from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'"""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_broker_with_0(command: Command, number: signal.Signals, processes: int) -> None:
    """It finishes its work and logs that. A closed terminal sends SIGHUP."""
    process = command.start("run", "--processes", processes)
    read_until(process, "ready")
    process.send_signal(number)
    read_until(process, "stopped")
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_sighup_does_not_end_at_once(command: Command, database: Database, processes: int) -> None:
    """Shell and system both send it, and systemd sends it after SIGTERM: current work is still finished."""
    command("register", write_playbook(command.folder, ONE_STEP))
    process = command.start("run", "--processes", processes)
    read_until(process, "all processes are ready" if processes > 1 else "ready")
    with psycopg_connect(database) as connection:
        connection.execute(
            "lock table noetl.turn in share mode"
        )  # blocks the write of turns until the test releases it
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
def test_an_ignored_sighup_stays_ignored(command: Command, kind: str) -> None:
    """As under nohup: the terminal closes, the service stays."""
    process = Process(
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
    """It has no work to finish."""
    process = lone_command.start("run", "--dsn", NOWHERE)
    read_until(process, "waiting for the database")
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_broker_that_cannot_work_ends(lone_command: Command, empty_database: Database, processes: int) -> None:
    """A missing database gives 69 with --fail-fast, a missing schema 78; also for the parent of several processes."""
    answer = lone_command.run("run", "--fail-fast", "--dsn", NOWHERE, "--processes", processes)
    assert (answer.returncode, "the database cannot be reached" in answer.stderr) == (69, True)
    answer = lone_command.run("run", "--dsn", empty_database.dsn, "--processes", processes)
    assert (answer.returncode, "run noetl-broker migrate" in answer.stderr) == (78, True)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_dsn_from_a_pipe_is_read_once(command: Command, processes: int) -> None:
    """For example from standard input; the parent passes it to its children."""
    dsn = command.environment.pop("NOETL_BROKER_DSN")
    with Process(
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


@pytest.mark.parametrize("processes", [1, 2])
def test_run_prints_its_counts(command: Command, processes: int) -> None:
    """One line, or one JSON document, whichever of several processes took the turn; also after a signal."""
    command("register", write_playbook(command.folder, ONE_STEP))
    command("start", "examples/story")
    drain = ("run", "--drain", "--processes", processes)
    assert command.run(*drain).stdout == "took 1 turns in 1 transactions\n"
    command("start", "examples/story")
    document = json.loads(command.run(*drain, "--json").stdout)
    assert (document["turns"], document["executions_ended"]) == (1, 1)
    broker = command.start("run", "--json", "--processes", processes)
    read_until(broker, "all processes are ready" if processes > 1 else "ready")
    broker.terminate()
    out, _ = broker.communicate(timeout=PATIENCE_SECONDS)
    document = json.loads(out)
    assert (broker.returncode, document["turns"], document["batches"], document["set_aside"]) == (0, 0, 0, 0)


def process_ids(parent: Process, count: int) -> list[int]:
    """Read the log of a parent until it has started so many children; give their process ids."""
    return [json.loads(read_until(parent, "started a process"))["process_id"] for _ in range(count)]


@pytest.mark.parametrize(
    "arguments, config_lines, lanes", [((), {}, 3), (("--processes", 2), {}, 2), (("--processes", 2), {"lanes": 5}, 5)]
)
def test_several_processes_have_fewer_lanes_each(
    command: Command, arguments: tuple[str | int, ...], config_lines: dict[str, int], lanes: int
) -> None:
    """Unless a setting says how many."""
    config = command.folder / "broker.yaml"
    config.write_text(yaml.safe_dump({"log_format": "json", **config_lines}), encoding="utf-8")
    broker = command.start("run", "--config", config, *arguments)
    assert json.loads(read_until(broker, '"ready"'))["lanes"] == lanes


def test_a_parent_restarts_a_dead_child(command: Command) -> None:
    """A signal ends them all."""
    parent = command.start("run", "--processes", 2, NOETL_BROKER_LOG_FORMAT="json")
    first, second = process_ids(parent, 2)
    read_until(parent, "all processes are ready")
    os.kill(first, signal.SIGKILL)
    read_until(parent, "a process died")
    [third] = process_ids(parent, 1)
    read_until(parent, "all processes are ready")
    parent.terminate()
    # Ends when the last process has closed the common log.
    _, err = parent.communicate(timeout=PATIENCE_SECONDS)
    assert parent.returncode == 0
    assert (len({first, second, third}), err.count('"event": "stopped"')) == (3, 2)


def test_children_end_with_a_parent_that_was_killed(command: Command) -> None:
    """No process is left to pass a signal on."""
    parent = command.start("run", "--processes", 2)
    read_until(parent, "all processes are ready")
    parent.kill()
    _, err = parent.communicate(timeout=PATIENCE_SECONDS)
    assert err.count("stopped") == 2


def test_a_stuck_child_is_killed(command: Command) -> None:
    """It is killed shortly after its drain time; the others end normally."""
    parent = command.start("run", "--processes", 2, NOETL_BROKER_LOG_FORMAT="json", NOETL_BROKER_DRAIN_SECONDS="5")
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
    """READY when the broker listens, STOPPING after the signal."""
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


def start_sleeping(command: Command, database: Database, seconds: float) -> None:
    """Start an execution and let a broker create its one job, which sleeps so long."""
    body = f"workflow:\n  - {{step: start, next: rest}}\n  - {{step: rest, type: sleep, seconds: {seconds}}}\n"
    command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"] = '["sleep"]'
    begin(command, database, body)


def test_a_second_signal_ends_at_once(command: Command, database: Database) -> None:
    """It does not wait for the job: another worker gets it when its lease expires."""
    start_sleeping(command, database, 600)
    process = command.start("worker", "--types", "sleep", "--debug", NOETL_BROKER_DRAIN_SECONDS="300")
    until_job_is("leased", database)
    process.terminate()
    read_until(process, "stopping")
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert rows(database, "select status from noetl.queue") == [("leased",)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_finishes_jobs_and_ends_at_a_signal(
    command: Command, database: Database, number: signal.Signals
) -> None:
    """It is started with a list of types."""
    start_sleeping(command, database, 0)
    process = command.start("worker", "--types", "sleep,noop", "--worker-id", "w9")
    read_until(process, "job_ended")
    process.send_signal(number)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert rows(database, "select status, worker_id from noetl.queue") == [("done", "w9")]


@pytest.mark.parametrize("options", [("--types", "sleep"), ("--null",)])
def test_worker_prints_its_counts_as_json(command: Command, database: Database, options: tuple[str, ...]) -> None:
    """One document: the leased jobs, and the answers that counted."""
    start_sleeping(command, database, 0)
    worker = command.start("worker", *options, "--worker-id", "w9", "--json")
    until_job_is("done", database)
    worker.terminate()
    out, _ = worker.communicate(timeout=PATIENCE_SECONDS)
    assert json.loads(out) == {"worker_id": "w9", "leased": 1, "done": 1, "failed": 0, "cancelled": 0}


def test_a_step_sees_of_the_environment_what_is_common_or_passed(command: Command, database: Database) -> None:
    """No token that happens to be set where the worker was started. The error for another one names the option."""
    steps = (
        '{step: start, type: python, code: "import os\\ndef main(): return dict(os.environ)", next: ask}',
        '{step: ask, type: http, url: "http://127.0.0.1:1/{{ env.DB_PASSWORD }}"}',
    )
    begin(command, database, f"workflow: [{', '.join(steps)}]")
    environment = dict.fromkeys(("CITY", "TZ", "GITHUB_TOKEN", "DB_PASSWORD"), "x")
    command.start("run")
    worker = command.start("worker", "--pass-env", "CITY", **environment)
    until_job_is("failed", database)
    worker.terminate()
    worker.wait(PATIENCE_SECONDS)
    [seen] = rows(database, "select result from noetl.event where event_type = 'action_completed'")
    wanted = {"CITY", "TZ", "PATH", "GITHUB_TOKEN", "DB_PASSWORD"}
    assert wanted & set(seen[0]) == {"CITY", "TZ", "PATH"}
    [(error,)] = rows(database, "select error ->> 'message' from noetl.event where event_type = 'action_failed'")
    assert error.endswith("--pass-env DB_PASSWORD)")


def test_a_worker_refuses_what_it_cannot_do(command: Command) -> None:
    """It leases no job. An unset shell variable must not mean every type, and a typing error not wait for ever."""
    empty = [(("--types", text), 2, "--types is empty") for text in ("", ",", " , ")]
    cases = [
        *empty,
        (("--types", "pyhton"), 2, "pyhton"),
        (("--pass-env", "NOETL_SECRET_KEY"), 2, "pass_env names NOETL_SECRET_KEY, which no job may read"),
        (("--preload", "json,no_such_module"), 2, "cannot preload no_such_module: ModuleNotFoundError"),
        (("--preload", "json,a-b"), 2, "preload names 'a-b', which is no module"),
    ]
    command.refuses(cases, "worker")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed worker leaves it")
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_worker_ends_while_it_preloads(command: Command, number: signal.Signals, code: int) -> None:
    """At once, and so does the process that imports the module."""
    begun, end = command.folder / "begun", command.folder / "end"
    os.mkfifo(begun)
    os.mkfifo(end)
    # The end of the last process that writes it is the end of the second pipe.
    module = f"end = open({str(end)!r}, 'w')\nopen({str(begun)!r}, 'w').close()\n"
    module += "import time\ntime.sleep(120)\nend.write('late')\n"
    command.folder.joinpath("slow.py").write_text(module, encoding="utf-8")
    worker = command.start("worker", "--preload", "slow", PYTHONPATH=str(command.folder))
    with end.open() as imports:
        begun.read_text(encoding="utf-8")
        worker.send_signal(number)
        assert imports.read() == ""
    _, log = worker.communicate(timeout=PATIENCE_SECONDS)
    assert (worker.returncode, "did not finish in time" in log) == (code, False)

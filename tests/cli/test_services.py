"""`run` and `worker` as services: signals, several processes, systemd, and a missing database."""

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

import pytest
import yaml

from noetl_broker.daemon import process_signals as signals
from noetl_broker.daemon.metrics.process_status import DatabaseStatus, ProcessStatus
from noetl_broker.daemon.metrics.registry import FAULTS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.supervisor import Supervisor
from tests.cli.conftest import PATIENCE_SECONDS, Command, rows, until_job_is, write_playbook
from tests.postgres import Database, psycopg_connect
from tests.processes import Process

ONE_STEP = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"
WAITS = """
    select pid
    from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'"""
NOWHERE = "postgresql://127.0.0.1:1/nowhere"


def read_until(process: Process, word: str) -> str:
    """Read the log up to the line with this word; kill a command that never prints it."""
    assert process.stderr is not None
    too_late = threading.Timer(PATIENCE_SECONDS, process.kill)
    too_late.start()
    try:
        for line in process.stderr:
            if word in line:
                return line
    finally:
        too_late.cancel()
    raise AssertionError(f"the command ended with {process.wait()} and never printed {word!r}")


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
def test_fail_fast_does_not_wait(lone_command: Command, processes: int) -> None:
    """A missing database gives 69, also for the parent of several processes."""
    answer = lone_command.run("run", "--fail-fast", "--dsn", NOWHERE, "--processes", processes)
    assert answer.returncode == 69
    assert "the database cannot be reached" in answer.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_an_unknown_schema_exits_with_78(bare_command: Command, processes: int) -> None:
    """Waiting would not help, so the broker ends."""
    answer = bare_command.run("run", "--processes", processes)
    assert answer.returncode == 78
    assert "run noetl-broker migrate" in answer.stderr


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


def test_drain_decides_on_waiting_events_and_exits(command: Command) -> None:
    """With its counts."""
    body = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"
    command("register", write_playbook(command.folder, body))
    command("start", "examples/story")
    answer = command.run("run", "--drain", "--json")
    assert (answer.returncode, json.loads(answer.stdout)["turns"]) == (0, 1)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("drain", [True, False])
def test_run_prints_its_counts_as_json(command: Command, processes: int, *, drain: bool) -> None:
    """One document, whichever of several processes took the turn."""
    start_sleeping(command, 0)
    broker = command.start("run", "--json", "--processes", processes, *(["--drain"] if drain else []))
    if not drain:
        read_until(broker, "all processes are ready" if processes > 1 else "ready")
        broker.terminate()
    out, _ = broker.communicate(timeout=PATIENCE_SECONDS)
    document = json.loads(out)
    assert (broker.returncode, document["turns"], document["batches"], document["set_aside"]) == (0, 0, 0, 0)


def test_several_processes_print_the_sum_of_their_counts(command: Command) -> None:
    """One line for people, one document for programs."""
    body = "workflow:\n  - {step: start, next: end}\n  - {step: end}\n"
    command("register", write_playbook(command.folder, body))
    command("start", "examples/story")
    assert command.run("run", "--drain", "--processes", 2).stdout == "took 1 turns in 1 transactions\n"
    command("start", "examples/story")
    document = json.loads(command.run("run", "--drain", "--processes", 2, "--json").stdout)
    assert (document["turns"], document["executions_ended"]) == (1, 1)


async def test_the_counts_of_many_databases_reach_the_parent(tmp_path: Path) -> None:
    """However long their line is."""
    values = MetricValues()
    for number in range(100):
        values.set(FAULTS, 1, f"{number:05}")
    databases = {f"database {number}": DatabaseStatus(values, {}, 0.0) for number in range(100)}
    (tmp_path / "status").write_text(ProcessStatus(MetricValues(), databases).as_line())
    family = Supervisor(
        command=(sys.executable, "-c", f"print(open({str(tmp_path / 'status')!r}).read())"),
        environment=os.environ,
        size=1,
        restart=False,
        drain_seconds=1,
    )
    assert await family.run() == 0
    assert len(family.ended) == 1 + 100


async def test_the_code_of_a_child_that_fails_is_that_of_its_parent() -> None:
    """If children are not started again."""
    family = Supervisor(
        command=(sys.executable, "-c", "raise SystemExit(3)"),
        environment=os.environ,
        size=1,
        restart=False,
        drain_seconds=1,
    )
    assert await family.run() == 3


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


def start_sleeping(command: Command, seconds: float) -> None:
    """Start an execution and let a broker create its one job, which sleeps so long."""
    body = f"workflow:\n  - {{step: start, next: rest}}\n  - {{step: rest, type: sleep, seconds: {seconds}}}\n"
    command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"] = '["sleep"]'
    assert command("register", write_playbook(command.folder, body)).exit_code == 0
    assert command("start", "examples/story").exit_code == 0
    assert command("run", "--drain").exit_code == 0


def test_a_second_signal_ends_at_once(command: Command, database: Database) -> None:
    """It does not wait for the job: another worker gets it when its lease expires."""
    start_sleeping(command, 600)
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
    start_sleeping(command, 0)
    process = command.start("worker", "--types", "sleep,noop", "--worker-id", "w9")
    read_until(process, "job_ended")
    process.send_signal(number)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert rows(database, "select status, worker_id from noetl.queue") == [("done", "w9")]


@pytest.mark.parametrize("options", [("--types", "sleep"), ("--null",)])
def test_worker_prints_its_counts_as_json(command: Command, database: Database, options: tuple[str, ...]) -> None:
    """One document: the leased jobs, and the answers that counted."""
    start_sleeping(command, 0)
    worker = command.start("worker", *options, "--worker-id", "w9", "--json")
    until_job_is("done", database)
    worker.terminate()
    out, _ = worker.communicate(timeout=PATIENCE_SECONDS)
    assert json.loads(out) == {"worker_id": "w9", "leased": 1, "done": 1, "failed": 0, "cancelled": 0}


def test_a_worker_refuses_an_unknown_type(command: Command) -> None:
    """A typing error in `--types` would otherwise wait for ever."""
    answer = command.run("worker", "--types", "pyhton")
    assert answer.returncode == 2
    assert "pyhton" in answer.stderr


def test_a_step_sees_of_the_environment_what_is_common_or_passed(command: Command, database: Database) -> None:
    """No token that happens to be set where the worker was started."""
    body = 'workflow: [{step: start, type: python, code: "import os\\ndef main(): return dict(os.environ)"}]'
    command("register", write_playbook(command.folder, body))
    command("start", "examples/story")
    command("run", "--drain")
    environment = dict.fromkeys(("CITY", "TZ", "GITHUB_TOKEN", "DB_PASSWORD"), "x")
    worker = command.start("worker", "--pass-env", "CITY", **environment)
    until_job_is("done", database)
    worker.terminate()
    worker.wait(PATIENCE_SECONDS)
    [seen] = rows(database, "select result from noetl.event where event_type = 'action_completed'")
    wanted = {"CITY", "TZ", "PATH", "GITHUB_TOKEN", "DB_PASSWORD"}
    assert wanted & set(seen[0]) == {"CITY", "TZ", "PATH"}


def test_a_variable_that_is_not_passed_has_its_remedy(command: Command, database: Database) -> None:
    """The error of the job names the option."""
    body = 'workflow: [{step: start, type: http, url: "http://127.0.0.1:1/{{ env.CITY }}"}]'
    command("register", write_playbook(command.folder, body))
    command("start", "examples/story")
    command("run", "--drain")
    worker = command.start("worker", CITY="Oslo")
    until_job_is("failed", database)
    worker.terminate()
    worker.wait(PATIENCE_SECONDS)
    [(error,)] = rows(database, "select error ->> 'message' from noetl.event where event_type = 'action_failed'")
    assert error.endswith("--pass-env CITY)")


def test_a_worker_passes_no_secret(command: Command) -> None:
    """The remedy is named."""
    answer = command.run("worker", "--pass-env", "NOETL_SECRET_KEY")
    assert (answer.returncode, "pass_env names NOETL_SECRET_KEY, which no job may read" in answer.stderr) == (2, True)


@pytest.mark.parametrize(
    "name, words",
    [
        ("no_such_module", "cannot preload no_such_module: ModuleNotFoundError"),
        ("a-b", "preload names 'a-b', which is no module"),
    ],
)
def test_a_worker_refuses_a_module_that_it_cannot_preload(command: Command, name: str, words: str) -> None:
    """It leases no job."""
    answer = command.run("worker", "--preload", f"json,{name}")
    assert answer.returncode == 2
    assert words in answer.stderr


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


@pytest.mark.parametrize("empty", ["", ",", " , "])
def test_a_worker_refuses_an_empty_list_of_types(command: Command, empty: str) -> None:
    """An unset shell variable must not mean every type."""
    answer = command.run("worker", "--types", empty)
    assert answer.returncode == 2
    assert "--types is empty" in answer.stderr


def test_a_full_notify_socket_does_not_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The socket fills up; each message is sent or dropped at once."""
    address = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        signals._notifier.cache_clear()
        try:
            for _ in range(2000):
                signals.notify("WATCHDOG=1")
        finally:
            signals._notifier().socket.close()
            signals._notifier.cache_clear()
        assert supervisor.recv(100) == b"WATCHDOG=1"

"""Processes of tests: reading loses no line, and a warm command does what one in a new interpreter does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import plain_environment
from tests.processes import LineProcess, Process, WarmProcess, start_command, start_new_command

PATIENCE_SECONDS = 120.0
NOWHERE = "postgresql://127.0.0.1:1/nowhere"


def test_communicate_gives_lines_that_came_in_one_write() -> None:
    """Reading the first line reads all three into the stream's buffer."""
    with LineProcess(["/bin/sh", "-c", r"printf '1\n2\n3\n'"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("2\n3\n", "")
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("2\n3\n", "")


def test_communicate_after_its_timeout_gives_the_same() -> None:
    """The process can be killed and read to its end."""
    with LineProcess(
        ["/bin/sh", "-c", r"printf '1\n2\n'; exec sleep 600"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.01)
        process.kill()
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("2\n", "")


@pytest.mark.parametrize("arguments", [("config",), ("validate", "here.yaml", "absent.yaml"), ("nonsense",)])
def test_a_warm_command_does_what_a_new_interpreter_does(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """With its own folder and environment: output, errors and exit code."""
    (tmp_path / "here.yaml").write_text("workflow: [{step: start, next: nowhere}]\n")
    own = plain_environment() | {"NOETL_BROKER_LANES": "7"}
    new = [sys.executable, "-m", "noetl_broker", *arguments]
    answer = subprocess.run(new, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    process = start_command(arguments, cwd=tmp_path, env=own)
    assert isinstance(process, WarmProcess)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (out, err, process.wait()) == (answer.stdout, answer.stderr, answer.returncode)


def waiting(folder: Path, **environment: str) -> Process:
    """Start a broker that waits for its database."""
    own = plain_environment() | {"NOETL_BROKER_DSN": NOWHERE, "NOETL_BROKER_HEALTH_PORT": "0"} | environment
    process = start_command(["run"], cwd=folder, env=own)
    assert process.stderr is not None
    assert any("waiting for the database" in line for line in process.stderr)
    return process


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_warm_command_gets_signals(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """It is one process, and its end has one exit code."""
    with waiting(tmp_path) as process:
        assert (process.poll(), os.getpgid(process.pid)) == (None, os.getpgid(0))
        process.send_signal(number)
        assert process.wait(PATIENCE_SECONDS) == code
        assert process.poll() == code


def test_warm_commands_run_beside_each_other(tmp_path: Path) -> None:
    """Neither has the pipes of the other: each can be read to its end."""
    with waiting(tmp_path) as first, waiting(tmp_path) as second:
        first.kill()
        first.communicate(timeout=PATIENCE_SECONDS)
        assert second.poll() is None
        second.kill()
        second.communicate(timeout=PATIENCE_SECONDS)


def started(log: Iterator[dict[str, Any]]) -> int:
    """Read a log until a command has started a process; gives its id."""
    return next(int(line["process_id"]) for line in log if line["event"] == "started a process")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each command is a new interpreter")
@pytest.mark.parametrize("start", [start_command, start_new_command])
def test_children_of_a_warm_command_are_as_those_of_a_new_interpreter(
    tmp_path: Path, start: Callable[..., Process]
) -> None:
    """Each is a child of the command in a session of its own. The command sees its end, and it sees the command's."""
    own = plain_environment() | {"NOETL_BROKER_DSN": NOWHERE, "NOETL_BROKER_HEALTH_PORT": "0"}
    with start(["run", "--processes", "2"], cwd=tmp_path, env=own | {"NOETL_BROKER_LOG_FORMAT": "json"}) as command:
        assert command.stderr is not None
        try:
            log = map(json.loads, command.stderr)
            children = started(log), started(log)
            assert [parent_of(child) for child in children] == [command.pid] * 2
            assert [os.getsid(child) for child in children] == [*children]
            os.kill(children[0], signal.SIGKILL)
            assert next(line["code"] for line in log if "a process died" in line["event"]) == -signal.SIGKILL
        finally:
            command.kill()
        command.communicate(timeout=PATIENCE_SECONDS)  # to the end of the last process


def parent_of(process: int) -> int:
    """Give the id of a process's parent."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_variable_that_is_read_at_the_start_needs_a_new_interpreter(tmp_path: Path) -> None:
    """The warm one has read its own."""
    with start_command(["config"], cwd=tmp_path, env=plain_environment() | {"PYTHONDEVMODE": "1"}) as process:
        assert isinstance(process, LineProcess)
        process.communicate(timeout=PATIENCE_SECONDS)

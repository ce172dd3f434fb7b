"""Processes of tests: reading loses no line, and a warm command does what one in a new interpreter does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import plain_environment
from tests.processes import LineProcess, Process, WarmProcess, start_command

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


def test_a_variable_that_is_read_at_the_start_needs_a_new_interpreter(tmp_path: Path) -> None:
    """The warm one has read its own."""
    with start_command(["config"], cwd=tmp_path, env=plain_environment() | {"PYTHONDEVMODE": "1"}) as process:
        assert isinstance(process, LineProcess)
        process.communicate(timeout=PATIENCE_SECONDS)

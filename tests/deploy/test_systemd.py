"""The systemd units: their settings are right for the program, and the program follows their protocol."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from noetl_broker import errors
from noetl_broker.cli.main import cli
from noetl_broker.settings import PREFIX, Settings
from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.postgres import Database

FOLDER = Path(__file__).parents[2] / "deploy"
UNITS = ("noetl-broker.service", "noetl-worker.service", "noetl-console.service")
of_each = pytest.mark.parametrize("unit", UNITS)
MOST_EXPOSED = 1.5  # of 10, as systemd-analyze counts
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
# A process whose main loop blocks at a signal for many sweeps, and says when that begins and ends.
FREEZING = """
import signal, time
from noetl_broker.cli import main
from noetl_broker.daemon.process_signals import notify
signal.signal(signal.SIGUSR1, lambda *_: (notify('FROZEN=1'), time.sleep(1), notify('THAWED=1')))
main()
"""


def setting_of(unit: str, name: str) -> str:
    """Give the value of a setting that a unit has once."""
    text = (FOLDER / unit).read_text(encoding="utf-8")
    (value,) = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    return str(value)


def analyze(*arguments: str) -> str:
    """Run systemd-analyze without findings; gives its output."""
    answer = subprocess.run(
        ["systemd-analyze", *arguments],  # noqa: S607 - the machine's own
        capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


@needs_systemd
@of_each
def test_the_unit_is_sandboxed(unit: str) -> None:
    """Allowed are the network, and reading the program from the host's folders."""
    told = analyze("security", "--offline=yes", "--no-pager", str(FOLDER / unit))
    [level] = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert float(level) <= MOST_EXPOSED


@needs_systemd
@of_each
def test_systemd_understands_every_line(unit: str, tmp_path: Path) -> None:
    """Only the program's path is replaced by the one of this machine."""
    text = (
        (FOLDER / unit).read_text(encoding="utf-8").replace("/opt/noetl-broker/bin", str(Path(sys.executable).parent))
    )
    (tmp_path / unit).write_text(text, encoding="utf-8")
    # It may report other units of the machine.
    assert [line for line in analyze("verify", "--man=no", str(tmp_path / unit)).splitlines() if unit in line] == []


@of_each
def test_the_command_of_the_unit_is_valid(unit: str) -> None:
    """Its command, its options and its variable are known; the DSN comes from the credential.

    It does not restart after usage errors, missing rights or another schema version. A missing database is waited for.
    """
    _, *arguments = setting_of(unit, "ExecStart").split()
    assert CliRunner().invoke(cli, [*arguments, "--help"]).exit_code == 0
    assert "dsn_file" in Settings.model_fields
    credential = setting_of(unit, "LoadCredential").partition(":")[0]
    assert setting_of(unit, "Environment") == f"{PREFIX}DSN_FILE=%d/{credential}"
    codes = {int(code) for code in setting_of(unit, "RestartPreventExitStatus").split()}
    assert codes == {errors.EXIT_USAGE, errors.EXIT_NO_PERMISSION, errors.EXIT_SCHEMA}


def test_the_times_of_the_unit_leave_room_for_those_of_the_program() -> None:
    """A stop may drain to its end, and an idle broker sends watchdog messages in time."""
    settings = Settings.model_validate({})
    assert [int(setting_of(unit, "TimeoutStopSec")) > settings.drain_seconds for unit in UNITS] == [True] * len(UNITS)
    assert int(setting_of("noetl-broker.service", "WatchdogSec")) > 2 * settings.sweep_seconds


@contextmanager
def supervisor(folder: Path) -> Iterator[socket.socket]:
    """Listen on a notify socket like systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(folder / "notify"))
        heard.settimeout(PATIENCE_SECONDS)
        yield heard


def hear(heard: socket.socket, word: str) -> list[str]:
    """Read messages up to this word; gives the words before."""
    words: list[str] = []
    while True:
        message = heard.recv(1000).decode().splitlines()
        if word in message:
            return words
        words += message


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_protocol_of_the_unit(lone_command: Command, database: Database, tmp_path: Path, processes: str) -> None:
    """The DSN is a credential. READY, then WATCHDOG repeatedly, STOPPING at SIGTERM, exit code 0."""
    (tmp_path / "dsn").write_text(f"{database.dsn}\n", encoding="utf-8")
    with supervisor(tmp_path) as heard:
        process = lone_command.start(
            "run", "--processes", processes, NOETL_BROKER_DSN_FILE=str(tmp_path / "dsn"),
            NOETL_BROKER_SWEEP_SECONDS="0.1", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000",
        )  # fmt: skip
        for word in ("READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"):
            hear(heard, word)
        process.send_signal(signal.SIGTERM)
        hear(heard, "STOPPING=1")
        _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, database.dsn in log) == (0, False)


def test_a_blocked_main_loop_sends_no_watchdog(command: Command, tmp_path: Path) -> None:
    """The process lives but does nothing, so systemd must restart it."""
    with supervisor(tmp_path) as heard:
        process = subprocess.Popen(
            [sys.executable, "-c", FREEZING, "run"],
            env=command.environment | {
                "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000",
                "NOETL_BROKER_SWEEP_SECONDS": "0.1",
            },
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            hear(heard, "READY=1")
            hear(heard, "WATCHDOG=1")
            process.send_signal(signal.SIGUSR1)
            hear(heard, "FROZEN=1")
            assert hear(heard, "THAWED=1") == []
            hear(heard, "WATCHDOG=1")
        finally:
            process.kill()
            process.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    "text, sentence",
    [(None, "the setting dsn_file names a file that cannot be read"), (" \n", "is empty; write the DSN into it")],
)
def test_a_missing_credential_names_its_file(
    lone_command: Command, tmp_path: Path, text: str | None, sentence: str
) -> None:
    """It is a usage error: no restart repairs it."""
    file = tmp_path / "dsn"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    answer = lone_command("run", NOETL_BROKER_DSN_FILE=str(file))
    assert (answer.exit_code, sentence in answer.output, str(file) in answer.output) == (2, True, True)


def test_a_dsn_that_is_given_wins_over_the_file(lone_command: Command, tmp_path: Path) -> None:
    """`config` shows which one is used."""
    (tmp_path / "dsn").write_text("postgresql://u:topsecret@file/d", encoding="utf-8")
    file = {"NOETL_BROKER_DSN_FILE": str(tmp_path / "dsn")}
    from_file = lone_command("config", **file).stdout
    given = lone_command("config", **file, NOETL_BROKER_DSN="postgresql://u:topsecret@given/d").stdout
    sources = [text.splitlines()[1].split()[2:4] for text in (from_file, given)]
    assert sources == [["file", str(tmp_path / "dsn")], ["environment", "NOETL_BROKER_DSN"]]
    assert "topsecret" not in from_file + given

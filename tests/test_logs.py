"""Only the program can write a line of the log, whatever names and messages contain."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog

from noetl_broker import logs

FORGED = "2026-01-01T00:00:00Z [info     ] ready"
EVIL = f"a\n{FORGED} \x1b[2J\x1b]0;t\x07 \u2028 \u202e\r\x85z"


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    """Restore the log for other tests."""
    yield
    structlog.reset_defaults()
    logs.configure(level="error", form="console")


def fail() -> None:
    """Raise an error with hostile text."""
    raise ValueError(EVIL)


def written(form: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Log hostile text in each place; return the lines."""
    logs.configure(level="debug", form=form)
    log = structlog.get_logger("test")
    log.warning(EVIL, path=EVIL, within={EVIL: [EVIL]})
    try:
        fail()
    except ValueError:
        log.exception("failed", step=EVIL)
    return capsys.readouterr().err.split("\n")[:-1]


def test_each_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Two events are two lines, and the logged text can be read."""
    first, second = map(json.loads, written("json", capsys))
    assert (first["event"], first["path"], first["within"]) == (EVIL, EVIL, {EVIL: [EVIL]})
    assert second["exception"].endswith(f"ValueError: {EVIL}")


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_logged_character_controls_a_terminal(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line is printable: no escape, no carriage return, nothing that changes the direction of text."""
    assert [line for line in written(form, capsys) if not line.isprintable()] == []


def test_each_console_line_is_an_event_or_begins_with_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """A forged line in a name begins no line."""
    lines = written("console", capsys)
    events = [line for line in lines if not line.startswith("  | ")]
    assert [line.split("]", 1)[0].split("[")[1].strip() for line in events] == ["warning", "error"]
    assert [line for line in lines if FORGED in line and line.startswith(FORGED)] == []


def test_messages_of_libraries_are_events(capsys: pytest.CaptureFixture[str]) -> None:
    """asyncio, the driver and a warning: one line each, without traceback and without values of a row."""
    logs.configure(level="info", form="json")
    for name in ("asyncio", "asyncpg"):
        try:
            fail()
        except ValueError as error:
            logging.getLogger(name).exception("socket.accept() out of system resource\nsocket: 7", exc_info=error)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["library"]) for line in lines] == [
        ("a library complains", name) for name in ("asyncio", "asyncpg", "py.warnings")
    ]
    assert lines[0]["says"] == "socket.accept() out of system resource"
    assert lines[0]["error"] == "ValueError: a"
    assert "DeprecationWarning: old" in lines[2]["says"]


def test_a_repeated_message_of_a_library_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand times within a minute."""
    logs.configure(level="info", form="json")
    for number in range(1000):
        logging.getLogger("asyncio").error("no resource %s", number)
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["says"] == "no resource 0"


def test_a_line_is_written_with_one_call() -> None:
    """Several processes share one log, and their lines must not mix."""
    program = """
import structlog
from noetl_broker import logs
for form in ("json", "console"):
    logs.configure(level="info", form=form)
    structlog.get_logger("test").info("ready", lanes=2)
"""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        subprocess.run(
            [sys.executable, "-c", program],
            stderr=theirs.fileno(),
            check=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        lines = [ours.recv(4096) for _ in range(2)]
    assert [(line.count(b"ready"), line.endswith(b"\n")) for line in lines] == [(1, True)] * 2

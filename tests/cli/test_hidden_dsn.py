"""The password in a DSN is told by nobody, least of all where the database cannot be had."""

from __future__ import annotations

import signal

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.cli.test_secrets import DSN, PORT, traces
from tests.cli.test_serving import read_until
from tests.cli.test_watching import free_port, hear
from tests.postgres import Server


@pytest.mark.parametrize("place", ["127.0.0.1:1/nowhere", "127.0.0.1:{port}/nowhere", "127.0.0.1:notaport/x"])
def test_no_password_is_told_of_a_database_that_cannot_be_had(
    lone_command: Command, postgres_server: Server, place: str
) -> None:
    """Nobody is there, the login is refused, the DSN is broken: neither log, port nor `doctor` shows a piece of it."""
    quoted = "".join(f"%{byte:02X}" for byte in DSN.encode())
    dsn = f"postgresql://me:{quoted}@{place.format(port=postgres_server.port)}"
    port = free_port()
    process = lone_command.start("run", NOETL_BROKER_DSN=dsn, NOETL_BROKER_HEALTH_PORT=str(port))
    printed = ""
    if place.endswith(":1/nowhere"):
        printed = read_until(process, "waiting for the database")
        printed += "".join(hear(port, path).body for path in PORT)
        process.send_signal(signal.SIGTERM)
    printed += "".join(process.communicate(timeout=PATIENCE_SECONDS))
    asked = [lone_command.run(*words, NOETL_BROKER_DSN=dsn) for words in (("doctor",), ("config",), ("executions",))]
    printed += "".join(answer.stdout + answer.stderr for answer in asked)
    assert "noetl-broker: " in printed
    assert traces(printed) == []

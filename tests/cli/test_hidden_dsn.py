"""No output shows the password of a DSN, above all if the database cannot be reached."""

from __future__ import annotations

import signal

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.cli.test_health_port import free_port, http_get
from tests.cli.test_secrets import DSN, PORT, traces
from tests.cli.test_services import read_until
from tests.postgres import Server


@pytest.mark.parametrize("place", ["127.0.0.1:1/nowhere", "127.0.0.1:{port}/nowhere", "127.0.0.1:notaport/x"])
def test_an_unreachable_database_shows_no_password(lone_command: Command, postgres_server: Server, place: str) -> None:
    """No server, a refused login, a malformed DSN: log, port and `doctor` show no part of it."""
    quoted = "".join(f"%{byte:02X}" for byte in DSN.encode())
    dsn = f"postgresql://me:{quoted}@{place.format(port=postgres_server.port)}"
    port = free_port()
    process = lone_command.start("run", NOETL_BROKER_DSN=dsn, NOETL_BROKER_HEALTH_PORT=str(port))
    printed = ""
    if place.endswith(":1/nowhere"):
        printed = read_until(process, "waiting for the database")
        printed += "".join(http_get(port, path).body for path in PORT)
        process.send_signal(signal.SIGTERM)
    printed += "".join(process.communicate(timeout=PATIENCE_SECONDS))
    answers = [lone_command(*words, NOETL_BROKER_DSN=dsn) for words in (("doctor",), ("config",), ("executions",))]
    printed += "".join(answer.stdout + answer.stderr for answer in answers)
    assert "noetl-broker: " in printed
    assert traces(printed) == []

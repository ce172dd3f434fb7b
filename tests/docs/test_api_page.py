"""docs/api.md: its commands run; docs/api-routes.md lists every route."""

from __future__ import annotations

import json
from pathlib import Path

from noetl_broker.console import problem
from noetl_broker.console.api import changes
from noetl_broker.console.app import MAX_BODY_BYTES
from noetl_broker.console.connections import REQUEST_SECONDS, SESSION
from noetl_broker.console.paging import MOST_ROWS
from noetl_broker.console.services import AT_ONCE, HEARTBEAT_SECONDS, LONG_SECONDS, TOKEN_SECONDS
from noetl_broker.console.threads import WAIT_SECONDS
from noetl_broker.store.changes import NEWEST
from tests.cli.test_health_port import free_port
from tests.docs.api_routes import ROUTES, api_routes
from tests.docs.shell import blocks, run_script
from tests.postgres import Database
from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
# For the page's reader the broker runs beside; here it decides once.
DECIDE = "noetl-broker run --drain\n"


def test_the_commands_run(database: Database, tmp_path: Path) -> None:
    """In the order of the page, on a free port."""
    (tmp_path / "hello.yaml").write_text(blocks(PAGE, "yaml")[0], encoding="utf-8")
    port = free_port()
    install, *scripts = blocks(PAGE)
    install = install.split("\n", 1)[1]  # without pip
    script = "".join([install, scripts[0], DECIDE, *scripts[1:]])
    script = script.replace("localhost:8080", f"localhost:{port}")
    script = script.replace("noetl-broker console", f"noetl-broker console --port {port}")
    answer = run_script(script.replace("curl -s ", "curl -sS --fail-with-body "), tmp_path, database)
    changed = next(line for line in answer.stdout.splitlines() if line.startswith("data: "))
    shown = next(line for line in answer.stdout.splitlines() if '"result"' in line)
    assert (
        json.loads(changed.removeprefix("data: "))["changes"][0]["status"],
        "Hello, Ada!" in shown,
        '{"role":"operator","name":"laptop"}' in answer.stdout,
    ) == ("COMPLETED", True, True)


def test_the_routes_are_those_of_the_program() -> None:
    """Exactly."""
    assert ROUTES.read_text(encoding="utf-8") == api_routes(), "run make docs"


def test_the_limits_are_those_of_the_program() -> None:
    """Bodies, pages, streams, times."""
    assert f"at most {MAX_BODY_BYTES >> 20} MiB" in PAGE
    assert f"`limit` is at most {MOST_ROWS:,}" in PAGE
    assert f"Name up to {changes.MOST_IDS} executions" in PAGE
    assert f"Every {HEARTBEAT_SECONDS:.0f} s" in PAGE
    assert f"the newest {NEWEST:,} executions" in PAGE
    assert f"A request ends after {REQUEST_SECONDS:.0f} s, on many executions after {LONG_SECONDS:.0f} s." in PAGE
    assert f"{AT_ONCE} of each kind run at a time" in PAGE
    assert f"Another one waits {WAIT_SECONDS:.0f} s" in PAGE
    assert f"A revoked token is refused within {TOKEN_SECONDS:.0f} s; an open stream ends within" in PAGE
    assert f"A statement ends after {SESSION['statement_timeout'][:-1]} s" in PAGE
    assert {f"NB{status.value}" for _, status in problem.STATUSES} <= {word.strip("`") for word in PAGE.split()}

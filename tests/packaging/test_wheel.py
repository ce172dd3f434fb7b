"""The wheel, away from the checkout: a working command with its migrations, roles and playbooks."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path

import pytest

import noetl_broker
from noetl_broker.store.connect.migrations import compat_noetl, migrations
from tests.packaging.wheels import Program, install
from tests.test_tidy import ROOT

EXAMPLE = ROOT / "playbooks" / "conditional.yaml"


def test_the_wheel_holds_what_the_program_reads(wheel: Path) -> None:
    """Statements, migrations, roles, playbooks, and the marker of type hints."""
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"noetl_broker/_migrations/{file.name}" for file in (ROOT / "migrations").glob("*.sql")}
    expected |= {f"noetl_broker/_playbooks/{file.name}" for file in (ROOT / "playbooks").glob("*.yaml")}
    source = ROOT / "src" / "noetl_broker"
    expected |= {f"noetl_broker/{file.relative_to(source)}" for file in source.rglob("*.sql")}
    expected |= {"noetl_broker/_deploy/roles.sql", "noetl_broker/py.typed"}
    assert expected - held == set()


def test_the_installed_command_and_package_are_those_of_the_wheel(installed: Program) -> None:
    """`noetl-broker`, `python -m noetl_broker` and all public names; nothing comes from this checkout."""
    answer = installed.run("--version")
    assert (answer.returncode, noetl_broker.__version__ in answer.stdout) == (0, True), answer.stderr
    listed = installed.start(installed.python, "-m", "noetl_broker", "migrate", "--sql", "--json").stdout
    assert [entry["name"] for entry in json.loads(listed)] == [file.name for file in (*migrations(), compat_noetl())]
    code = "import noetl_broker as n; print(n.__file__, [name for name in n.__all__ if not hasattr(n, name)])"
    answer = installed.start(installed.python, "-c", code)
    assert answer.stdout.startswith(str(installed.folder)), answer.stderr
    assert answer.stdout.endswith(" []\n")


def test_the_program_works_without_its_extras(installed: Program) -> None:
    """A command that needs one names it."""
    graph = "graph", str(EXAMPLE), "--format", "svg"
    for arguments, extra in ((graph, "graph"), (("console",), "console"), (("mcp",), "mcp")):
        answer = installed.run(*arguments)
        assert (answer.returncode, f"pip install 'noetl-broker[{extra}]'" in answer.stderr) == (2, True)


@pytest.mark.slow
def test_the_program_works_with_its_extras(wheel: Path) -> None:
    """A Postgres of its own, with a broker and a worker; pictures and traces."""
    # The account of Postgres runs programs of this folder, also if root runs the tests.
    with tempfile.TemporaryDirectory(prefix="noetl-broker-install-") as folder:
        Path(folder).chmod(0o755)
        program = install(wheel, Path(folder), "embedded", "graph", "otel")
        demo = program.run("demo", "--json")
        assert demo.returncode == 0, demo.stderr
        assert json.loads(demo.stdout)["second"]["status"] == "COMPLETED"
        svg = program.run("graph", str(EXAMPLE), "--format", "svg")
        assert svg.stdout.startswith("<svg "), svg.stderr
        traced = program.start(program.python, "-c", "from noetl_broker.tracing.otlp import *")
        assert traced.returncode == 0, traced.stderr

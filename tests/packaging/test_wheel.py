"""The wheel, away from the checkout: a working command with its migrations, roles and playbooks."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import noetl_broker
from noetl_broker.store.migrations import compat_noetl, migrations
from tests.packaging.wheels import Program
from tests.test_tidy import ROOT


def test_the_wheel_holds_what_the_program_reads(wheel: Path) -> None:
    """Statements, migrations, roles, playbooks, and the marker of type hints."""
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"noetl_broker/_migrations/{file.name}" for file in (ROOT / "migrations").glob("*.sql")}
    expected |= {f"noetl_broker/_playbooks/{file.name}" for file in (ROOT / "playbooks").glob("*.yaml")}
    source = ROOT / "src" / "noetl_broker"
    expected |= {f"noetl_broker/{file.relative_to(source)}" for file in source.rglob("*.sql")}
    expected |= {"noetl_broker/_deploy/roles.sql", "noetl_broker/py.typed"}
    assert expected - held == set()


def test_the_command_says_its_version(installed: Program) -> None:
    """The version of the package."""
    answer = installed.run("--version")
    assert (answer.returncode, noetl_broker.__version__ in answer.stdout) == (0, True), answer.stderr


def test_the_package_is_the_command(installed: Program) -> None:
    """`python -m noetl_broker`, from the wheel and not from this checkout."""
    answer = installed.start(installed.python, "-m", "noetl_broker", "migrate", "--sql", "--json")
    assert [entry["name"] for entry in json.loads(answer.stdout)] == [
        migration.name for migration in (*migrations(), compat_noetl())
    ]
    code = "import noetl_broker; print(noetl_broker.__file__)"
    where = installed.start(installed.python, "-c", code).stdout
    assert str(installed.folder) in where


def test_the_wheel_has_all_public_names(installed: Program) -> None:
    """In the wheel as in the checkout."""
    code = "import noetl_broker as n; print([name for name in n.__all__ if not hasattr(n, name)])"
    answer = installed.start(installed.python, "-c", code)
    assert answer.stdout.strip() == "[]", answer.stderr

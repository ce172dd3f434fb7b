"""Wheels of this tree and of a next version, each installed into its own environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest

import noetl_broker
from noetl_broker.store.migrations import SERVED_VERSIONS
from tests.postgres import Database
from tests.test_tidy import ROOT

PATIENCE_SECONDS = 900
NEXT_VERSION = "9.9.9"
OFFLINE = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")


class Program(NamedTuple):
    """An installed wheel: its interpreter and its command."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.folder / "bin" / "python"

    def run(self, *arguments: str, database: Database | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command, away from the checkout."""
        return self.start(self.folder / "bin" / "noetl-broker", *arguments, database=database)

    def start(
        self, program: Path, *arguments: str, database: Database | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        return subprocess.run(
            [program, *arguments],
            cwd=self.folder,
            env=_environment(database),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def serve(self, command: str, database: Database) -> subprocess.Popen[bytes]:
        """Start a command that runs until it is stopped."""
        program = self.folder / "bin" / "noetl-broker"
        return subprocess.Popen(
            [program, command], cwd=self.folder, env=_environment(database), stderr=subprocess.DEVNULL
        )


def _environment(database: Database | None) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "NOETL_"))}
    environment["NOETL_BROKER_HEALTH_PORT"] = "0"  # tests run in parallel, so a program serves no port
    if database is not None:
        environment |= {"NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_SCHEMA": database.schema}
    return environment


def copy_of_the_tree(folder: Path) -> Path:
    """Copy the files of which a wheel is built."""
    for name in ("src", "migrations", "playbooks", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def as_the_next(tree: Path, migration: str) -> Path:
    """Make a copy the next version: a higher number, and one more migration."""
    version = SERVED_VERSIONS[-1] + 1
    (tree / "migrations" / f"{version:04}_next.sql").write_text(migration, encoding="utf-8")
    _replace(tree / "src/noetl_broker/__init__.py", re.escape(noetl_broker.__version__), NEXT_VERSION)
    served = f"SERVED_VERSIONS = range({version}, {version + 1})"
    _replace(tree / "src/noetl_broker/store/migrations.py", r"SERVED_VERSIONS = range\(.*\)", served)
    return tree


def _replace(file: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, file.read_text(encoding="utf-8"))
    assert count == 1, f"{pattern} stands {count} times in {file.name}"
    file.write_text(changed, encoding="utf-8")


def build(tree: Path, target: Path) -> Path:
    """Build the wheel of a tree with its declared back-end, without a registry."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, timeout=PATIENCE_SECONDS)
    [wheel] = target.glob("*.whl")
    return wheel


def install_from_index(wheel: Path, folder: Path, *parts: str) -> Program:
    """Install a wheel and its libraries, or its extras `parts`, into an empty environment, as a reader does.

    Skips without an index.
    """
    program = Program(folder) if parts else _empty_environment(folder)
    wanted = f"{wheel}[{','.join(parts)}]" if parts else str(wheel)
    answer = subprocess.run(
        _pip(program, "--no-compile", wanted),
        capture_output=True,
        text=True,
        check=False,
        env=_environment(None),
        timeout=PATIENCE_SECONDS,
    )
    if answer.returncode and any(word in answer.stderr for word in OFFLINE):
        pytest.skip("no package index can be reached from here")
    assert answer.returncode == 0, answer.stderr
    return program


def install(wheel: Path, folder: Path) -> Program:
    """Install a wheel into its own environment, with the libraries of the tests' environment.

    The environment's own packages come first, so Python finds the wheel before this checkout.
    """
    program = _empty_environment(folder)
    subprocess.run(
        _pip(program, "--no-index", "--no-deps", "--no-compile", str(wheel)), check=True, timeout=PATIENCE_SECONDS
    )
    [packages] = folder.glob("lib/python3.*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return program


def _empty_environment(folder: Path) -> Program:
    """Make an environment without packages, not even pip: the tests' pip installs into it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=PATIENCE_SECONDS)
    return Program(folder)


def _pip(program: Program, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "pip", "--python", str(program.python), "install"]
    return [*command, "--quiet", "--disable-pip-version-check", *arguments]

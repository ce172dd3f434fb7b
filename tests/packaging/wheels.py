"""The wheel of this tree, its environment, and a next version beside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import noetl_broker
from noetl_broker.store.connect.migrations import SERVED_VERSIONS
from tests.postgres import Database
from tests.test_tidy import ROOT

PATIENCE_SECONDS = 900
NEXT_VERSION = "9.9.9"


class Program(NamedTuple):
    """An installed wheel: its interpreter and its command. `packages` come before those of the environment."""

    folder: Path
    packages: Path | None = None

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
            env=_environment(database) | ({"PYTHONPATH": str(self.packages)} if self.packages else {}),
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


def next_version(installed: Program, folder: Path, migration: str) -> Program:
    """Copy an installed package as the next version: a higher number, and one more migration."""
    [package] = installed.folder.glob("lib/python3.*/site-packages/noetl_broker")
    copy = shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    version = SERVED_VERSIONS[-1] + 1
    (copy / "_migrations" / f"{version:04}_next.sql").write_text(migration, encoding="utf-8")
    _replace(copy / "__init__.py", re.escape(noetl_broker.__version__), NEXT_VERSION)
    served = f"SERVED_VERSIONS = range({version}, {version + 1})"
    _replace(copy / "store/connect/migrations.py", r"SERVED_VERSIONS = range\(.*\)", served)
    return installed._replace(packages=folder)


def _replace(file: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, file.read_text(encoding="utf-8"))
    assert count == 1, f"{pattern} stands {count} times in {file.name}"
    file.write_text(changed, encoding="utf-8")


def build(tree: Path, target: Path, what: str = "wheel", **variables: str) -> Path:
    """Build the wheel or the sdist of a tree with its declared back-end, without a registry."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", what, "--directory", str(target)]
    environment = os.environ | variables
    answer = subprocess.run(
        command, cwd=tree, env=environment, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert answer.returncode == 0, answer.stderr
    [built] = target.iterdir()
    return built


def quick_compiler(folder: Path) -> Path:
    """Give a C compiler that does not optimize: it takes a fourth of the time."""
    compiler = folder / "cc"
    compiler.write_text(f'#!/bin/sh\nexec {shutil.which("cc")} "$@" -O0\n', encoding="utf-8")
    compiler.chmod(0o755)
    return compiler


def install(wheel: Path, folder: Path, *extras: str) -> Program:
    """Install a wheel into its own environment, with the libraries that it and these extras declare, and no others."""
    program = empty_environment(folder)
    command = [sys.executable, "-m", "pip", "--python", str(program.python), "install", "--quiet"]
    quickly = ("--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check")
    subprocess.run([*command, *quickly, str(wheel)], check=True, timeout=PATIENCE_SECONDS)
    [packages] = folder.glob("lib/python3.*/site-packages")
    [own] = metadata.distributions(path=[str(packages)])
    _lend(own, packages, ("", *extras), set())
    return program


def _lend(of: metadata.Distribution, packages: Path, extras: Iterable[str], lent: set[tuple[str, str]]) -> None:
    """Link what a distribution requires, and what that requires, from the tests' environment."""
    for text in of.requires or ():
        needed = Requirement(text)
        if needed.marker is not None and not any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        new = {(canonicalize_name(needed.name), extra) for extra in ("", *needed.extras)} - lent
        if not new:
            continue
        library = metadata.distribution(needed.name)
        for name in {file.parts[0] for file in library.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(str(library.locate_file(name)))
        _lend(library, packages, [extra for _, extra in new], lent | new)


def empty_environment(folder: Path, python: Path = Path(sys.executable)) -> Program:
    """Make an environment without packages, not even pip: the tests' pip installs into it."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True, timeout=PATIENCE_SECONDS)
    return Program(folder)

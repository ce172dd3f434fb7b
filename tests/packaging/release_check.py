"""`make release-check`: builds what a release has into `dist`, checks each file, and writes an SBOM.

All wheels are built from the sdist: a plain one, and a compiled one for each Python of this machine. Each file is
installed into a fresh environment with all extras, and runs `demo` there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

from tests.matrix import PYTHONS, find_python
from tests.packaging.wheels import PATIENCE_SECONDS, Program, empty_environment
from tests.test_tidy import ROOT

DIST = ROOT / "dist"
NAME = "noetl_broker"
TOOLS = {"bench", "dev", "release"}  # extras that no user installs
PLAIN_TAG = "-py3-none-any"
UNCACHED = ("--no-cache-dir",)  # pip keeps a wheel by the path of its sdist, and knows neither its form nor its content
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


class Tried(NamedTuple):
    """A file of the release, the form in which it ran `demo`, and the Python."""

    file: Path
    form: str
    python: str


def run(*command: str | Path, **variables: str) -> None:
    """Run a tool in the checkout; it prints what it does. Raises CalledProcessError if it fails."""
    subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True, timeout=PATIENCE_SECONDS)


def build(pythons: list[Path]) -> list[Path]:
    """Give the files of the release: the sdist, the plain wheel, and a compiled wheel for each Python."""
    for file in DIST.glob(f"{NAME}-*"):
        file.unlink()
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", DIST)
    [sdist] = DIST.glob("*.tar.gz")
    _wheel(Path(sys.executable), sdist, compiled=False)
    for python in pythons:
        _wheel(python, sdist, compiled=True)
    return [sdist, *sorted(DIST.glob(f"{NAME}-*.whl"))]


def _wheel(python: Path, sdist: Path, *, compiled: bool) -> None:
    options = ("wheel", "--quiet", "--no-deps", *UNCACHED, "--wheel-dir", DIST)
    run(*PIP, "--python", python, *options, sdist, HATCH_BUILD_HOOK_ENABLE_CUSTOM=str(compiled).lower())


def try_each(files: list[Path]) -> list[Tried]:
    """Install each file into an environment of its own, and run `demo` there. Writes the SBOM of the plain wheel's."""
    tried = []
    for file in files:
        # The account of Postgres runs programs of this folder, also if root runs the check.
        with tempfile.TemporaryDirectory(prefix="noetl-broker-release-") as folder:
            Path(folder).chmod(0o755)
            version = _version_of(file)
            program = empty_environment(Path(folder) / "environment", find_python(version) or Path(sys.executable))
            wanted = f"noetl-broker[{','.join(_extras())}] @ {file.as_uri()}"
            cache = UNCACHED if file.suffix == ".gz" else ()
            run(*PIP, "--python", program.python, "install", "--quiet", *cache, wanted)
            tried.append(Tried(file, _demo(program, file), version))
            if PLAIN_TAG in file.name:
                _write_sbom(program, file)
    return tried


def _version_of(file: Path) -> str:
    """Give the Python of a compiled wheel, or else that of this process."""
    tag = file.stem.split("-")[2] if file.suffix == ".whl" and PLAIN_TAG not in file.name else ""
    return f"3.{tag.removeprefix('cp3')}" if tag else "{}.{}".format(*sys.version_info)


def _extras() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(project["optional-dependencies"].keys() - TOOLS)


def _demo(program: Program, file: Path) -> str:
    """Run `demo`; give the form in which it ran. Raises SystemExit if it fails, or if the form is the wrong one."""
    compiled = file.suffix == ".whl" and PLAIN_TAG not in file.name
    form = "compiled" if compiled else "plain"
    said = program.run("--version")
    if f"({form})" not in said.stdout:
        raise SystemExit(f"{file.name}: --version says {said.stdout or said.stderr!r}, not ({form})")
    demo = program.run("demo")
    if demo.returncode != 0:
        raise SystemExit(f"{file.name}: demo ended with {demo.returncode}\n{demo.stdout}{demo.stderr}")
    return form


def _write_sbom(program: Program, wheel: Path) -> None:
    """List the libraries of the program and of all extras, with their versions and licences."""
    target = DIST / f"{wheel.name.removesuffix('.whl').removesuffix(PLAIN_TAG)}.cdx.json"
    about = ("--pyproject", "pyproject.toml", "--output-reproducible")
    run(sys.executable, "-m", "cyclonedx_py", "environment", program.python, *about, "--output-file", target)


def main() -> None:
    """Build, check, and print the files of `dist` with their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-only", action="store_true", help="build for this Python, and check nothing")
    parser.add_argument("--python", action="append", help="build a compiled wheel for this version (default: each)")
    options = parser.parse_args()
    versions = options.python or PYTHONS
    pythons = {version: find_python(version) for version in versions}
    files = build([Path(sys.executable)] if options.build_only else [found for found in pythons.values() if found])
    notes = {}
    if not options.build_only:
        run(sys.executable, "-m", "twine", "check", "--strict", *files)
        run(sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--print-build-identifiers")
        notes = {one.file: f"demo ran in the {one.form} form, Python {one.python}" for one in try_each(files)}
    for file in sorted(DIST.glob(f"{NAME}-*")):
        print(f"{file.stat().st_size / 1e6:6.2f} MB  {file.name}  {notes.get(file, '')}".rstrip())
    for version, found in pythons.items() if notes else ():
        if found is None:
            print(f"left out   a compiled wheel for Python {version}: it is not on this machine")


if __name__ == "__main__":
    main()

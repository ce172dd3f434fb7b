"""The compiled wheel: it can be built, it works, and pip takes it where it fits."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.packaging.test_compiled_modules import compiled_files
from tests.packaging.wheels import PATIENCE_SECONDS, install
from tests.test_tidy import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here: apt-get install gcc"),
]
TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"


def test_the_compiled_wheel_has_each_module_as_machine_code(compiled_wheel: Path) -> None:
    """It also has the sources, for tracebacks. Its name says the Python and the platform that it fits."""
    held = set(zipfile.ZipFile(compiled_wheel).namelist())
    sources = [str(file.relative_to(ROOT / "src")) for file in compiled_files()]
    wanted = {name.removesuffix(".py") + sysconfig.get_config_var("EXT_SUFFIX") for name in sources}
    assert (wanted | set(sources)) - held == set()
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert compiled_wheel.name.endswith(f"-{TAG}-{TAG}-{platform}.whl")


def test_the_compiled_wheel_works(compiled_wheel: Path, tmp_path: Path) -> None:
    """It says its form, and simulates an example."""
    program = install(compiled_wheel, tmp_path)
    assert program.run("--version").stdout.endswith("(compiled)\n")
    tried = program.start(program.python, str(ROOT / "tests" / "packaging" / "try_compiled.py"))
    assert (tried.returncode, str(program.folder) in tried.stdout) == (0, True), tried.stderr


@pytest.mark.parametrize(
    "options, is_compiled",
    [
        ([], True),
        (["--only-binary=:all:", "--python-version=3.99"], False),
        (["--only-binary=:all:", "--platform=any"], False),
    ],
)
def test_pip_takes_the_compiled_wheel_where_it_fits(
    wheel: Path, compiled_wheel: Path, tmp_path: Path, options: list[str], *, is_compiled: bool
) -> None:
    """Another Python or another platform gets the plain one."""
    links = [f"--find-links={one.parent}" for one in (wheel, compiled_wheel)]
    quietly = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", f"--dest={tmp_path}")
    command = [sys.executable, "-m", "pip", "download", *quietly, *links, *options, "noetl-broker"]
    subprocess.run(command, check=True, timeout=PATIENCE_SECONDS)
    expected = compiled_wheel if is_compiled else wheel
    assert [file.name for file in tmp_path.iterdir()] == [expected.name]

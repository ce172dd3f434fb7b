"""Compiles modules of the hot path with mypyc while a wheel is built, if the hook is enabled.

`make setup COMPILED=1` and `make wheels` enable it (HATCH_BUILD_HOOK_ENABLE_CUSTOM=true). pyproject.toml lists the
modules. They go into the wheel only, beside their sources. In a checkout they would win over the sources that somebody
edits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("src")
GROUP = "noetl_broker"  # of compiled modules: they share the library noetl_broker__mypyc
OPTIONS = (
    "--config-file=",  # none: `make check` checks types, here they only choose the instructions
    "--ignore-missing-imports",
    "--follow-imports=silent",  # without the plugins of pyproject.toml, modules that stay plain have false errors
    "--disable-error-code=has-type",  # mypyc reads import cycles in another order than mypy, and takes Any then
)


class CompiledModules(BuildHookInterface[Any]):
    """Adds the compiled modules to a wheel, which is then for this Python and this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile. Ends the build if there is no C compiler, or if it is for an editable installation."""
        if version == "editable":
            self.app.abort(
                "an editable installation cannot be compiled: install the wheel, as `make setup COMPILED=1` does"
            )
        if lacking := _lacking():
            self.app.abort(
                f"{lacking}: compiled modules need it. The plain form needs no compiler: leave COMPILED=1 out"
            )
        self._place = tempfile.TemporaryDirectory(prefix="noetl-broker-build-")
        root, place = Path(self.root), Path(self._place.name)
        modules = sorted({file for pattern in self.config["modules"] for file in (root / SOURCES).glob(pattern)})
        built = _compile(root, modules, place)
        build_data["force_include"] |= {str(file): str(file.relative_to(place / "lib")) for file in built}
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what the compiler wrote."""
        del version, build_data, artifact_path
        self._place.cleanup()


def _lacking() -> str:
    """Give the first thing that compiling needs and this machine has not; an empty text if it has all."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler `{compiler}` (Debian and Ubuntu: apt-get install gcc)"
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if headers.exists() else f"there is no {headers} (Debian and Ubuntu: apt-get install python3-dev)"


def _compile(root: Path, modules: list[Path], place: Path) -> list[Path]:
    """Give the files that were built, below `place`/lib."""
    # Only an enabled hook has these libraries.
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools import Distribution  # noqa: PLC0415

    with contextlib.chdir(root / SOURCES):
        names = [str(file.relative_to(root / SOURCES)) for file in modules]
        cache = f"--cache-dir={place / 'cache'}"
        c_files = str(place / "c")
        extensions = mypycify(
            [*OPTIONS, cache, *names], opt_level="2", debug_level="0", group_name=GROUP, target_dir=c_files
        )
        command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(place / "lib"), str(place / "objects")
        command.ensure_finalized()
        command.run()
    return sorted(file for file in (place / "lib").rglob("*") if file.is_file())

"""Files and programs as a person in the current folder writes them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path


def shown_path(path: Path) -> str:
    """Give a path relative to the current folder, if it is below."""
    with contextlib.suppress(ValueError, OSError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)


def is_on_path() -> bool:
    """Whether a shell finds `noetl-broker`."""
    return shutil.which("noetl-broker") is not None


def own_script(name: str) -> Path | None:
    """Give a program beside our interpreter; None if there is none."""
    script = Path(sys.prefix) / "bin" / name
    return script if os.access(script, os.R_OK) else None


def program() -> str:
    """Give what a person writes to run `noetl-broker`."""
    script = own_script("noetl-broker")
    return "noetl-broker" if is_on_path() or script is None else shown_path(script)

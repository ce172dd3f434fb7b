"""Which form of the program is installed: compiled (hatch_build.py) or plain Python."""

from __future__ import annotations

from importlib.machinery import ExtensionFileLoader, PathFinder
from pathlib import Path
from typing import Literal

Form = Literal["compiled", "plain"]


def installed_form() -> Form:
    """Give the form of the core that this process loads. It loads nothing."""
    spec = PathFinder.find_spec("core", [str(Path(__file__).parent / "broker")])
    return "compiled" if spec is not None and isinstance(spec.loader, ExtensionFileLoader) else "plain"

"""Where the files of the program are: migrations, roles and example playbooks.

A wheel has them in the package, a source checkout at its top level.
"""

from __future__ import annotations

from pathlib import Path

from noetl_broker.errors import OperatorFault

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent


def migrations_folder() -> Path:
    """Return the folder with `0001_….sql` …; raises OperatorFault when the installation lacks it."""
    return _folder("migrations")


def playbooks_folder() -> Path:
    """Return the folder with the example playbooks; raises OperatorFault when the installation lacks it."""
    return _folder("playbooks")


def roles_file() -> Path:
    """Return the SQL of the roles; raises OperatorFault when the installation lacks it."""
    return _folder("deploy") / "roles.sql"


def _folder(name: str) -> Path:
    for folder in (_PACKAGE / f"_{name}", _CHECKOUT / name):
        if folder.is_dir():
            return folder
    raise OperatorFault(f"This installation of noetl-broker has no {name} folder: install the package again.")

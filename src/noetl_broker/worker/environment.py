"""What of the worker's environment a job may see, and where credentials and secrets are looked up.

Everything comes from environment variables: nothing is asked of a server, so a worker without variables has no secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from noetl_broker.worker.faults import ToolFault

OWN_PREFIX = "NOETL_BROKER_"
SECRET_PREFIX = "NOETL_SECRET_"  # noqa: S105 - the name of a variable
CREDENTIAL_PREFIX = "NOETL_CREDENTIAL_"
HIDDEN_NAMES = frozenset({"PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE", "NOTIFY_SOCKET"})


def visible_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that a job may read as `env`: without the worker's own settings, passwords and secrets."""
    hidden = (OWN_PREFIX, SECRET_PREFIX, CREDENTIAL_PREFIX)
    return {
        name: value for name, value in environment.items() if name not in HIDDEN_NAMES and not name.startswith(hidden)
    }


def variable_name(prefix: str, name: str) -> str:
    """Name the environment variable of a secret: `pg-local` becomes `<prefix>PG_LOCAL`."""
    return prefix + re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def secret(environment: Mapping[str, str], name: str) -> str:
    """Look a secret up: in `NOETL_SECRET_<NAME>` first, then in the variable of that very name, if a job may see it."""
    variable = variable_name(SECRET_PREFIX, name)
    for value in (environment.get(variable), visible_environment(environment).get(name)):
        if value is not None:
            return value
    raise ToolFault(
        f"there is no secret '{name}'; set the environment variable {variable} of the worker",
        kind="secret_missing",
        retryable=False,
    )


def credential(environment: Mapping[str, str], name: str) -> Any:
    """Look a credential up by name: `NOETL_CREDENTIAL_<NAME>`, a JSON mapping or a plain text (a DSN, a token)."""
    variable = variable_name(CREDENTIAL_PREFIX, name)
    text = environment.get(variable)
    if text is None:
        raise ToolFault(
            f"there is no credential '{name}'; set the environment variable {variable} of the worker to its JSON "
            "(for Postgres: host, port, user, password, database) or to a connection string",
            kind="credential_missing",
            retryable=False,
        )
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise ToolFault(f"{variable} does not hold valid JSON", kind="credential_invalid", retryable=False) from None


class Lookup(Mapping[str, Any]):
    """A mapping that asks a function for each name, so that a template reads only the secrets that it names."""

    def __init__(self, find: Callable[[Mapping[str, str], str], Any], environment: Mapping[str, str]) -> None:
        self._find = find
        self._environment = environment

    def __getitem__(self, name: str) -> Any:
        """Find one; a name that is not there is undefined, so that a template may give a default."""
        try:
            return self._find(self._environment, name)
        except ToolFault as fault:
            raise KeyError(fault.message) from None

    def __iter__(self) -> Iterator[str]:
        """Give nothing: secrets are read by name, never listed."""
        return iter(())

    def __len__(self) -> int:
        """Give nothing to count, as there is nothing to list."""
        return 0

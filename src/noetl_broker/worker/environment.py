"""The worker's environment variables: which a job may read, and which hold secrets and credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from noetl_broker.worker.errors import FinalFault, ToolFault

OWN_PREFIX = "NOETL_BROKER_"
SECRET_PREFIX = "NOETL_SECRET_"  # noqa: S105 - the name of a variable
CREDENTIAL_PREFIX = "NOETL_CREDENTIAL_"
HIDDEN_NAMES = frozenset({"PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE", "NOTIFY_SOCKET"})
HIDDEN_PREFIXES = (OWN_PREFIX, SECRET_PREFIX, CREDENTIAL_PREFIX)
# The paths of programs, files and certificates, the language and the time zone: none is a secret anywhere.
COMMON_NAMES = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP",
        "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR",
    }
)  # fmt: skip
LOCALE_PREFIX = "LC_"


def kept_environment(environment: Mapping[str, str], passed: Collection[str] = ()) -> dict[str, str]:
    """The environment of a worker: common names and `passed` names for jobs, and the variables that it hides."""
    names = COMMON_NAMES | HIDDEN_NAMES | frozenset(passed)
    prefixes = (LOCALE_PREFIX, *HIDDEN_PREFIXES)
    return {name: value for name, value in environment.items() if name in names or name.startswith(prefixes)}


def visible_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a job may read as `env`, without the worker's settings, passwords and secrets."""
    return {name: value for name, value in environment.items() if not is_hidden(name)}


def is_hidden(name: str) -> bool:
    """Whether no job ever sees this variable."""
    return name in HIDDEN_NAMES or name.startswith(HIDDEN_PREFIXES)


def variable_name(prefix: str, name: str) -> str:
    """The name of the variable of a secret: `<prefix>PG_LOCAL` for `pg-local`."""
    return prefix + re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def secret(environment: Mapping[str, str], name: str) -> str:
    """A secret: `NOETL_SECRET_<NAME>`, or the variable of that name, if a job may read it. Raises ToolFault."""
    variable = variable_name(SECRET_PREFIX, name)
    for value in (environment.get(variable), visible_environment(environment).get(name)):
        if value is not None:
            return value
    raise FinalFault(
        f"there is no secret '{name}'; set the environment variable {variable} of the worker", kind="secret_missing"
    )


def credential(environment: Mapping[str, str], name: str) -> Any:
    """A credential: `NOETL_CREDENTIAL_<NAME>`, a JSON mapping or a text (a DSN, a token). Raises ToolFault."""
    variable = variable_name(CREDENTIAL_PREFIX, name)
    text = environment.get(variable)
    if text is None:
        raise FinalFault(
            f"there is no credential '{name}'; set the environment variable {variable} of the worker to its JSON "
            "(for Postgres: host, port, user, password, database) or to a connection string",
            kind="credential_missing",
        )
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise FinalFault(f"{variable} does not hold valid JSON", kind="credential_invalid") from None


class Lookup(Mapping[str, Any]):
    """A mapping that looks up a name when it is read: a template loads only the secrets that it names."""

    def __init__(self, find: Callable[[Mapping[str, str], str], Any], environment: Mapping[str, str]) -> None:
        self._find = find
        self._environment = environment

    def __getitem__(self, name: str) -> Any:
        """Look one up. A missing name is a KeyError, so it is undefined in a template, which may give a default."""
        try:
            return self._find(self._environment, name)
        except ToolFault as fault:
            raise KeyError(fault.message) from None

    def __iter__(self) -> Iterator[str]:
        """Nothing: secrets are read by name and never listed."""
        return iter(())

    def __len__(self) -> int:
        """0, as `__iter__` lists nothing."""
        return 0

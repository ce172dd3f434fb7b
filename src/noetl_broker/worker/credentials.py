"""Reads the `auth` of a step and looks up the credentials that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_broker.worker.environment import credential
from noetl_broker.worker.errors import FinalFault

# Keys of a mapping that name a stored credential.
REFERENCES = ("credential", "key", "oauth_credential", "secret_name")
# A mapping with one of these keys is a credential; any other maps aliases to credentials.
DIRECT = frozenset(
    {"type", "tool", "source", "provider", "dsn", "host", "db_host", "token", "user", "username", *REFERENCES}
)


def entries(auth: Any, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """The credentials of an `auth`, each a mapping of its fields.

    Forms: a name; a mapping with a reference (`key`, `credential`) or with fields; a mapping of aliases to these. The
    text of a credential that is no mapping is its field `text`.
    """
    if auth is None:
        return []
    if isinstance(auth, str):
        return [_fetched(auth, environment)]
    if not isinstance(auth, Mapping):
        raise FinalFault(f"auth must be a name or a mapping, not {type(auth).__name__}", kind="bad_value")
    if DIRECT & auth.keys():
        return [_entry(auth, environment)]
    return [entry for value in auth.values() for entry in entries(value, environment)]


def _entry(auth: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    own = {key: value for key, value in auth.items() if key not in REFERENCES}
    own.setdefault("type", auth.get("tool"))
    reference = next((auth[key] for key in REFERENCES if isinstance(auth.get(key), str)), None)
    if reference is None:
        return own
    found = _fetched(reference, environment)
    # The fields of the step override the stored ones; `type` is how the step uses the credential.
    return found | {key: value for key, value in own.items() if value is not None}


def _fetched(name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    found = credential(environment, name)
    return {"text": found} if isinstance(found, str) else dict(found)

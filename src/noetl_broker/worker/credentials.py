"""Reads the `auth` of a step: which credential it names, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_broker.worker.environment import credential
from noetl_broker.worker.faults import ToolFault

# The keys by which playbooks name a stored credential.
REFERENCES = ("credential", "key", "oauth_credential", "secret_name")
# An `auth` mapping with one of these is a credential itself; without, it maps aliases to credentials.
DIRECT = frozenset(
    {"type", "tool", "source", "provider", "dsn", "host", "db_host", "token", "user", "username", *REFERENCES}
)


def entries(auth: Any, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give the credentials that an `auth` means, each a mapping of its fields with what was looked up.

    Forms: a name; a mapping with a reference (`key`, `credential`) or fields of its own; a mapping of aliases to such
    mappings or names. A credential that is a plain text stands under `text`.
    """
    if auth is None:
        return []
    if isinstance(auth, str):
        return [_fetched(auth, environment)]
    if not isinstance(auth, Mapping):
        raise ToolFault(
            f"auth must be a name or a mapping, not {type(auth).__name__}", kind="bad_value", retryable=False
        )
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
    # What the step says itself wins over what is stored; `type` tells how the step wants to use it.
    return found | {key: value for key, value in own.items() if value is not None}


def _fetched(name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    found = credential(environment, name)
    return {"text": found} if isinstance(found, str) else dict(found)

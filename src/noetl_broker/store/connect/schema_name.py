"""The name of the schema: SQL text says `noetl`, and this renders it for a schema of another name.

The name stands in one place, the `Database`; a connection renders each statement (`connection.py`), and keeps the text.
The word `noetl`, also at the start of `noetl_…`, becomes the name. So schemas, channels and roles are NAME,
NAME_history, NAME_event, NAME_broker and so on. The first key of our advisory locks follows from the name. Words in
double quotes and `noetl-broker` stay as they are.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

from noetl_broker.commands import COMMANDS
from noetl_broker.errors import OperatorFault

DEFAULT_SCHEMA = "noetl"
LONGEST_NAME = 32  # the longest name made of it must stay below 64 bytes: an application name
LOCK_KEY = 1852794228  # 'noet': the first key of all advisory locks but those of executions

_CALLS = "|".join(f"{name} [a-z]++" if entry.is_group else name for name, entry in COMMANDS.items())
_COMMAND_LINE = re.compile(rf"\bnoetl-broker (?:{_CALLS})(?![\w-])(?: --roles)?+(?! --schema)")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OURS = re.compile(rf'(?<![\w"])noetl(?![a-z0-9-])|\b{LOCK_KEY}\b|(?<=\')(noetl-broker (?:bell|worker))(?=\')')


def check_schema_name(name: str) -> None:
    """Raise OperatorFault for a name that our SQL cannot use without quotes, or that two schemas would share."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise OperatorFault(
            f"the schema {name!r:.80} has no valid name: use at most {LONGEST_NAME} lower-case letters, digits and"
            " underscores, with a letter first"
        )
    if name.endswith(("_history", "_archive")) or name.startswith("pg_") or name == "information_schema":
        raise OperatorFault(
            f"the schema {name!r} has no valid name: names that begin with pg_ are Postgres' own; names that end in"
            " _history or _archive belong to the schema before the underscore; choose another"
        )


@lru_cache(maxsize=4096)
def rendered(text: str, schema: str) -> str:
    """Give SQL text, or the name of a channel or role, for a schema of this name. Render a text only once."""
    if schema == DEFAULT_SCHEMA:
        return text
    key = str((LOCK_KEY + zlib.crc32(schema.encode())) % 2**31)

    def replace(found: re.Match[str]) -> str:
        if found[1]:
            return application_name(found[1], schema)
        return key if found[0] == str(LOCK_KEY) else schema

    return _OURS.sub(replace, text)


def with_schema(text: str, schema: str) -> str:
    """Add `--schema` to each command line of a text for people, if the schema has another name than `noetl`."""
    return text if schema == DEFAULT_SCHEMA else _COMMAND_LINE.sub(rf"\g<0> --schema {schema}", text)


def application_name(name: str, schema: str) -> str:
    """Name a connection for pg_stat_activity, where `doctor` counts the brokers and workers of one schema."""
    return name if schema == DEFAULT_SCHEMA else f"{name} {schema}"

"""The name of the schema: SQL text says `noetl`, and this renders it for a schema of another name.

The name stands in one place, the `Database`; a connection renders each statement once (`connection.py`). What is
replaced is a closed list of words. So schemas, channels and roles are NAME, NAME_history, NAME_event, NAME_broker and
so on. The keys of advisory locks are hashes of such words. A bucket has the roles of its installation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from noetl_broker.commands import COMMANDS
from noetl_broker.errors import OperatorFault

DEFAULT_SCHEMA = "noetl"
LONGEST_NAME = 32  # the longest name made of it must stay below 64 bytes: an application name
CHANNELS = ("event", "match", "timer", "throttle", "job", "cancel", "end")
ROLES = ("broker", "operator", "worker", "producer", "reader", "approver", "author")

_CALLS = "|".join(f"{name} [a-z]++" if entry.is_group else name for name, entry in COMMANDS.items())
_COMMAND_LINE = re.compile(rf"\bnoetl-broker (?:{_CALLS})(?![\w-])(?: --roles)?+(?! --schema)")
# A table where a statement reads or writes it; not its type, and not a function.
_TABLE = re.compile(r"(\b(?:from|join|into|update|using)\s+noetl\.)(\w++)(?!\()", re.IGNORECASE)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


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


@dataclass(frozen=True, eq=False, slots=True)
class Shards:
    """The shard of each table of a bucket on Citus, by the table's name. Its name is the same on every node.

    None `of` a table: Citus finds the shards.
    """

    of: Mapping[str, str]


@cache
def shards_of(pairs: tuple[tuple[str, str], ...]) -> Shards:
    """The shards of these pairs of table and shard: one object for the same pairs."""
    return Shards(dict(pairs))


@cache
def _words(schema: str, installation: str, *, on_citus: bool) -> tuple[tuple[str, str], ...]:
    """What SQL text of ours says, and what it says for this schema."""
    own = [(f"noetl_{name}", f"{schema}_{name}") for name in ("history", "archive", *CHANNELS)]
    roles = [(f"noetl_{name}", f"{installation}_{name}") for name in ROLES]
    if on_citus:  # a table and its partitions must be in one schema
        own[:2] = [(ours, schema) for ours, _ in own[:2]]
    return (
        ("noetl.", f"{schema}."), ("'noetl'", f"'{schema}'"), (" noetl ", f" {schema} "), (" noetl;", f" {schema};"),
        ("'noetl_0'", f"'{schema}_0'"), ("noetl-broker bell'", f"noetl-broker bell {schema}'"),
        ("noetl-broker worker'", f"noetl-broker worker {schema}'"), *own, *roles,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def rendered(text: str, schema: str, installation: str | None = None, shards: Shards | None = None) -> str:
    """Give SQL text, or the name of a channel or role, for a schema of this name. Render a text only once.

    `installation`: the schema whose roles it has, if that is another one. `shards`: on Citus, the shards
    that stand for tables.
    """
    if schema == DEFAULT_SCHEMA:
        return text
    if shards is not None:
        text = pinned(text, shards)
    words = _words(schema, installation or schema, on_citus=shards is not None)
    # By way of numbers, because a name may contain a word of ours.
    for number, (ours, _) in enumerate(words):
        text = text.replace(ours, f"\0{number}\0")
    for number, (_, own) in enumerate(words):
        text = text.replace(f"\0{number}\0", own)
    return text


def pinned(text: str, shards: Shards) -> str:
    """Put shards in the place of tables where a statement reads or writes them."""
    return _TABLE.sub(lambda found: found[1] + shards.of.get(found[2], found[2]), text)


def with_schema(text: str, schema: str) -> str:
    """Add `--schema` to each command line of a text for people, if the schema has another name than `noetl`."""
    return text if schema == DEFAULT_SCHEMA else _COMMAND_LINE.sub(rf"\g<0> --schema {schema}", text)


def application_name(name: str, schema: str) -> str:
    """Name a connection for pg_stat_activity, where `doctor` counts the brokers and workers of one schema."""
    return name if schema == DEFAULT_SCHEMA else f"{name} {schema}"

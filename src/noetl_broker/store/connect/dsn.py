"""Which database is meant, and what messages may show of its connection string."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from noetl_broker.errors import OperatorFault
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA, check_schema_name

INSTEAD = "the parts of the DSN cannot be told apart; percent-encode the special characters of user and password"
UNNAMED = "without a name"
PLACE = ("PGHOST", "PGDATABASE")
LEAST_CHARACTERS = 3  # a shorter piece of a password counts only where a message quotes it

_PLACE = re.compile(r"[^\s=]+:\d{1,5}")
_USER = re.compile(r"^(?:[\w+.-]*://)?(.*)@", re.DOTALL)
_KEYWORD = re.compile(r"(?:^|[\s?&;])(?:ssl)?password\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s&#]|&(?!\w+=))*)", re.IGNORECASE)
_SEPARATORS = re.compile(r"[/?#:@\[\]&=]")
_OF_BUCKET = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Where a broker's tables are: the database (`dsn` None: the PG* variables say), and the schema in it.

    `installation`: of a bucket, the schema that people name; else None. On Citus, `nodes` has the addresses of nodes
    that Citus names otherwise, as pairs of `host:port`; `at_coordinator`: it is reached there, not at its node.
    """

    dsn: str | None = field(default=None, repr=False)
    schema: str = DEFAULT_SCHEMA
    installation: str | None = None
    nodes: tuple[tuple[str, str], ...] = ()
    at_coordinator: bool = False

    def __post_init__(self) -> None:
        """Raise OperatorFault for a schema whose name cannot be used."""
        check_schema_name(self.schema)

    @property
    def named(self) -> str:
        """The schema that people name in commands, and that roles are named by."""
        return self.installation or self.schema

    @property
    def may_be_bucket(self) -> bool:
        """Whether the schema is a bucket of an installation, or named like one."""
        return self.installation is not None or _OF_BUCKET.search(self.schema) is not None

    def bucket(self, number: int) -> Self:
        """The bucket of this number, of this installation."""
        return replace(self, schema=f"{self.named}_{number}", installation=self.named)

    def for_tables(self) -> Self:
        """Where the tables of this schema are made and changed: of a bucket on Citus, at the coordinator."""
        return replace(self, at_coordinator=self.may_be_bucket)


def node_addresses(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The nodes of Citus and their addresses, from texts such as `10.0.0.5:5432=db1:5432`. Raises OperatorFault."""
    pairs = []
    for text in given:
        name, _, address = text.partition("=")
        if not _PLACE.fullmatch(name) or not _PLACE.fullmatch(address):
            raise OperatorFault(
                f"nodes has {text!r:.80}: write what Citus calls the node and its address for us, for example"
                " 10.0.0.5:5432=db1.example.com:5432"
            )
        pairs.append((name, address))
    return tuple(pairs)


def secret_parts(dsn: str | None) -> tuple[str, ...]:
    """Give the passwords in a connection string, written and decoded; of a malformed one, all that may be one."""
    if not dsn:
        return ()
    found = [match.strip("'") for match in _KEYWORD.findall(dsn)]
    user = _USER.match(dsn)
    if user is not None:
        found.append(user[1].partition(":")[2])
    return tuple(dict.fromkeys(text for part in found for text in (part, unquote(part)) if text))


def password_in(dsn: str | None) -> str:
    """Give the password in a connection string, as the driver reads it; "" if there is none."""
    try:
        parts = urlsplit(dsn or "")
    except ValueError:
        return ""  # the driver says why
    user, at, _ = parts.netloc.partition("@")
    written = user.partition(":")[2] if at else ""
    return unquote(written) or dict(parse_qsl(parts.query)).get("password", "")


def without_secrets(message: str, dsn: str | None) -> str:
    """Give a message of the driver's, or another sentence where it shows a piece of a password in the DSN."""
    for part in secret_parts(dsn):
        for piece in (part, *_SEPARATORS.split(part)):
            shown = piece in message if len(piece) >= LEAST_CHARACTERS else f"'{piece}'" in message
            if piece and shown:
                return INSTEAD
    return message


def database_names(databases: Sequence[Database]) -> tuple[str, ...]:
    """Name each database for logs: host, database and a schema that is not the default; each name once.

    A name shows no piece of a secret. Without a DSN, the PG* variables say host and database.
    """
    names: list[str] = []
    for database in databases:
        dsn = database.dsn
        address, _, query = (dsn or "").partition("://")[2].partition("?")
        place = address.rpartition("@")[2] if dsn else "/".join(os.environ.get(name, "") for name in PLACE).strip("/")
        # Of a broken DSN the password may be what stands there.
        hidden = not place or "@" in query or without_secrets(place, dsn) != place
        name = UNNAMED if hidden else place
        if database.schema != DEFAULT_SCHEMA:
            name = f"{name}/{database.schema}"
        names.append(name if name not in names else f"{name} #{len(names) + 1}")
    return tuple(names)

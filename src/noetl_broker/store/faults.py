"""What each fault of the database means to a daemon: one table, by SQLSTATE.

A fault of the connection, the server or the schema is nobody's mail's fault: it is waited out or ends the daemon, and
no mail is set aside for it. Whatever the table does not name is taken for a fault of the mail that was decided on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

import asyncpg

from noetl_broker.errors import DatabaseFault, OversizeFault, PermissionFault, SchemaFault


class Remedy(StrEnum):
    """What is done about a fault; the transaction is rolled back in any case."""

    RETRY = "again"  # after a short pause: somebody else was first
    SHRINK = "fewer"  # again with half as many events
    HUSH = "without ringing"  # again, and nobody is notified for a while
    RECONNECT = "reconnect"  # again, on new connections
    WAIT = "wait"  # again, after pauses that grow
    LEAVE = "leave out"  # again; the execution that meets it is found, and left out for a while
    STOP = "stop"  # a person must mend it: the daemon ends
    BLAME = "set aside"  # it is the mail's: tried alone, then set aside


class Kind(NamedTuple):
    """A remedy, the word for the log, and whether a person should hear of it at once."""

    remedy: Remedy
    word: str
    loud: bool = False


_LOST: Final = Kind(Remedy.WAIT, "the connection was lost")
_NOT_OURS: Final = Kind(Remedy.BLAME, "the mail cannot be decided on", loud=True)
_CHANGED: Final = Kind(Remedy.RECONNECT, "the schema was changed under a prepared statement")
_DEAF_QUEUE: Final = Kind(Remedy.HUSH, "the notification queue is full: somebody listens and does not read", loud=True)
_GONE: Final = Kind(Remedy.STOP, "a part of the schema is gone", loud=True)
_MIXED_UP: Final = Kind(
    Remedy.RECONNECT,
    "the session lost its prepared statements, as behind a transaction pooler: connect to the server itself",
    loud=True,
)
_NO_RIGHTS: Final = Kind(Remedy.WAIT, "a right is missing", loud=True)
_NO_LOGIN: Final = Kind(Remedy.WAIT, "the login is refused", loud=True)

# A code of five characters is looked for first, then its class, the first two.
KINDS: Final[dict[str, Kind]] = {
    "08": _LOST,
    "08P01": Kind(Remedy.RECONNECT, "something in between breaks the protocol, a pooler: connect past it", loud=True),
    "25P02": _MIXED_UP,
    "26000": _MIXED_UP,
    "42P05": _MIXED_UP,
    "28": _NO_LOGIN,
    "3D000": Kind(Remedy.STOP, "the database is gone", loud=True),
    "40": Kind(Remedy.RETRY, "another transaction was first"),
    "55P03": Kind(Remedy.LEAVE, "a lock could not be had in time"),
    "25P03": Kind(Remedy.RETRY, "the transaction stood idle too long"),
    "25P04": Kind(Remedy.SHRINK, "the transaction took too long"),
    "57014": Kind(Remedy.SHRINK, "a statement took too long, or was cancelled"),
    "53": Kind(Remedy.WAIT, "the server has too little of something", loud=True),
    "53100": Kind(Remedy.WAIT, "the server's disk is full", loud=True),
    "53200": Kind(Remedy.SHRINK, "the server's memory or lock table is full"),
    "53300": Kind(Remedy.WAIT, "the server has no connection left", loud=True),
    "57": Kind(Remedy.WAIT, "the server stops, starts or has ended the connection"),
    "58": Kind(Remedy.WAIT, "the server's machine fails it", loud=True),
    "25006": Kind(
        Remedy.RECONNECT, "the server takes no writes: a replica, or set to read only; doctor says which", loud=True
    ),
    "42501": _NO_RIGHTS,
    "3F000": _GONE,
    "42P01": _GONE,
    "42703": _GONE,
    "42883": _GONE,
}
# That a statement is not there, or was there before: nothing but a pooler does that to us.
MIXED_UP: Final = frozenset({"26000", "42P05"})
# What one code means in one of the server's source files.
_KINDS_IN: Final = {("54000", "async.c"): _DEAF_QUEUE, ("0A000", "plancache.c"): _CHANGED}
# Faults that carry no code: the driver's, the system's, ours. The first that fits counts.
_KINDS_WITHOUT_CODE: Final[tuple[tuple[type[BaseException], Kind], ...]] = (
    (SchemaFault, _GONE),
    (OversizeFault, Kind(Remedy.SHRINK, "it is more than the server takes at once")),
    (PermissionFault, _NO_RIGHTS),
    (asyncpg.exceptions.TargetServerAttributeNotMatched, KINDS["25006"]),
    (asyncpg.exceptions.OutdatedSchemaCacheError, _CHANGED),
    (OSError, _LOST),
    (TimeoutError, _LOST),
    (asyncpg.InterfaceError, _LOST),
    (asyncpg.InternalClientError, _LOST),
    (DatabaseFault, _LOST),
)
# Classes of codes: a value that is none, a limit of the server's, what it takes for a fault in its own files, and what
# a constraint refuses that somebody has put on our tables. (What a function raises may be any trouble of its own.)
_OF_THE_DATA: Final = ("22", "54", "XX", "23", "44")
# The key of a partition carries the name of its period.
TURN_KEY: Final = re.compile(r"turn(_\w+)?_pkey|execution_state_pkey")


def kind_of(error: BaseException) -> Kind:
    """What a fault means; anything that is not of the database is the mail's."""
    state = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) or (isinstance(error, DatabaseFault) and state):
        state = str(state or "")
        place = (state, str(getattr(error, "server_source_filename", None)))
        return _KINDS_IN.get(place) or KINDS.get(state) or KINDS.get(state[:2]) or _NOT_OURS
    return next((kind for family, kind in _KINDS_WITHOUT_CODE if isinstance(error, family)), _NOT_OURS)


def is_mixed_up(error: BaseException) -> bool:
    """Whether a session is not what we made of it: somebody between us and the server gave us another one's."""
    return getattr(error, "sqlstate", None) in MIXED_UP


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed on another try, perhaps on another connection."""
    return kind_of(error).remedy not in {Remedy.BLAME, Remedy.STOP}


def is_of_the_mail(error: BaseException) -> bool:
    """Whether it is the mail that was decided on, and neither the connection, the server nor the schema."""
    return kind_of(error).remedy is Remedy.BLAME


def is_refusal(error: BaseException) -> bool:
    """Whether the database refuses a row, as by a trigger or a constraint of somebody's; another it may take."""
    return isinstance(error, asyncpg.PostgresError) and is_of_the_mail(error)


def is_held(error: BaseException) -> bool:
    """Whether somebody else's transaction holds what we were about to write."""
    return kind_of(error).remedy is Remedy.LEAVE


def is_unreadable(error: BaseException) -> bool:
    """Whether the server says that a row is at fault which it was to read or make, and not what we asked for."""
    return is_of_the_mail(error) and str(getattr(error, "sqlstate", "")).startswith(_OF_THE_DATA)


def is_conflict(error: BaseException) -> bool:
    """Whether another broker has taken the turn that we were about to write."""
    return isinstance(error, asyncpg.UniqueViolationError) and bool(TURN_KEY.fullmatch(error.constraint_name or ""))


def sentence(error: BaseException) -> str:
    """What a fault says, with the server's hint. Not its DETAIL: there it shows the row, and a row holds payloads."""
    if not isinstance(error, asyncpg.PostgresError):
        return str(error)
    message = str(error.args[0]) if error.args else type(error).__name__
    # Of what a pooler mixes up the driver has a hint for programmers, and the server has none.
    hint = None if is_mixed_up(error) else getattr(error, "hint", None)
    return f"{message}; {hint}" if hint else message


def reason_of(error: BaseException) -> str:
    """What a dead letter says of a fault: its kind and its sentence."""
    return f"{type(error).__name__}: {sentence(error)}"


def trace_of(error: BaseException) -> BaseException | None:
    """The error, where a log may show its traceback: one that ends in words of the server's shows its DETAIL too."""
    return None if any(isinstance(one, asyncpg.PostgresError) for one in _chain(error)) else error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield all that a traceback tells of."""
    seen, left = set[int](), [error]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        within = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        left += [each for each in (one.__cause__, one.__context__, *within) if each is not None]


def told(error: BaseException) -> dict[str, str]:
    """What the log says of a fault: the word for it, its SQLSTATE where it has one, and the reason."""
    state = getattr(error, "sqlstate", None)
    return {
        "because": kind_of(error).word,
        **({"sqlstate": str(state)} if state else {}),
        "error": reason_of(error),
    }

"""What the daemon does about each error of the database: one table, by SQLSTATE.

After an error of the connection, the server or the schema the daemon waits or ends; no event becomes a dead letter. Any
error that is not in the table is blamed on the events of the batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

import asyncpg

from noetl_broker.errors import DatabaseFault, OversizeFault, PermissionFault, SchemaFault


class Remedy(StrEnum):
    """What the daemon does about an error, after the rollback."""

    RETRY = "again"  # retry after a short pause: another transaction was first
    SHRINK = "fewer"  # retry with half as many events
    QUIET = "without notifying"  # retry, and send no notifications for a while
    RECONNECT = "reconnect"  # retry on new connections
    WAIT = "wait"  # retry after growing pauses
    LEAVE = "leave out"  # retry without the execution that meets it, for a while
    STOP = "stop"  # the daemon ends: a person must act
    BLAME = "set aside"  # blame the event: retry it alone, then make it a dead letter


class FaultClass(NamedTuple):
    """A remedy, the reason for the log, and whether it is logged as an error."""

    remedy: Remedy
    reason: str
    logged_as_error: bool = False


_LOST: Final = FaultClass(Remedy.WAIT, "the connection was lost")
_MOVED: Final = FaultClass(Remedy.RECONNECT, "the bucket is on another node of Citus now")
_NOT_OURS: Final = FaultClass(Remedy.BLAME, "the mail cannot be decided on", logged_as_error=True)
_CHANGED: Final = FaultClass(Remedy.RECONNECT, "the schema was changed under a prepared statement")
_DEAF_QUEUE: Final = FaultClass(
    Remedy.QUIET, "the notification queue is full: a listener does not read it", logged_as_error=True
)
_GONE: Final = FaultClass(Remedy.STOP, "a part of the schema is gone", logged_as_error=True)
_MIXED_UP: Final = FaultClass(
    Remedy.RECONNECT,
    "the session lost its prepared statements, as behind a transaction pooler: connect to the server itself",
    logged_as_error=True,
)
_NO_RIGHTS: Final = FaultClass(Remedy.WAIT, "a right is missing", logged_as_error=True)
_NO_LOGIN: Final = FaultClass(Remedy.WAIT, "the login is refused", logged_as_error=True)

# The code is looked up first, then its class (two characters).
FAULT_CLASSES: Final[dict[str, FaultClass]] = {
    "08": _LOST,
    "08P01": FaultClass(
        Remedy.RECONNECT, "a pooler breaks the protocol: connect to the server itself", logged_as_error=True
    ),
    "25P02": _MIXED_UP,
    "26000": _MIXED_UP,
    "42P05": _MIXED_UP,
    "28": _NO_LOGIN,
    "3D000": FaultClass(Remedy.STOP, "the database is gone", logged_as_error=True),
    "40": FaultClass(Remedy.RETRY, "another transaction was first"),
    "55P03": FaultClass(Remedy.LEAVE, "a lock was not free in time"),
    "25P03": FaultClass(Remedy.RETRY, "the transaction stood idle too long"),
    "25P04": FaultClass(Remedy.SHRINK, "the transaction took too long"),
    "57014": FaultClass(Remedy.SHRINK, "a statement took too long, or was cancelled"),
    "53": FaultClass(Remedy.WAIT, "the server lacks a resource", logged_as_error=True),
    "53100": FaultClass(Remedy.WAIT, "the server's disk is full", logged_as_error=True),
    "53200": FaultClass(Remedy.SHRINK, "the server's memory or lock table is full"),
    "53300": FaultClass(Remedy.WAIT, "the server has no connection left", logged_as_error=True),
    "57": FaultClass(Remedy.WAIT, "the server stops, starts or has ended the connection"),
    "58": FaultClass(Remedy.WAIT, "the server's machine reports a fault", logged_as_error=True),
    "25006": FaultClass(
        Remedy.RECONNECT,
        "the server takes no writes: a replica, or set to read only; doctor says which",
        logged_as_error=True,
    ),
    "42501": _NO_RIGHTS,
    "NB503": _MOVED,
    "3F000": _GONE,
    "42P01": _GONE,
    "42703": _GONE,
    "42883": _GONE,
}
# A prepared statement is unknown, or known already: only a pooler causes that.
MIXED_UP: Final = frozenset({"26000", "42P05"})
# Codes whose meaning depends on the source file of the server.
_FAULT_CLASSES_BY_FILE: Final = {("54000", "async.c"): _DEAF_QUEUE, ("0A000", "plancache.c"): _CHANGED}
# Errors without a code: the driver's, the system's, ours. The first match counts.
_FAULT_CLASSES_WITHOUT_CODE: Final[tuple[tuple[type[BaseException], FaultClass], ...]] = (
    (SchemaFault, _GONE),
    (OversizeFault, FaultClass(Remedy.SHRINK, "it is larger than the server accepts at once")),
    (PermissionFault, _NO_RIGHTS),
    (asyncpg.exceptions.TargetServerAttributeNotMatched, FAULT_CLASSES["25006"]),
    (asyncpg.exceptions.OutdatedSchemaCacheError, _CHANGED),
    (OSError, _LOST),
    (TimeoutError, _LOST),
    (asyncpg.InterfaceError, _LOST),
    (asyncpg.InternalClientError, _LOST),
    (DatabaseFault, _LOST),
)
# Classes of codes about data: invalid value, server limit, corrupt data, violated constraint.
_OF_THE_DATA: Final = ("22", "54", "XX", "23")
# The key of a partition contains the name of its period, that of a shard its number.
TURN_KEY: Final = re.compile(r"(turn(_\w+)?_pkey|execution_state_pkey)(_\d+)?")


# A shard in the server's message; the date at the end of a partition's name is no number of a shard.
_SHARD: Final = re.compile(r'_(?!20\d{6}")\d{6,}"')


def fault_class_of(error: BaseException) -> FaultClass:
    """The class of an error; an error that is not the database's is blamed on the event."""
    state = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) or (isinstance(error, DatabaseFault) and state):
        if is_moved(error):
            return _MOVED
        state = str(state or "")
        key = (state, str(getattr(error, "server_source_filename", None)))
        return _FAULT_CLASSES_BY_FILE.get(key) or FAULT_CLASSES.get(state) or FAULT_CLASSES.get(state[:2]) or _NOT_OURS
    return next((found for family, found in _FAULT_CLASSES_WITHOUT_CODE if isinstance(error, family)), _NOT_OURS)


def is_moved(error: BaseException) -> bool:
    """Whether the bucket is on another node of Citus: its guard says so, or its shards are gone from this one."""
    state = getattr(error, "sqlstate", None)
    return state == "NB503" or (state == "42P01" and _SHARD.search(str(error)) is not None)


def is_mixed_up(error: BaseException) -> bool:
    """Whether a pooler gave us a session without our prepared statements."""
    return getattr(error, "sqlstate", None) in MIXED_UP


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed, perhaps on another connection."""
    return fault_class_of(error).remedy not in {Remedy.BLAME, Remedy.STOP}


def is_fault_of_event(error: BaseException) -> bool:
    """Whether the event is to blame, and not the connection, the server or the schema."""
    return fault_class_of(error).remedy is Remedy.BLAME


def is_held(error: BaseException) -> bool:
    """Whether another transaction holds a row that we were about to write."""
    return fault_class_of(error).remedy is Remedy.LEAVE


def is_unreadable(error: BaseException) -> bool:
    """Whether the server blames the data of a row that it read or wrote."""
    return is_fault_of_event(error) and str(getattr(error, "sqlstate", "")).startswith(_OF_THE_DATA)


def is_conflict(error: BaseException) -> bool:
    """Whether another broker has taken the turn that we were about to write."""
    return isinstance(error, asyncpg.UniqueViolationError) and bool(TURN_KEY.fullmatch(error.constraint_name or ""))


def message_of(error: BaseException) -> str:
    """The message of an error, with the server's hint; without its DETAIL, which shows rows and so payloads."""
    if not isinstance(error, asyncpg.PostgresError):
        return str(error)
    message = str(error.args[0]) if error.args else type(error).__name__
    # The driver's hint about prepared statements is for programmers.
    hint = None if is_mixed_up(error) else getattr(error, "hint", None)
    return f"{message}; {hint}" if hint else message


def reason_of(error: BaseException) -> str:
    """The reason of a dead letter: the type and the message of the error."""
    return f"{type(error).__name__}: {message_of(error)}"


def trace_of(error: BaseException) -> BaseException | None:
    """The error if a log may show its traceback; None if that would show the server's DETAIL."""
    return None if any(isinstance(one, asyncpg.PostgresError) for one in _chain(error)) else error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield all errors that a traceback shows."""
    seen, rest = set[int](), [error]
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        within = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        rest += [each for each in (one.__cause__, one.__context__, *within) if each is not None]


def log_fields(error: BaseException) -> dict[str, str]:
    """The log fields of an error: `because`, `sqlstate` if it has one, and `error`."""
    state = getattr(error, "sqlstate", None)
    return {
        "because": fault_class_of(error).reason,
        **({"sqlstate": str(state)} if state else {}),
        "error": reason_of(error),
    }

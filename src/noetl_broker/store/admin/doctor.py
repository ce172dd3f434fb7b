"""Examines a database for what keeps brokers from working: the connection, the server, the schema, the rights.

Only the connection must work: each check runs, also if others find problems.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg

from noetl_broker import __version__
from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.store.admin import doctor_checks
from noetl_broker.store.admin.doctor_checks import DoctorFinding, Thresholds
from noetl_broker.store.connect.connection import SESSION, Connection, connect, named_of, schema_of
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.listener import CHANNEL
from noetl_broker.store.connect.migrations import (
    SERVED_VERSIONS,
    Recorded,
    check_unchanged,
    check_version,
    missing_operator_rights,
    missing_rights,
    version_of,
)
from noetl_broker.store.connect.schema_name import with_schema
from noetl_broker.store.connect.server_checks import REMEDY, ReadOnly, refuse_mixing, why_read_only
from noetl_broker.store.connect.session import translate_faults
from noetl_broker.store.connect.sqlstates import message_of
from noetl_broker.store.queries import sql

NAME = "noetl-broker doctor"
LEAST_VERSION, WITH_TRANSACTION_TIMEOUT = 15, 17
TRIPS = 5
SHOWN = 4  # of a list of rights

Server = Mapping[str, Any]


async def examine(database: Database, limits: Thresholds | None = None) -> list[DoctorFinding]:
    """Run all checks; the first problem may explain the later ones.

    Raises the fault that fits if there is no connection.
    """
    limits = limits or Thresholds()
    connection = await connect(database, name=NAME, takes="reads")
    try:
        mixes = await _mixes_up(database, connection)
        if mixes:  # no other answer could be trusted
            return mixes
        with translate_faults():
            found = await _check_server(connection, limits)
            found += await _check_listening(database, connection, limits)
            schema = await _check_schema(connection)
            found += schema
            if schema[0].state != "problem":
                for check in (_check_rights, *doctor_checks.CHECKS):
                    found += await _allowed(check, connection, limits)
            return [_with_schema(finding, database.named) for finding in found]
    finally:
        with contextlib.suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=2.0)


def _with_schema(finding: DoctorFinding, schema: str) -> DoctorFinding:
    """The finding with the schema in the commands that it names."""
    why, do = (None if text is None else with_schema(text, schema) for text in (finding.why, finding.do))
    return finding._replace(why=why, do=do)


Check = Callable[[Connection, Thresholds], Awaitable[list[DoctorFinding]]]


async def _allowed(check: Check, connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """Run a check; a missing right is its finding."""
    try:
        return await check(connection, limits)
    except asyncpg.InsufficientPrivilegeError as error:
        name = check.__name__.removeprefix("_").removeprefix("check_").replace("_", " ")
        return [
            DoctorFinding(
                name, "notice", f"this login lacks the right: {message_of(error)}",
                "A problem there is not found.", "Call doctor with an operator's login, or the owner's.",
            )
        ]  # fmt: skip


async def _check_server(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    answers = [await _ask(connection) for _ in range(TRIPS)]
    # The quickest says most about the network and least about other work.
    trip, here, server = min(answers, key=lambda answer: answer[0])
    row = await connection.fetchrow(sql("examine_read_only"))
    return [
        _server(server, trip, limits, why_read_only(dict(row)) if row is not None else None),
        *_pooler(connection, server),
        *_version(server),
        _clock(server, here, limits),
        *await _durability(connection),
        *await _connections(connection, limits),
    ]


async def _ask(connection: Connection) -> tuple[float, float, Server]:
    """Seconds of one round trip, this machine's clock in the middle of it, and the server's answer."""
    here, began = time.time(), time.monotonic()
    row = await connection.fetchrow(sql("examine_server"))
    seconds = time.monotonic() - began
    if row is None:
        raise SchemaFault("the server gives no answer about itself")
    return seconds, here + seconds / 2, dict(row)


def _server(server: Server, trip: float, limits: Thresholds, why: ReadOnly | None) -> DoctorFinding:
    facts = {"version": server["version"], "database": server["database"], "role": server["role"]}
    facts |= {"round_trip_seconds": round(trip, 6)}
    says = (
        f"PostgreSQL {server['version'].split()[0]}, database {server['database']} as {server['role']},"
        f" a round trip takes {trip * 1000:.1f} ms"
    )
    if why is not None:
        return DoctorFinding(
            "connection", "problem", f"{says}; but {why.reason}",
            "A broker writes in every turn, and on a replica LISTEN is refused.",
            f"{why.remedy[:1].upper()}{why.remedy[1:]}.", facts,
        )  # fmt: skip
    if trip > limits.slow_trip_seconds:
        return DoctorFinding(
            "connection", "notice", says,
            "Each transaction of a broker takes four round trips: each of them delays the next step.",
            "Run the broker near its database.", facts,
        )  # fmt: skip
    return DoctorFinding("connection", "ok", says, facts=facts)


async def _mixes_up(database: Database, connection: Connection) -> list[DoctorFinding]:
    try:
        await refuse_mixing(connection, lambda: connect(database, name=NAME))
    except DatabaseFault as fault:
        return [
            DoctorFinding(
                "pooler", "problem", str(fault).partition(":")[0],
                "A statement may be another program's of the same name: brokers and workers wait, clients are refused.",
                f"{REMEDY[:1].upper()}{REMEDY[1:]}.",
            )
        ]  # fmt: skip
    return []


def _pooler(connection: Connection, server: Server) -> list[DoctorFinding]:
    """Find a pooler by its signs: another process answers than greeted us, or our session settings are dropped."""
    greeted = connection.get_server_pid()
    kept = server["statement_timeout"] == SESSION["statement_timeout"]
    if greeted == server["process_id"] and kept:
        return []
    signs = []
    if greeted != server["process_id"]:
        signs.append(f"it greets as process {greeted} and works as {server['process_id']}")
    if not kept:
        signs.append(f"statement_timeout is {server['statement_timeout']}, not our {SESSION['statement_timeout']}")
    return [
        DoctorFinding(
            "pooler", "problem", f"a pooler stands between here and the server: {'; '.join(signs)}",
            "LISTEN, the gate and prepared statements belong to one session. Without our time limits, a broker that"
            " hangs keeps its locks.",
            "Connect brokers to the server itself; poolers are for producers.",
            {"greeted_process_id": greeted, "process_id": server["process_id"],
             "statement_timeout": server["statement_timeout"]},
        )
    ]  # fmt: skip


def _version(server: Server) -> list[DoctorFinding]:
    major = server["version_number"] // 10_000
    facts = {"major": major}
    if major < LEAST_VERSION:
        return [
            DoctorFinding(
                "version", "problem", f"PostgreSQL {major} is older than {LEAST_VERSION}",
                "The program is made for and tested on newer ones.", f"Upgrade to {WITH_TRANSACTION_TIMEOUT}.", facts,
            )
        ]  # fmt: skip
    if major < WITH_TRANSACTION_TIMEOUT:
        return [
            DoctorFinding(
                "version", "notice", f"PostgreSQL {major} has no transaction_timeout",
                "A broker that hangs between two statements keeps its locks for 10 s, one in a statement for 30 s.",
                f"PostgreSQL {WITH_TRANSACTION_TIMEOUT} limits the whole transaction. Nothing is lost without it.",
                facts,
            )
        ]  # fmt: skip
    return []


def _clock(server: Server, here: float, limits: Thresholds) -> DoctorFinding:
    ahead = here - server["now_seconds"]
    facts = {"ahead_seconds": round(ahead, 3)}
    if abs(ahead) <= limits.clock_seconds:
        return DoctorFinding(
            "clock", "ok", f"this machine and the database agree within {abs(ahead):.2f} s", facts=facts
        )
    way = "ahead of" if ahead > 0 else "behind"
    return DoctorFinding(
        "clock", "problem", f"this machine's clock is {abs(ahead):.1f} s {way} the database's",
        "Leases and delays go by the database's clock alone and stay right. But the log of a broker here does not match"
        " the times of events. Servers may refuse certificates and tokens.",
        "Synchronize both clocks (NTP); ask the database: select clock_timestamp().", facts,
    )  # fmt: skip


async def _durability(connection: Connection) -> list[DoctorFinding]:
    off = [row["name"] for row in await connection.fetch(sql("examine_durability"))]
    found = []
    if unsafe := [name for name in off if name in {"fsync", "full_page_writes"}]:
        found.append(DoctorFinding(
            "durability", "notice", f"{' and '.join(unsafe)} {'is' if len(unsafe) == 1 else 'are'} off",
            "A crash of the machine may lose or damage what was committed.",
            "Switch it on, except where the data may be lost, as in tests.", {"off": unsafe},
        ))  # fmt: skip
    if idle := [name for name in off if name in {"autovacuum", "track_counts"}]:
        found.append(DoctorFinding(
            "vacuum", "problem", f"{' and '.join(idle)} {'is' if len(idle) == 1 else 'are'} off",
            "Each turn writes the inbox and the state; without vacuum each read of them takes longer and longer.",
            "Switch it on: alter system set autovacuum = on; select pg_reload_conf().", {"off": idle},
        ))  # fmt: skip
    return found


async def _connections(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    row = await connection.fetchrow(sql("examine_connections"))
    if row is None or row["used"] <= row["most"] * limits.connections_share:
        return []
    return [
        DoctorFinding(
            "connections", "problem", f"{row['used']} of {row['most']} connections are in use",
            "A broker or worker that is started, or connects again, may be refused.",
            "Raise max_connections, or run fewer processes (a broker holds lanes + 4).", dict(row),
        )
    ]  # fmt: skip


async def _check_listening(database: Database, connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """LISTEN on a second connection and notify it from this one, as a broker does."""
    heard = asyncio.Event()
    word = f"probe:{uuid.uuid4().hex[:12]}"  # brokers ignore notifications that begin with probe:
    listener = await connect(database, name=NAME, takes="reads")
    reason = f"a notification was not heard within {limits.probe_seconds:g} s"
    began = time.monotonic()
    try:
        async with asyncio.timeout(limits.probe_seconds):
            await listener.add_listener(CHANNEL, lambda *notification: heard.set() if notification[3] == word else None)
            began = time.monotonic()
            await connection.execute(sql("probe_listener"), word)
            await heard.wait()
    except TimeoutError:
        pass
    except asyncpg.PostgresError as error:
        reason = f"the server refuses LISTEN or NOTIFY: {message_of(error)}"
    finally:
        listener.terminate()
    seconds = time.monotonic() - began
    if heard.is_set():
        says = f"a notification is heard after {seconds * 1000:.1f} ms"
        return [DoctorFinding("listen", "ok", says, facts={"seconds": round(seconds, 6)})]
    return [
        DoctorFinding(
            "listen", "problem", reason,
            "Nothing is lost, but each step may wait: a sleeping broker finds events only when it polls."
            " It polls every sweep_seconds (5 s by default).",
            "Connect brokers to the server itself: LISTEN does not work through a transaction pooler, such as"
            " PgBouncer's pool_mode = transaction, and not on a replica.",
        )
    ]  # fmt: skip


async def _check_schema(connection: Connection) -> list[DoctorFinding]:
    """Whether the applied migrations are those of this program, and the trigger that makes mail of events is there."""
    schema = schema_of(connection)
    why = "Brokers refuse to start on a schema that they cannot serve (exit 78)."
    try:
        applied = await check_version(connection)
        why = "Brokers start, but noetl-broker migrate refuses to go on (exit 78)."
        check_unchanged(applied)
    except SchemaFault as fault:
        what, _, remedy = str(fault).partition("; ")
        return [DoctorFinding("schema", "problem", what, why, f"{remedy[:1].upper()}{remedy[1:]}.")]
    except PermissionFault as fault:
        says = f"this login may not see it: {str(fault).partition(': ')[2]}"
        why = "A broker with this login ends with 77."
        role = f"{named_of(connection)}_operator"
        do = f"Call doctor with a login in the role {role}, which noetl-broker migrate --roles makes."
        return [DoctorFinding("schema", "problem", says, why, do)]
    found = [_schema_version(applied)]
    if await connection.fetchval(sql("examine_given_back")):
        says = "none of our triggers is on the tables of this NoETL server; its own broker decides"
        return [*found, DoctorFinding("triggers", "ok", says)]
    if off := [row["trigger_name"] for row in await connection.fetch(sql("examine_triggers"))]:
        found.append(DoctorFinding(
            "triggers", "problem", f"the trigger {', '.join(off)} on {schema}.event is missing or switched off",
            "Events that are inserted reach no broker: executions do not move, and nothing says why.",
            f"Call alter table {schema}.event enable trigger all; then noetl-broker reevaluate ID for each that stands"
            " still.",
            {"triggers": off},
        ))  # fmt: skip
    return found


def _schema_version(applied: dict[int, Recorded]) -> DoctorFinding:
    version, newest = max(applied), SERVED_VERSIONS[-1]
    facts = {"version": version, "program": __version__}
    if version == newest:
        return DoctorFinding("schema", "ok", version_of(applied), facts=facts)
    do = "Run noetl-broker migrate." if version < newest else "Replace this program by the newer one."
    return DoctorFinding("schema", "notice", version_of(applied), "An upgrade is under way.", do, facts)


async def _check_rights(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """The rights of our login and of the role that `migrate --roles` made, which may lack some after an upgrade."""
    named, found = named_of(connection), []
    for role, is_superuser in await connection.fetch(sql("examine_roles")):
        lacking = await missing_rights(connection, role)
        if lacking:
            found.append(DoctorFinding(
                "rights", "problem", f"the role {role} lacks {_first_of(lacking)}",
                "A broker with this login ends with 77, or stops deciding if it lost a right while it ran.",
                "noetl-broker migrate --roles as the owner of the schema, after each upgrade too; then give brokers"
                f" a login in the role {named}_broker.", {"role": role, "missing": lacking},
            ))  # fmt: skip
        elif is_superuser:
            found.append(DoctorFinding(
                "rights", "notice", f"the role {role} is a superuser",
                "Anybody who finds a broker's DSN then owns the whole server.",
                "noetl-broker migrate --roles, then: create role broker_1 login password '…'"
                f" in role {named}_broker.",
                {"role": role},
            ))  # fmt: skip
        else:
            found.append(
                DoctorFinding("rights", "ok", f"the role {role} may do what a broker does", facts={"role": role})
            )
    for (role,) in await connection.fetch(sql("examine_operators")):
        lacking = await missing_operator_rights(connection, role)
        if lacking:
            found.append(DoctorFinding(
                "rights", "problem", f"the role {role} lacks {_first_of(lacking)}",
                "The console, and commands of people, are refused what needs it.",
                "noetl-broker migrate --roles as the owner of the schema, after each upgrade too.",
                {"role": role, "missing": lacking},
            ))  # fmt: skip
    return found


def _first_of(lacking: Sequence[str]) -> str:
    """The first of these rights, and how many there are more."""
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    return ", ".join(lacking[:SHOWN]) + more

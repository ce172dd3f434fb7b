"""The command `migrate`: the schema and its roles brought up to date, or what that would do."""

from __future__ import annotations

import asyncio

import click

from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.rights import OWNER
from noetl_broker.errors import OperatorFault, PermissionFault
from noetl_broker.store.connect import installation
from noetl_broker.store.connect import migrations as schema
from noetl_broker.store.connect.installation import OnCitus
from noetl_broker.store.connect.schema_name import rendered
from noetl_broker.store.connect.session import translate_faults


@command(
    "migrate",
    role=OWNER,
    example=(
        "noetl-broker migrate --roles --dsn postgresql://owner@localhost/noetl\n"
        "noetl-broker migrate --buckets 8 --roles\n"
        "noetl-broker migrate --status\n"
        "noetl-broker migrate --sql > schema.sql"
    ),
)
@click.option("--status", is_flag=True, help="Show which migrations are applied; change nothing.")
@click.option("--roles", is_flag=True, help="Make the roles too, or bring their rights up to date.")
@click.option("--buckets", type=int, metavar="N", help="Make an installation with N buckets, 2 to 64, fixed for ever.")
@click.option("--citus", is_flag=True, help="With --buckets: put the buckets on the nodes of Citus.")
@click.option("--untried-citus", is_flag=True, help="With --citus: take a version of Citus that was not tried.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL; change nothing, ask no database.")
def migrate(
    call: Call, *, status: bool, roles: bool, buckets: int | None, citus: bool, untried_citus: bool, as_sql: bool
) -> None:
    """Bring the database's schema up to date.

    Each migration is applied once, in order, under a lock. Safe on an empty database. Beside the tables of a NoETL
    server it adds what is missing and changes no data. The roles noetl_broker, noetl_operator, noetl_worker,
    noetl_producer, noetl_reader, noetl_approver and noetl_author are groups without a login. The page Security says
    what each may do.
    With --schema NAME, everything is named NAME in place of noetl. --buckets N makes N complete brokers, in schemas
    NAME_0, NAME_1 and so on. Functions in NAME route calls to them. With --citus, each of them is on a node of Citus,
    which may move it. docs/how-to/scaling.md says when that helps.
    """
    if status and (as_sql or roles or buckets is not None):
        raise OperatorFault("--status stands alone: --sql prints, --roles and --buckets change")
    if as_sql and buckets is not None:
        raise OperatorFault("--sql prints one schema; an installation with buckets is made by migrate --buckets itself")
    if (citus or untried_citus) and (buckets is None or not citus):
        raise OperatorFault("--citus goes with --buckets N, and --untried-citus with both")
    if as_sql:
        _print_sql(call, roles=roles)
    elif status:
        _show_status(call)
    else:
        on_citus = OnCitus.ANY_VERSION if untried_citus else OnCitus.YES if citus else OnCitus.NO
        _apply(call, buckets, on_citus, roles=roles)


def _print_sql(call: Call, *, roles: bool) -> None:
    files = [migration._asdict() for migration in (*schema.migrations(), schema.compat_noetl())]
    if roles:
        files.append({"name": "roles.sql", "text": schema.roles()})
    for file in files:
        file["text"] = rendered(str(file["text"]), call.database.schema)
    if call.printed(files):
        return
    for file in files:
        output.show_text(f"-- {file['name']}\n\n{file['text']}")


def _show_status(call: Call) -> None:
    with translate_faults():
        applied = asyncio.run(installation.status(call.database))
    state: output.Field = lambda entry: "pending" if entry["pending"] else "applied"  # noqa: E731 - a column
    several = len(applied) > 1
    rows = [
        ({"schema": name} if several else {}) | migration._asdict()
        for name, migrations in applied.items()
        for migration in migrations
    ]
    of_schema: output.Columns = {"schema": "schema"} if several else {}
    call.show_rows(rows, {**of_schema, "version": "version", "migration": "name", "state": state})


def _apply(call: Call, buckets: int | None, on_citus: OnCitus, *, roles: bool) -> None:
    with translate_faults():
        done = asyncio.run(installation.migrate(call.database, buckets, on_citus))
        names = [name for applied in done.values() for name in applied]
        for schema_name, applied in done.items():
            if len(done) > 1 and applied:
                call.say(f"{schema_name}: applied {len(applied)} files, {applied[0]} to {applied[-1]}")
            elif len(done) == 1:
                for name in applied:
                    call.say(f"applied {name}")
        if not names:
            call.say("the schema is up to date")
        if roles:
            _make_roles(call)
            call.say("applied roles.sql")
    if len(done) > 1:
        call.printed({"applied": done, "roles": roles})
    else:
        call.printed({"applied": [*names, *(["roles.sql"] if roles else [])]})


def _make_roles(call: Call) -> None:
    """Make the roles; raises PermissionFault that says what is done, and what is left to do."""
    try:
        asyncio.run(installation.create_roles(call.database))
    except PermissionFault as fault:
        message = (
            f"the schema is applied, the roles are not: {fault}. Left to do: noetl-broker migrate --roles, with a login"
            " that owns the schema and has createrole. A broker that logs in as the owner of the schema needs no roles"
        )
        raise PermissionFault(message) from fault

"""The command `migrate`: the schema brought up to date, or what that would do."""

from __future__ import annotations

import asyncio

import click

from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.errors import OperatorFault
from noetl_broker.store import migrate as schema


@command("migrate", example="noetl-broker migrate --dsn postgresql://localhost/demo_noetl")
@click.option("--status", is_flag=True, help="Show which migrations are applied; change nothing.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL; change nothing, ask no database.")
def migrate(call: Call, *, status: bool, as_sql: bool) -> None:
    """Bring the database's schema up to date.

    Each migration is applied once, in order, under a lock. Safe on an empty database and beside the tables of a NoETL
    server: there it adds what is missing and changes no data.
    """
    if status and as_sql:
        raise OperatorFault("--status and --sql exclude each other")
    if as_sql:
        _print_sql(call)
    elif status:
        _show_status(call)
    else:
        _apply(call)


def _print_sql(call: Call) -> None:
    migrations = schema.migrations()
    if call.as_json:
        output.show_json([migration._asdict() for migration in migrations])
        return
    for migration in migrations:
        click.echo(f"-- {migration.name}\n\n{migration.text}")


def _show_status(call: Call) -> None:
    applied = asyncio.run(schema.status(call.dsn))
    if call.as_json:
        output.show_json([migration._asdict() for migration in applied])
        return
    rows = [(entry.version, entry.name, "pending" if entry.pending else "applied") for entry in applied]
    output.show_table(("version", "migration", "state"), rows)


def _apply(call: Call) -> None:
    names = asyncio.run(schema.migrate(call.dsn))
    if call.as_json:
        output.show_json({"applied": names})
        return
    for name in names:
        click.echo(f"applied {name}")
    if not names:
        click.echo("the schema is up to date")

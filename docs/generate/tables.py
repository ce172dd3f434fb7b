"""Generates the page of tables, views and functions, from the comments of a migrated database."""

from __future__ import annotations

import re

from docs.generate.markdown import table
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.session import session

ABOUT = """\
The tables, the views and the functions that people call, from the comments of a migrated database.
[Worker protocol](worker-protocol.md) says how to use it, [Security](security.md#rights) who may."""
COLUMNS = """
select c.relname, c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), ''), a.attname,
  replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz'),
  a.attnotnull, coalesce(col_description(c.oid, a.attnum), '')
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'noetl'::regnamespace and c.relkind in ('r', 'p', 'v') and not c.relispartition
order by c.relkind = 'v', c.relname collate "C", a.attnum
"""
FUNCTIONS = """
select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
from pg_proc p
where p.pronamespace = 'noetl'::regnamespace and obj_description(p.oid, 'pg_proc') is not null
order by p.proname collate "C", pg_get_function_identity_arguments(p.oid) collate "C"
"""


async def tables_page(database: Database) -> str:
    """Return the page of tables, views and functions."""
    async with session(database, name="docs") as connection:
        columns, functions = await connection.fetch(COLUMNS), await connection.fetch(FUNCTIONS)
    parts = ["# Tables and functions", ABOUT, "## Tables"]
    tables: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
    for name, kind, comment, attribute, data_type, required, meaning in columns:
        column_type = f"{data_type}{', required' if required else ''}"
        tables.setdefault((name, kind, comment), []).append((f"`{attribute}`", column_type, meaning))
    for (name, _, comment), rows in (item for item in tables.items() if item[0][1] != "v"):
        parts += [f"### noetl.{name}", comment, table(("column", "type", "meaning"), rows)]
    parts += ["## Views", "The columns are those of the tables."]
    views = [
        (f"`noetl.{name}`", comment, ", ".join(row[0] for row in rows))
        for (name, kind, comment), rows in tables.items()
        if kind == "v"
    ]
    parts += [table(("view", "shows", "columns"), views), "## Functions"]
    parts += [table(("function", "gives", "does"), [_function(*row) for row in functions])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _function(name: str, arguments: str, result: str, comment: str) -> tuple[str, str, str]:
    plain = re.sub(r"::\w+(\[\])?", "", arguments)
    gives = "a table" if result.startswith("TABLE") else result.replace("SETOF ", "rows of ")
    return f"`noetl.{name}({plain})`", gives, comment

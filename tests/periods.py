"""Periods of the past: a database gets ids of an earlier day, and partitions for it."""

from __future__ import annotations

from tests.brokers import complete_jobs, drain, execute, register, rows, start, until_ended, value
from tests.postgres import Database, named

LONG_AGO, LATER = "20250101", "20250201"
DAYS = {LONG_AGO: "2025-01-01Z", LATER: "2025-02-01Z"}

BODY = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: "def main(): pass", next: end}
- {step: end}
"""

# New ids are of this day, at noon.
SET_CLOCK = """
create or replace function noetl.next_id() returns bigint
language sql volatile parallel unsafe
as $$
  select (noetl.first_id_at(coalesce(nullif(current_setting('noetl.day', true), ''), '{day}')::timestamptz
    + interval '12 hours')) | (nextval('noetl.id_seq'::regclass) & 1048575)
$$
"""
ADD_PERIOD = """
do $$
declare
  history record;
  first_id bigint := {first};
  next_id bigint := {next};
begin
  insert into noetl.period values ('{name}', first_id, next_id);
  for history in select t.name from noetl.history_tables() t where t.partitioned loop
    execute format('create table noetl_history.%I partition of noetl.%I for values from (%s) to (%s)',
      history.name || '_{name}', history.name, first_id, next_id);
  end loop;
  alter table noetl_history.transition_{name} replica identity full;
end
$$
"""


async def add_period(database: Database, name: str) -> None:
    """Add a period of one month with its partitions."""
    first, following = f"'{DAYS[name]}'", f"'{DAYS[name]}'::timestamptz + interval '1 month'"
    await execute(
        database,
        ADD_PERIOD.format(name=name, first=f"noetl.first_id_at({first})", next=f"noetl.first_id_at({following})"),
    )


async def copy_periods(source: Database, target: Database) -> None:
    """Replace the periods of a database without executions by those of another database."""
    await drop_periods(target)
    for name, first, following in await rows(source, "select name, first_id, next_id from noetl.period"):
        await execute(target, ADD_PERIOD.format(name=name, first=first, next=following))


async def drop_periods(database: Database) -> None:
    """Drop all periods, with their empty partitions."""
    for (name,) in await rows(database, "select name from noetl.period"):
        for table in await partitions(database, "noetl_history", name):
            await execute(database, f"drop table noetl_history.{table}_{name}")
        await execute(database, "delete from noetl.period where name = $1", name)


async def set_clock(database: Database, name: str) -> None:
    """Take all new ids from this period."""
    await execute(database, SET_CLOCK.format(day=DAYS[name]))


async def ended_in(database: Database, name: str, *, count: int = 1) -> list[int]:
    """Add a period with `count` ended executions; return their ids."""
    if not await value(database, "select 1 from noetl.catalog where path = 'story'"):
        await register(database, BODY)
    await add_period(database, name)
    await set_clock(database, name)
    ids = await start(database, count=count)
    await drain(database)
    await complete_jobs(database, {"n": 1})
    await drain(database)
    await until_ended(database)
    return ids


async def partitions(database: Database, schema: str, period: str) -> list[str]:
    """Return the names of a period's tables in a schema, without the period."""
    found = await rows(
        database,
        "select relname::text from pg_class where relnamespace = $1::text::regnamespace and relkind = 'r'"
        " and relname like '%\\_' || $2 order by relname",
        named(schema),
        period,
    )
    return [name.removesuffix(f"_{period}") for (name,) in found]

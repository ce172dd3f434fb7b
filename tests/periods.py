"""What the tests of archiving share: a database whose clock of ids can be set back, with periods of the past."""

from __future__ import annotations

from tests.brokers import complete_jobs, drain, execute, register, rows, start, until_ended, value
from tests.postgres import Database

LONG_AGO, LATER = "20250101", "20250201"
DAYS = {LONG_AGO: "2025-01-01Z", LATER: "2025-02-01Z"}

BODY = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: "def main(): pass", next: end}
- {step: end}
"""

# The ids of what is written from now on are of this day, at noon.
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
  first_id bigint := noetl.first_id_at('{day}');
  next_id bigint := noetl.first_id_at('{day}'::timestamptz + interval '1 month');
begin
  insert into noetl.period values ('{name}', first_id, next_id);
  for history in select t.name from noetl.history_tables() t where t.partitioned loop
    execute format('create table noetl_history.%I partition of noetl.%I for values from (%s) to (%s)',
      history.name || '_{name}', history.name, first_id, next_id);
  end loop;
end
$$
"""


async def add_period(database: Database, name: str) -> None:
    """A period of one month with its partitions."""
    await execute(database, ADD_PERIOD.format(name=name, day=DAYS[name]))


async def set_clock(database: Database, name: str) -> None:
    """Whatever gets an id from now on belongs to this period."""
    await execute(database, SET_CLOCK.format(day=DAYS[name]))


async def ended_in(database: Database, name: str, *, count: int = 1) -> list[int]:
    """A period with so many executions in it that have ended."""
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
    """The tables of a period in a schema."""
    found = await rows(
        database,
        "select relname::text from pg_class where relnamespace = $1::text::regnamespace and relkind = 'r'"
        " and relname like '%\\_' || $2 order by relname",
        schema,
        period,
    )
    return [name.removesuffix(f"_{period}") for (name,) in found]

"""The ideal batch: writes the rows of turns on one connection, without rules, templates or reads of other rows.

It takes mail, locks and reads each state, and writes what a turn of the ten-step playbook writes. For two hundred
executions that takes two statements and a commit.
"""

from __future__ import annotations

import time
from typing import Final

from benchmarks.bench import Connection

BATCH: Final = 200

TAKE: Final = """
    with taken as (
      delete from noetl.inbox i
      where i.mail_id = any(array(select mail_id from noetl.inbox order by mail_id limit $1 for update skip locked))
      returning i.execution_id, i.event_id
    )
    select t.execution_id, t.event_id, pg_try_advisory_xact_lock(t.execution_id), s.turn, s.tokens::text, e.node_name,
      e.result::text
    from taken t
    join noetl.execution_state s on s.execution_id = t.execution_id
    join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id"""

WRITE: Final = """
    with given as materialized (
      select execution_id, event_id, turn, ended, began, tokens
      from unnest($1::bigint[], $2::bigint[], $3::int[], $4::text[], $5::text[], $6::text[])
        g (execution_id, event_id, turn, ended, began, tokens)
    ), turns as (
      insert into noetl.turn (execution_id, turn, event_id, outcome, decided_at)
      select execution_id, turn, event_id, 'decided', clock_timestamp()
      from given
    ), given_events as materialized (
      select noetl.next_id() as event_id, g.execution_id, t.ordinal, t.type, g.ended, g.began, g.event_id as cause
      from given g
      cross join (values (1, 'step_completed'), (2, 'step_started')) t (ordinal, type)
    ), events as (
      insert into noetl.event (
        event_id, execution_id, catalog_id, parent_event_id, event_type, node_id, node_name, node_type, status, meta
      )
      select event_id, execution_id, 1, cause, type, began, began, 'python', 'COMPLETED', '{"turn": 1, "visit": 1}'
      from given_events
    ), jobs as (
      insert into noetl.queue (
        execution_id, catalog_id, node_id, node_name, node_type, action, context, event_id, parent_event_id
      )
      select execution_id, 1, began, began, 'python', $7, $8::jsonb, event_id, event_id
      from given_events
      where ordinal = 2
    ), ended as (
      update noetl.workflow w
      set status = 'COMPLETED', ended_at = clock_timestamp(), result_visit = 1, result_event_id = g.event_id
      from given g
      where w.execution_id = g.execution_id and w.step_id = g.ended
    ), began as (
      update noetl.workflow w
      set status = 'RUNNING', visits = 1, started_at = clock_timestamp()
      from given g
      where w.execution_id = g.execution_id and w.step_id = g.began
    )
    update noetl.execution_state s
    set turn = g.turn, last_at = clock_timestamp(), tokens = g.tokens::json
    from given g
    where s.execution_id = g.execution_id and s.turn = g.turn - 1"""

ACTION: Final = '{"args": {"x": 6}, "code": "def main(x): return x"}'
CONTEXT: Final = (
    '{"path": "ten", "version": 1, "catalog_id": 1, "execution_id": 1, "workload": {"limit": 5}, "visit": 1}'
)


async def drain(connection: Connection, step: int) -> float:
    """Decide on all answers of this step; return the seconds."""
    ended, began = f"s{step}", f"s{step + 1}"
    take, write = await connection.prepare(TAKE), await connection.prepare(WRITE)
    start = time.perf_counter()
    while True:
        async with connection.transaction():
            taken = await take.fetch(BATCH)
            if not taken:
                break
            await write.fetch(
                [row[0] for row in taken],
                [row[1] for row in taken],
                [row[3] + 1 for row in taken],
                [ended] * len(taken),
                [began] * len(taken),
                [row[4].replace(ended, began) for row in taken],
                ACTION,
                CONTEXT,
            )
    return time.perf_counter() - start

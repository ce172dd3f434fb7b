"""Executions of every kind, run by a broker; the tests of `verify` damage them."""

from __future__ import annotations

from tests.brokers import complete_jobs, drain, execute, register, start, value
from tests.postgres import Database

# Two branches, a retry of the second, a join, a router, and a loop back to the join while its result says so.
FORK = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: j}
- {step: b, type: python, code: x, retry: {max_attempts: 2, initial_delay: 0}, next: [{when: "{{ b.ok }}", step: j}]}
- {step: j, type: python, code: x, next: r}
- {step: r, type: route, next: [{when: "{{ j.again }}", step: again}, {else: [last]}]}
- {step: again, type: python, code: x, on_error: continue, next: j}
- {step: last, type: python, code: x, next: end}
- {step: end}
"""
FAMILY = """
workflow:
- {step: start, next: call}
- {step: call, type: playbook, path: child, next: each}
- step: each
  type: iterator
  collection: [1, 2]
  element: n
  mode: async
  task: {type: playbook, path: child}
  next: spread
- step: spread
  type: iterator
  collection: [1, 2, 3]
  element: n
  mode: async
  distribute: true
  task: {type: python, code: x}
  next: end
- {step: end, result: "{{ spread }}"}
"""
CHILD = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: end}
- {step: end}
"""
TELL = """
insert into noetl.event (execution_id, event_type, node_id, node_name, context)
select $1::bigint, 'iteration_started', $1::bigint || ':work', 'work',
  jsonb_build_object('child_execution_id', $2::bigint)"""
UNKNOWN_CHILD = 77  # a child that does not exist
FAIL = "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w', $1)"
PATHS = ("done", "half", "fresh", "failed", "cancelled", "late")


COOL = """
workflow:
- {step: start, next: cool}
- {step: cool, type: wait, for: 3d, next: end}
- {step: end}
"""


async def make_histories(database: Database) -> None:
    """Run one execution of each path, with its children.

    `half`, `fresh`, `calling`, `cooling` and `waiting` do not end.
    `done`: completes, with a retry and a loop. `half`: one token waits at the join, the job of the other is requeued.
    `fresh`: both jobs are queued. `failed`, `cancelled`: ended while a worker held a job. `late`: has a duplicate,
    and an answer after its end. `family`: a child, an iterator over two children, an iterator of three jobs.
    `calling`: waits for its child. `cooling`: waits for a moment. `cooled`: was cancelled meanwhile.
    `adopting`: its worker started a child, which ended. `waiting`: its worker reported a child that does not exist.
    """
    for path in PATHS:
        await register(database, FORK, path=path)
    for path in ("family", "calling"):
        await register(database, FAMILY, path=path)
    for path in ("child", "adopting", "waiting"):
        await register(database, CHILD, path=path)
    for path in ("cooling", "cooled"):
        await register(database, COOL, path=path)
    await _end(database, "done")
    await _end(database, "late")
    late = await value(database, "select execution_id from noetl.execution where path = 'late'")
    for word in ("action_completed", "execution_cancel"):
        insert = "insert into noetl.event (execution_id, event_type, node_name) values ($1, $2, 'a')"
        await execute(database, insert, late, word)
    await _fail(database)
    await _cancel(database)
    await start(database, "family")
    await drain(database)
    while await complete_jobs(database, 1):
        await drain(database)
    await _adopt(database)
    await start(database, "half")
    await drain(database)
    await complete_jobs(database, {"ok": True}, limit=1)
    await drain(database)
    await execute(database, FAIL, 1)
    await start(database, "fresh")
    await start(database, "calling")
    await start(database, "cooling")
    [cooled] = await start(database, "cooled")
    await drain(database)
    await execute(database, "select noetl.cancel_execution($1)", cooled)
    await drain(database)


async def _end(database: Database, path: str) -> None:
    """Run `done` or `late`: the first attempt of `b` fails, the loop enters `j` twice, then `last` runs."""
    await start(database, path)
    await drain(database)
    first = """
        select case
          when node_name = 'b' then noetl.fail_job(queue_id, 'w', attempts, '{"message": "no"}')
          else noetl.complete_job(queue_id, 'w', attempts, '{"ok": true}')
        end
        from noetl.lease_jobs('w', 2)"""
    await execute(database, first)
    await drain(database)
    for again in (True, True, True, False, False):
        await complete_jobs(database, {"ok": True, "again": again})
        await drain(database)


async def _fail(database: Database) -> None:
    """Fail the step that may not retry while a worker holds the job of each branch."""
    await start(database, "failed")
    await drain(database)
    fail = """
        select noetl.fail_job(queue_id, 'w', attempts, '{"message": "no"}')
        from noetl.lease_jobs('w', 2)
        where node_name = 'a'"""
    await execute(database, fail)
    await drain(database)


async def _cancel(database: Database) -> None:
    [cancelled] = await start(database, "cancelled")
    await drain(database)
    await execute(database, "select noetl.lease_jobs('w', 1)")
    await execute(database, "select noetl.cancel_execution($1)", cancelled)
    await drain(database)


async def _adopt(database: Database) -> None:
    """Report a child from each of two workers and complete their jobs; one child exists and ends."""
    [parent], [waiting] = await start(database, "adopting"), await start(database, "waiting")
    [child] = await start(database, "child")
    await drain(database)
    await execute(database, TELL, parent, child)
    await execute(database, TELL, waiting, UNKNOWN_CHILD)
    await drain(database)
    await complete_jobs(database, 1)
    await drain(database)

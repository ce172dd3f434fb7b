"""Executions of every kind, run for real and left where they are: what the tests of `verify` break by hand."""

from __future__ import annotations

from tests.brokers import complete_jobs, drain, execute, register, start, value
from tests.postgres import Database

# Two branches, the second tried again, a join, a router, and a loop back while the join's result says so.
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
UNHEARD = 77  # an execution that one waits for and nobody has started
FAIL = "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w', $1)"
PATHS = ("done", "half", "fresh", "failed", "cancelled", "late")


async def make_histories(database: Database) -> None:
    """One execution of each path, and children; those of `half`, `fresh`, `calling` and `waiting` run on.

    `done`: to its end, with a retry and a loop. `half`: one branch waits at the join, the other's job is queued again.
    `fresh`: started, both jobs queued. `failed`, `cancelled`: while a worker held a job. `late`: a duplicate, and an
    answer after the end. `family`: a child, two in an iterator, three jobs in another. `calling`: waits for its child.
    `adopting`: waited for a child that its worker started; `waiting`: for one that nobody has started.
    """
    for path in PATHS:
        await register(database, FORK, path=path)
    for path in ("family", "calling"):
        await register(database, FAMILY, path=path)
    for path in ("child", "adopting", "waiting"):
        await register(database, CHILD, path=path)
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
    await complete_jobs(database, {"ok": True}, most=1)
    await drain(database)
    await execute(database, FAIL, 1)
    await start(database, "fresh")
    await start(database, "calling")
    await drain(database)


async def _end(database: Database, path: str) -> None:
    """The first attempt of `b` fails; `j` is entered twice, once from the loop; `last` follows."""
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
    """Both branches are with a worker; the one that may not try again fails."""
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
    """Two workers tell of a child each and are done; one of the children is there and ends."""
    [parent], [waiting] = await start(database, "adopting"), await start(database, "waiting")
    [child] = await start(database, "child")
    await drain(database)
    await execute(database, TELL, parent, child)
    await execute(database, TELL, waiting, UNHEARD)
    await drain(database)
    await complete_jobs(database, 1)
    await drain(database)

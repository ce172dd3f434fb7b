"""Beside a NoETL server, every input reaches its worker."""

from __future__ import annotations

from tests.brokers import value
from tests.noetl import NoETL, ended, run, verify_faults
from tests.postgres import Database

CODE = "\"def main(**given): return sorted(key for key in given if key != 'context')\""
# Twelve inputs: of a workbook action, of the step under each of six keys, of a transition, of a target.
PROBE = f"""
workbook:
- {{name: probe, type: python, code: {CODE}, args: {{n1: 1}}}}
workflow:
- step: start
  next:
  - when: "{{{{ true }}}}"
    with: {{n8: 8}}
    data: {{n9: 9}}
    args: {{n10: 10}}
    then:
    - {{step: all, params: {{n11: 11}}, input: {{n12: "{{{{ 12 }}}}"}}}}
- step: all
  type: workbook
  task: probe
  with: {{n2: 2}}
  payload: {{n3: 3}}
  input: {{n4: 4}}
  params: {{n5: 5}}
  data: {{n6: 6}}
  args: {{n7: 7}}
"""
ITERATED = f"""
workflow:
- {{step: start, next: {{step: all, args: {{n3: 3}}}}}}
- step: all
  type: iterator
  collection: [1]
  element: n
  data: {{n1: 1}}
  args: {{n2: 2}}
  task: {{type: python, code: {CODE}, params: {{n4: "{{{{ n }}}}"}}, data: {{n5: 5}}, args: {{n6: 6}}}}
"""


async def test_all_inputs_of_a_step_reach_the_noetl_worker(noetl: NoETL, noetl_database: Database) -> None:
    """That worker never reads `args`; a replay finds the same job."""
    await noetl.register(PROBE)
    await noetl.start(9)
    await run(noetl, noetl_database)
    assert await ended(noetl) == [("COMPLETED", sorted(f"n{number}" for number in range(1, 13)), None)]
    assert await verify_faults(noetl) == {}


async def test_all_inputs_of_a_repeated_task_reach_the_noetl_worker(noetl: NoETL, noetl_database: Database) -> None:
    """Of such a task it reads only `with`; `value` is its own name for the item."""
    await noetl.register(ITERATED)
    await noetl.start(9)
    await run(noetl, noetl_database)
    assert await ended(noetl) == [("COMPLETED", [[f"n{number}" for number in range(1, 7)] + ["value"]], None)]
    assert await verify_faults(noetl) == {}


async def test_jobs_have_this_form_only_beside_a_noetl_server(noetl: NoETL, noetl_database: Database) -> None:
    """The daemon checks the database at its start, and pins it with each execution."""
    await noetl.register(PROBE)
    pinned = "select (rules -> 'beside_noetl')::text from noetl.execution where execution_id = $1"
    await noetl.start(8)
    await run(noetl, noetl_database)
    await noetl.connection.execute("drop trigger noetl_receive_job on noetl.queue")
    await noetl.start(9)
    await run(noetl, noetl_database)
    assert [await value(noetl_database, pinned, number) for number in (8, 9)] == ["true", "false"]

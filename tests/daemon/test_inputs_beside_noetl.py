"""Beside a NoETL server: every input reaches its worker, wherever the playbook gives it."""

from __future__ import annotations

from tests.brokers import value
from tests.noetl import NoETL, ended, faults, run
from tests.postgres import Database

CODE = "\"def main(**given): return sorted(key for key in given if key != 'context')\""
# Twelve inputs: a workbook action's, the step's under each of the six words, three of a transition, two of a target.
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


async def test_all_twelve_inputs_of_a_probe_arrive(noetl: NoETL, empty_database: Database) -> None:
    """Its worker never reads `args`; replay finds in the job what the broker decides."""
    await noetl.register(PROBE)
    await noetl.start(9)
    await run(noetl, empty_database)
    assert await ended(noetl) == [("COMPLETED", sorted(f"n{number}" for number in range(1, 13)), None)]
    assert await faults(noetl) == {}


async def test_all_inputs_of_a_task_that_the_worker_repeats_arrive(noetl: NoETL, empty_database: Database) -> None:
    """Of such a task it reads `with` alone; `value` is its own word for the item."""
    await noetl.register(ITERATED)
    await noetl.start(9)
    await run(noetl, empty_database)
    assert await ended(noetl) == [("COMPLETED", [[f"n{number}" for number in range(1, 7)] + ["value"]], None)]
    assert await faults(noetl) == {}


async def test_jobs_are_told_so_beside_that_server_alone(noetl: NoETL, empty_database: Database) -> None:
    """The daemon sees at its start what database it is, and pins it with each execution."""
    await noetl.register(PROBE)
    pinned = "select (rules -> 'beside_noetl')::text from noetl.execution where execution_id = $1"
    await noetl.start(8)
    await run(noetl, empty_database)
    await noetl.connection.execute("drop trigger noetl_receive_job on noetl.queue")
    await noetl.start(9)
    await run(noetl, empty_database)
    assert [await value(empty_database, pinned, number) for number in (8, 9)] == ["true", None]


async def test_a_template_in_a_result_is_rendered_on_the_way_to_the_next_step(
    noetl: NoETL, empty_database: Database
) -> None:
    """That server renders each job once more; a job with a template that it cannot render stays as it is."""
    await noetl.register(
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, next: b}
        - {step: b, type: python, args: {n: "{{ a }}"}, code: "def main(n): return n"}
        """
    )
    given = {8: "{{ 6 * 7 }}", 9: "{{ 6 * 7 }} {{ nobody }}"}
    noetl.tasks["a"] = lambda job: given[job.execution_id]
    for number in given:
        await noetl.start(number)
    await run(noetl, empty_database)
    assert [result for _, result, _ in await ended(noetl)] == ["42", given[9]]
    assert await faults(noetl) == {}

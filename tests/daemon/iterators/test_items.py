"""The items of iterators as rows: status, job, child and result of each."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.values import JSON
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

EACH = """
workload: {{items: [1, 2, 3, 4]}}
workflow:
- {{step: start, next: each}}
- step: each
  {task}
  loop: {{collection: workload.items, element: n, mode: async, concurrency: 2, distribute: true{loop}}}
  args: {{n: "{{{{ n }}}}"}}
  {step}
  next: [{{step: after, args: {{was: "{{{{ each.status }}}}"}}}}]
- {{step: after, type: python, code: x, next: end}}
- {{step: end, result: "{{{{ each }}}}"}}
"""
PYTHON = "type: python\n  code: x"
PLAYBOOK = "type: playbook\n  path: child"
CHILD = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: end}
- {step: end, result: "{{ work }}"}
"""
ITEMS = "select array_agg(status order by index) from noetl.iteration"
# Jobs or children of items, in the order of their start.
END_TWO = """
    with leased as (select queue_id, attempts, row_number() over (order by queue_id) as n from noetl.lease_jobs('w', 2))
    select case n
      when $1 then noetl.fail_job(queue_id, 'w', attempts, '{"message": "no"}')
      else noetl.complete_job(queue_id, 'w', attempts, to_jsonb(n))
    end from leased order by n"""


async def begin(database: Database, task: str, *, loop: str = "", step: str = "", items: JSON = None) -> int:
    """Start an iterator over four items, two at a time, and start its first two."""
    await register(database, EACH.format(task=task, loop=loop, step=step))
    await register(database, CHILD, path="child")
    [execution_id] = await start(database, payload={} if items is None else {"items": items})
    await drain(database, lanes=1)
    return execution_id


@pytest.mark.parametrize(
    "task, failing, loop, step, stand, status",
    [
        (PYTHON, 0, "", "", ["COMPLETED"] * 4, "COMPLETED"),
        (PLAYBOOK, 2, ", on_error: continue", "", ["COMPLETED", "FAILED", "COMPLETED", "FAILED"], "COMPLETED"),
        # The first mail starts the third item, the second one cancels it, in one batch.
        (PYTHON, 2, "", "on_error: continue", ["COMPLETED", "FAILED", "CANCELLED", "WAITING"], "COMPLETED"),
        (PLAYBOOK, 2, "", "on_error: continue", ["COMPLETED", "FAILED", "CANCELLED", "WAITING"], "COMPLETED"),
        (PYTHON, 2, "", "", ["COMPLETED", "FAILED", "CANCELLED", "WAITING"], "FAILED"),
        (PLAYBOOK, 1, "", "on_error: continue", ["FAILED", "CANCELLED", "WAITING", "WAITING"], "COMPLETED"),
    ],
)
async def test_every_item_has_its_final_status_when_its_iterator_ends(
    database: Database, task: str, failing: int, loop: str, step: str, stand: list[str], status: str
) -> None:
    """Ended, cancelled if it was open, waiting if it never started. No job and no child stays open."""
    await begin(database, task, loop=loop, step=step)
    while await value(database, "select count(*) from noetl.queue where status = 'queued' and node_name <> 'after'"):
        await execute(database, END_TWO, failing)
        await drain(database, lanes=1)
    await complete_jobs(database)
    await drain(database)
    assert await value(database, ITEMS) == stand
    assert await value(database, "select status from noetl.execution where path = 'story'") == status
    assert await inconsistencies(database) == {}


async def test_answers_of_items_may_be_inserted_as_events(database: Database) -> None:
    """The broker then ends their jobs, as for any job."""
    await begin(database, PYTHON, loop=", on_error: continue", items=[1, 2])
    await execute(
        database,
        """insert into noetl.event (execution_id, event_type, node_id, node_name, result, error)
        select execution_id, case when node_id like '%.0' then 'Action_Completed' else 'action_error' end,
          node_id, node_name, '"it"', '{"message": "no"}'
        from noetl.lease_jobs('w', 9)""",
    )
    await drain(database)
    statuses = "select split_part(node_id, ':', 2), status from noetl.queue order by 1"
    assert await rows(database, statuses) == [
        ("after", "queued"),
        ("each", "done"),
        ("each#1.0", "done"),
        ("each#1.1", "dead"),
    ]


async def test_the_result_of_an_item_is_treated_like_that_of_a_step(database: Database) -> None:
    """Unwrapped once if it is an envelope; it may be large or null."""
    unwrapped: list[tuple[JSON, JSON]] = [
        (None, None),
        ([1, [2]], [1, [2]]),
        ({"data": {"a": 1}, "meta": {}}, {"a": 1}),
        ({"id": "x", "status": "success", "duration": 0.25, "data": {"a": 1}}, {"a": 1}),
        ({"data": {"a": 1}, "more": 2}, {"data": {"a": 1}, "more": 2}),
        ({"id": 7, "status": "paid", "data": 1}, {"id": 7, "status": "paid", "data": 1}),
        ({"id": 7, "data": 1}, {"id": 7, "data": 1}),
        ({"status": None, "data": 1}, {"status": None, "data": 1}),
        ("x" * 1_000_000, "x" * 1_000_000),
    ]
    await begin(database, PYTHON, items=list(range(len(unwrapped))))
    answers = [answer for answer, _ in unwrapped]
    answer_items = """
        select noetl.complete_job(queue_id, 'w', attempts, $1::jsonb -> (action::jsonb #>> '{args,n}')::int)
        from noetl.lease_jobs('w', 9)
        where node_name = 'each'"""
    while await rows(database, answer_items, answers):
        await drain(database)
    await execute(database, "update noetl.queue set status = 'queued' where status = 'leased'")
    await complete_jobs(database)
    await drain(database)
    assert await value(database, "select result from noetl.execution") == [item for _, item in unwrapped]
    assert await inconsistencies(database) == {}


async def test_items_may_be_large(database: Database) -> None:
    """Each a megabyte: to a job, and to a child."""
    items = [letter * 1_000_000 for letter in "abc"]
    await begin(database, PLAYBOOK, items=items)
    for _ in range(3):
        await complete_jobs(database, 1)
        await drain(database)
    lengths = "select array_agg(length(workload ->> 'n')) from noetl.execution where path = 'child'"
    assert await value(database, lengths) == [1_000_000] * 3
    assert await inconsistencies(database) == {}


async def test_events_about_unknown_items_are_recorded(database: Database) -> None:
    """Items that do not exist, have not started, or have ended: one turn each, and a replay agrees."""
    execution_id = await begin(database, PYTHON)
    unknown = """
        insert into noetl.event (execution_id, event_type, node_id, node_name)
        select $1::bigint, 'action_completed', $1::bigint || ':each#1.' || index, 'each'
        from unnest(array[7, 3, 0, 0]) index"""
    await execute(database, unknown, execution_id)
    await drain(database)
    outcomes = "select outcome from noetl.turn where turn > 1 order by turn"
    assert await rows(database, outcomes) == [("not_open",), ("not_open",), ("decided",), ("duplicate",)]
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    await drain(database)
    assert await inconsistencies(database) == {}

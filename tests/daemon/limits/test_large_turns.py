"""The output of one turn and one transaction is bounded, however large the inputs of jobs are."""

from __future__ import annotations

import pytest

from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.store.turn import columns
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.daemon.limits.test_large_payloads import megabytes
from tests.postgres import Database

EACH = """
workload: {{blob: ""}}
workflow:
- {{step: start, next: [{{step: each, {given}}}]}}
- step: each
  {task}
  loop: {{collection: {items}, element: n, mode: async, concurrency: 100, distribute: true}}
  next: end
- {{step: end}}
"""
CHILD = """
workflow:
- {step: start, next: end}
- {step: end}
"""
PYTHON = "type: python\n  code: x\n  "
PLAYBOOK = "type: playbook\n  path: child\n  "
GIVEN = 'with: {doc: "{{ workload.blob }}"}'
ITEMS = [*range(9)]
MOST_AT_ONCE = """
    select max(count) from (
      select count(*) from noetl.event where event_type = 'iteration_started' group by parent_event_id
    ) turns"""
ENDED = "select status from noetl.execution where execution_id = $1"
WIDE = """
workload: {blob: ""}
workflow:
- {step: start, next: [A]}
B
- {step: end}
"""


def fan_out(width: int, given: str) -> str:
    """Give a playbook of so many parallel steps, each followed by another one with these inputs."""
    names = [f"a{number}" for number in range(width)]
    first = [f"- {{step: {name}, type: python, code: x, next: [{{step: b{name}, {given}}}]}}" for name in names]
    second = [f"- {{step: b{name}, type: python, code: x, next: end}}" for name in names]
    return WIDE.replace("[A]", f"[{', '.join(names)}]").replace("B\n", "\n".join([*first, *second]) + "\n")


@pytest.mark.parametrize(
    "given, task",
    [
        ("with: {}", PYTHON + GIVEN),
        ("with: {}", PYTHON + 'with: {who: "{{ env.USER }}"}'),  # deferred: the job has the workload
        (GIVEN, PLAYBOOK),
        ("with: {}", PLAYBOOK + GIVEN),
    ],
    ids=["rendered", "deferred", "given children", "rendered for children"],
)
async def test_a_turn_starts_fewer_items_with_large_inputs(database: Database, given: str, task: str) -> None:
    """Further turns start the rest, and nothing else changes."""
    await register(database, EACH.format(given=given, task=task, items=ITEMS))
    await register(database, CHILD, path="child")
    await start(database, payload=megabytes(1))
    while (await drain(database)).metrics.total(metric.TURNS) and "playbook" not in task:
        await complete_jobs(database)
    assert 2 <= await value(database, MOST_AT_ONCE) <= 5
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]
    assert await value(database, "select count(*) from noetl.iteration where status = 'COMPLETED'") == len(ITEMS)
    assert await broken_invariants(database) == {}


async def test_an_item_larger_than_half_the_limit_is_started_alone(database: Database) -> None:
    """One by one."""
    given = ", ".join(f'p{number}: "{{{{ workload.blob }}}}"' for number in range(3))
    await register(database, EACH.format(given=f"with: {{{given}}}", task=PYTHON, items=[1, 2, 3]))
    await start(database, payload=megabytes(1))
    while (await drain(database)).metrics.total(metric.TURNS):
        await complete_jobs(database)
    assert await value(database, MOST_AT_ONCE) == 1
    assert await value(database, "select status from noetl.execution") == "COMPLETED"


async def test_a_transaction_ends_after_large_turns_of_one_execution(database: Database) -> None:
    """Each of many steps may get the same value, so small inputs may give a large output."""
    await register(database, fan_out(12, GIVEN))
    await start(database, payload=megabytes(1))
    await drain(database)
    assert await complete_jobs(database) == 12
    assert 2 <= (await drain(database)).metrics.largest_batch <= 9
    assert await complete_jobs(database) == 12
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    assert await broken_invariants(database) == {}


async def test_a_transaction_ends_after_large_turns_of_many_executions(database: Database) -> None:
    """A compressed result may be claimed with its mail, and be large."""
    await register(database, fan_out(1, GIVEN.replace("workload.blob", "a0.blob")))
    await start(database, count=24)
    await drain(database)
    assert await complete_jobs(database, {"blob": "x" * 600_000}) == 24
    assert await value(database, "select max(pg_column_size(result)) from noetl.event") <= 8192
    assert 2 <= (await drain(database)).metrics.largest_batch <= 14
    assert await complete_jobs(database) == 24
    await drain(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]


async def test_turns_too_large_for_the_server_together_are_split(database: Database) -> None:
    """A jsonb holds 268 million bytes, here five turns. Each alone fits, so there is no dead letter."""
    await register(database, fan_out(12, "with: {doc: x}"))
    await register(database, CHILD, path="child")
    await start(database)
    await start(database, "child")
    await drain(database)
    refuse = """
        create function public.refuse() returns trigger language plpgsql as $$
        begin
          if (select count(*) from arrived where outcome = 'decided') > 5 then
            raise exception 'no room' using errcode = '54000';
          end if;
          return null;
        end $$;
        create trigger refuse after insert on noetl.turn referencing new table as arrived
        for each statement execute function public.refuse()"""
    await execute(database, refuse)
    for _ in range(2):
        await complete_jobs(database)
        assert 1 < (await drain(database)).metrics.largest_batch <= 5
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]
    assert await broken_invariants(database) == {}


async def test_a_turn_too_large_for_the_server_becomes_a_dead_letter(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise Postgres would end the connection without a reason, again and again."""
    monkeypatch.setattr(columns, "MOST_CHARS", 100_000)
    await register(database, fan_out(12, "with: {doc: " + "x" * 10_000 + "}"))
    await register(database, fan_out(1, "with: {doc: " + "x" * 60_000 + "}"), path="large")
    await register(database, CHILD, path="child")
    [wide] = await start(database)
    [large] = await start(database, "large")
    await drain(database)
    await start(database, "child", count=3)
    assert await complete_jobs(database) == 13
    await start(database, "child", count=3)
    await drain(database)
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 6
    [(execution_id, reason)] = await rows(database, "select execution_id, reason from noetl.dead_letter")
    assert execution_id == large
    assert "characters of 1 turn(s) would be written at once, more than 100,000" in reason
    assert await complete_jobs(database) == 12
    await drain(database)
    statuses = "select execution_id from noetl.execution where status = 'RUNNING'"
    assert (await rows(database, statuses), await value(database, ENDED, wide)) == ([(large,)], "COMPLETED")

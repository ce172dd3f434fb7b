"""What one turn and one transaction write is bounded, however large what their jobs are given is."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model import Rules
from noetl_broker.store import columns
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.daemon.test_large_payloads import megabytes
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
ITEMS = [*range(24)]
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
    """So many steps beside each other, each with another behind it that is given something."""
    names = [f"a{number}" for number in range(width)]
    first = [f"- {{step: {name}, type: python, code: x, next: [{{step: b{name}, {given}}}]}}" for name in names]
    second = [f"- {{step: b{name}, type: python, code: x, next: end}}" for name in names]
    return WIDE.replace("[A]", f"[{', '.join(names)}]").replace("B\n", "\n".join([*first, *second]) + "\n")


@pytest.mark.parametrize(
    "given, task",
    [
        (GIVEN, PYTHON),
        ("with: {}", PYTHON + GIVEN),
        ("with: {}", PYTHON + 'with: {who: "{{ env.USER }}"}'),  # for the worker, who is told the workload
        (GIVEN, PLAYBOOK),
        ("with: {}", PLAYBOOK + GIVEN),
    ],
    ids=["given", "rendered", "left", "given children", "rendered for children"],
)
async def test_a_turn_starts_fewer_items_where_each_is_given_much(database: Database, given: str, task: str) -> None:
    """The rest is started in turns of its own, and nothing else changes."""
    await register(database, EACH.format(given=given, task=task, items=ITEMS))
    await register(database, CHILD, path="child")
    await start(database, payload=megabytes(1))
    while (await drain(database)).counters.turns and "playbook" not in task:
        await complete_jobs(database)
    assert 2 <= await value(database, MOST_AT_ONCE) <= 5
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]
    assert await value(database, "select count(*) from noetl.iteration where status = 'COMPLETED'") == len(ITEMS)
    assert await broken_invariants(database) == {}


async def test_an_item_that_alone_is_too_much_for_two_is_started(database: Database) -> None:
    """One by one."""
    given = ", ".join(f'p{number}: "{{{{ workload.blob }}}}"' for number in range(6))
    await register(database, EACH.format(given=f"with: {{{given}}}", task=PYTHON, items=[1, 2, 3]))
    await start(database, payload=megabytes(1))
    while (await drain(database)).counters.turns:
        await complete_jobs(database)
    assert await value(database, MOST_AT_ONCE) == 1
    assert await value(database, "select status from noetl.execution") == "COMPLETED"


@pytest.mark.parametrize("task", [PYTHON, PLAYBOOK])
async def test_a_smaller_limit_of_templates_stops_it_sooner(database: Database, task: str) -> None:
    """What one turn's templates may give together is no limit of an iterator, but of one item."""
    rules = Rules(template_max_output_chars=50_000)
    given = "with: {doc: \"{{ 'x' * 40000 }}\"}"
    await register(database, EACH.format(given="with: {}", task=task + given, items=[*range(60)]))
    await register(database, CHILD, path="child")
    await start(database)
    while (await drain(database, rules=rules)).counters.turns and task == PYTHON:
        await complete_jobs(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]


async def test_a_transaction_ends_after_turns_of_one_execution_that_write_much(database: Database) -> None:
    """What they write is bounded beside what they read: each of many steps may be given the same."""
    await register(database, fan_out(24, GIVEN))
    await start(database, payload=megabytes(1))
    await drain(database)
    assert await complete_jobs(database) == 24
    assert 2 <= (await drain(database)).counters.largest_batch <= 9
    assert await complete_jobs(database) == 24
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    assert await broken_invariants(database) == {}


async def test_a_transaction_ends_after_turns_of_many_executions_that_write_much(database: Database) -> None:
    """Stored, a result may be so small that it comes along with its mail, and yet be large."""
    await register(database, fan_out(1, GIVEN.replace("workload.blob", "a0.blob")))
    await start(database, count=24)
    await drain(database)
    assert await complete_jobs(database, {"blob": "x" * 600_000}) == 24
    assert await value(database, "select max(pg_column_size(result)) from noetl.event") <= 8192
    assert 2 <= (await drain(database)).counters.largest_batch <= 14
    assert await complete_jobs(database) == 24
    await drain(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]


async def test_turns_that_the_server_has_no_room_for_together_are_taken_apart(database: Database) -> None:
    """A jsonb holds 268 million bytes, here five turns; each alone is within that, so nothing is set aside."""
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
        assert 1 < (await drain(database)).counters.largest_batch <= 5
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]
    assert await broken_invariants(database) == {}


async def test_a_turn_that_no_server_would_take_is_set_aside(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres ends the connection, and nobody would know why: it would be tried for ever, with all beside it."""
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

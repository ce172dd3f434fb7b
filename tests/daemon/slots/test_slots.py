"""Slots in the database: lines, hand-overs, and what becomes of those that find no slot."""

from __future__ import annotations

from noetl_broker.daemon.metrics.registry import SWEPT_SLOTS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.reaper import Reaper
from noetl_broker.playbook import PlaybookRules
from noetl_broker.service.recoveries import recover_failed
from noetl_broker.store.admin.slot_lines import list_line, list_slots, slots_of
from noetl_broker.store.connect.connection import create_pool
from tests.brokers import complete_jobs, drain, execute, register, rows, running, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import lent_pool, session
from tests.stories import document

JOB = """
workload: {customer: 7}
workflow:
  - {step: start, next: a}
  - {step: a, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
STATUSES = "select status from noetl.execution order by execution_id"


def limit(rest: str = "") -> str:
    """Return the metadata of a playbook with a limit for each customer."""
    return f'concurrency: {{key: "{{{{ workload.customer }}}}"{rest}}}'


async def statuses(database: Database) -> list[str]:
    """Return the statuses of all executions, in the order of their starts."""
    return [status for (status,) in await rows(database, STATUSES)]


async def finish_jobs(database: Database) -> list[str]:
    """Complete the jobs that are ready, decide, and return the statuses."""
    await complete_jobs(database)
    await drain(database)
    return await statuses(database)


async def fork(database: Database, execution_id: int) -> None:
    """Start an execution from the start of another one, and decide."""
    plan = {"execution_id": execution_id, "turn": 1, "results": [], "visits": {},
            "state": {"total": 0, "hold": {"kept": [{"arc": None, "step": "start", "result": None}]}}}  # fmt: skip
    await execute(database, "select noetl.fork_execution($1, $2)", execution_id, plan)
    await drain(database)


async def assert_idle(database: Database) -> None:
    """Assert that nobody holds a slot, and that the tables agree."""
    assert await rows(database, "select * from noetl.place") == []
    assert await rows(database, "select * from noetl.slot_claim") == []
    assert await inconsistencies(database) == {}


async def test_executions_of_one_key_run_one_after_another(database: Database) -> None:
    """In the order of their numbers; another key does not wait."""
    await register(database, JOB, metadata=limit())
    await start(database, count=3)
    await execute(database, "select noetl.start_execution('story', '{\"customer\": 8}')")
    await drain(database)
    assert await statuses(database) == ["RUNNING", "QUEUED", "QUEUED", "RUNNING"]
    assert await finish_jobs(database) == ["COMPLETED", "RUNNING", "QUEUED", "COMPLETED"]
    assert await finish_jobs(database) == ["COMPLETED", "COMPLETED", "RUNNING", "COMPLETED"]
    assert await finish_jobs(database) == ["COMPLETED"] * 4
    await assert_idle(database)


async def test_the_facts_of_a_turn_have_what_it_was_told(database: Database) -> None:
    """A replay reads them."""
    await register(database, JOB, metadata=limit())
    first, second = await start(database, count=2)
    await drain(database)
    facts = await value(database, "select facts from noetl.turn where execution_id = $1 and turn = 1", second)
    [answer] = facts["slots"]
    assert (answer["free"], answer["holder"]) == (False, first)
    await execute(database, "select noetl.cancel_execution($1)", first)
    await drain(database)
    assert await finish_jobs(database) == ["CANCELLED", "COMPLETED"]
    await assert_idle(database)


async def test_skip_ends_the_newcomer_and_fail_fails_it(database: Database) -> None:
    """Each names the holder."""
    await register(database, JOB, metadata=limit(", on_limit: skip"))
    await register(database, JOB, path="other", metadata=limit(", on_limit: fail"))
    for path in ("story", "other"):
        await start(database, path, count=2)
    await drain(database)
    errors = "select status, error ->> 'type' from noetl.execution order by execution_id"
    assert await rows(database, errors) == [
        ("RUNNING", None), ("CANCELLED", "concurrency"), ("RUNNING", None), ("FAILED", "concurrency"),
    ]  # fmt: skip
    await finish_jobs(database)
    await assert_idle(database)


async def test_cancel_running_admits_the_newcomer_when_the_old_one_has_ended(database: Database) -> None:
    """A third cancels the second, which still waits."""
    await register(database, JOB, metadata=limit(", on_limit: cancel_running"))
    await start(database)
    await drain(database)
    await start(database)
    await start(database)
    await drain(database)
    assert await statuses(database) == ["CANCELLED", "CANCELLED", "RUNNING"]
    assert await finish_jobs(database) == ["CANCELLED", "CANCELLED", "COMPLETED"]
    await assert_idle(database)


async def test_a_resumed_path_admits_those_that_wait_for_slots(database: Database) -> None:
    """No slot is given to an execution of a paused playbook; a new start gets its number when the path is resumed."""
    await register(database, JOB, metadata=limit())
    await start(database, count=2)
    await drain(database)
    await execute(database, "select noetl.pause_path('story')")
    await start(database)
    assert await finish_jobs(database) == ["COMPLETED", "QUEUED", "QUEUED"]
    await execute(database, "select noetl.resume_path('story')")
    assert await rows(database, "select admitted, swept from noetl.sweep_slots(100)") == [(1, 0)]
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert await statuses(database) == ["COMPLETED", "RUNNING", "QUEUED"]
    assert await finish_jobs(database) == ["COMPLETED", "COMPLETED", "RUNNING"]
    await finish_jobs(database)
    await assert_idle(database)


async def test_a_paused_execution_keeps_its_slot_or_its_number(database: Database) -> None:
    """One that waits is passed over while it is paused."""
    await register(database, JOB, metadata=limit())
    first, second, _ = await start(database, count=3)
    await drain(database)
    for one in (first, second):
        await execute(database, "select noetl.pause_execution($1)", one)
    await drain(database)
    await execute(database, "select noetl.resume_execution($1)", first)
    await drain(database)
    assert await finish_jobs(database) == ["COMPLETED", "PAUSED", "RUNNING"]
    await execute(database, "select noetl.resume_execution($1)", second)
    await drain(database)
    assert await statuses(database) == ["COMPLETED", "QUEUED", "RUNNING"]
    assert await finish_jobs(database) == ["COMPLETED", "RUNNING", "COMPLETED"]
    await finish_jobs(database)
    await assert_idle(database)


async def test_a_slot_that_comes_while_the_execution_is_paused_is_given_on(database: Database) -> None:
    """It came from a transaction that did not see the pause."""
    await register(database, JOB, metadata=limit())
    first, second, _ = await start(database, count=3)
    await drain(database)
    await execute(database, "select noetl.pause_execution($1)", second)
    await execute(database, "delete from noetl.slot_claim where execution_id = $1", first)
    assert await value(database, "select noetl.hand_over(array['story'], array['7'])") == 1
    await drain(database)
    assert await statuses(database) == ["RUNNING", "PAUSED", "RUNNING"]


async def test_a_retry_is_queued_whatever_on_limit_says(database: Database) -> None:
    """A person asked for it."""
    await register(database, JOB, metadata=limit(", on_limit: skip"))
    [first] = await start(database)
    await drain(database)
    await execute(database, "select noetl.cancel_execution($1)", first)
    await drain(database)
    await start(database)
    await drain(database)
    await fork(database, first)
    assert await statuses(database) == ["CANCELLED", "RUNNING", "QUEUED"]
    assert await finish_jobs(database) == ["CANCELLED", "COMPLETED", "RUNNING"]
    await finish_jobs(database)
    await assert_idle(database)


async def test_a_fork_of_one_that_waits_has_a_number_of_its_own(database: Database) -> None:
    """The other one keeps its own, and is before it."""
    await register(database, JOB, metadata=limit())
    _, second = await start(database, count=2)
    await drain(database)
    await fork(database, second)
    for expected in (
        ["RUNNING", "QUEUED", "QUEUED"],
        ["COMPLETED", "RUNNING", "QUEUED"],
        ["COMPLETED", "COMPLETED", "RUNNING"],
    ):
        assert await statuses(database) == expected
        await finish_jobs(database)
    await assert_idle(database)


CHILDREN = """
workload: {customer: 7, child: other}
workflow:
  - {step: start, next: [{when: "{{ workload.child != 'none' }}", then: call, else: a}]}
  - {step: call, type: playbook, path: "{{ workload.child }}", args: {child: none}, next: end}
  - {step: a, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
RECURSIVE = """
workload: {customer: 7, depth: 2}
workflow:
  - step: start
    next:
      - {when: "{{ workload.depth > 0 }}", then: call, else: a}
  - {step: call, type: playbook, path: story, args: {depth: "{{ workload.depth - 1 }}"}, next: end}
  - {step: a, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""


async def test_who_asks_for_a_slot_and_does_not_take_it_leaves_no_row(database: Database) -> None:
    """A broker that finds one of two slots locked asks again later, and may then decide otherwise."""
    await register(database, JOB, metadata=limit())
    [execution] = await start(database)
    ask = "select is_locked, held, max_held from noetl.ask_slots(array[$1::bigint], '{story}', '{7}', '{2}')"
    assert await rows(database, ask, execution) == [(True, 0, 2)]
    assert await rows(database, "select * from noetl.place") == []


async def test_a_child_shares_the_slot_of_an_ancestor(database: Database) -> None:
    """A playbook that starts itself does not wait for itself."""
    await register(database, RECURSIVE, metadata=limit())
    await start(database, count=2)
    await drain(database)
    assert await statuses(database) == ["RUNNING", "QUEUED", "RUNNING", "RUNNING"]
    assert await value(database, "select count(*) from noetl.slot_claim") == 2
    assert (await finish_jobs(database))[:2] == ["COMPLETED", "RUNNING"]
    await finish_jobs(database)
    await assert_idle(database)


async def test_a_deadline_ends_executions_that_wait_for_each_other(database: Database) -> None:
    """Two playbooks start each other, and each runs once at a time. The one with the deadline fails."""
    await register(database, CHILDREN, metadata="concurrency: {}, deadline: 1h")
    await register(database, CHILDREN, path="other", metadata="concurrency: {}")
    await start(database, "story")
    await start(database, "other", {"child": "story"})
    await drain(database)
    assert await statuses(database) == ["RUNNING", "RUNNING", "QUEUED", "QUEUED"]
    await execute(database, "update noetl.timer set due_at = now() where purpose = 'deadline'")
    await execute(database, "select noetl.fire_timers(100)")
    await drain(database)
    assert await statuses(database) == ["FAILED", "RUNNING", "CANCELLED", "RUNNING"]
    assert await finish_jobs(database) == ["FAILED", "COMPLETED", "CANCELLED", "COMPLETED"]
    await assert_idle(database)


UNDOING = """
workload: {customer: 7}
workflow:
  - {step: start, next: charge}
  - step: charge
    type: python
    code: "def main(): ..."
    compensate: {type: python, code: "def main(): ..."}
    next: ship
  - {step: ship, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""


async def test_cancel_running_waits_for_the_undo_of_the_old_one(database: Database) -> None:
    """The old one keeps its slot while it undoes."""
    await register(database, UNDOING, metadata=limit(", on_limit: cancel_running"))
    await start(database)
    await drain(database)
    await finish_jobs(database)
    await start(database)
    await drain(database)
    assert await statuses(database) == ["COMPENSATING", "QUEUED"]
    assert await value(database, "select count(*) from noetl.slot_claim where held_at is not null") == 1
    assert await finish_jobs(database) == ["CANCELLED", "RUNNING"]
    for _ in range(2):
        await finish_jobs(database)
    assert await statuses(database) == ["CANCELLED", "COMPLETED"]
    await assert_idle(database)


async def test_an_undo_after_the_end_takes_no_slot(database: Database) -> None:
    """It runs beside an execution that holds the slot."""
    await register(database, UNDOING, metadata=limit())
    [first] = await start(database)
    await drain(database)
    await finish_jobs(database)
    await execute(database, "select noetl.cancel_execution($1)", first)
    await drain(database)
    await execute(database, "select noetl.abandon_execution($1, 'a test')", first)
    await drain(database)
    await start(database)
    await drain(database)
    await execute(database, "select noetl.undo_execution($1, true)", first)
    await drain(database)
    assert await statuses(database) == ["FAILED", "RUNNING"]
    assert await value(database, "select undo_status from noetl.execution where execution_id = $1", first) == "undoing"
    assert await value(database, "select count(*) from noetl.slot_claim") == 1


async def test_an_execution_that_found_no_slot_is_retried_in_the_line(database: Database) -> None:
    """`fail` failed it, and the retry is queued."""
    await register(database, JOB, metadata=limit(", on_limit: fail"))
    _, second = await start(database, count=2)
    await drain(database)
    async with session(database) as connection:
        await recover_failed(connection, second, PlaybookRules())
    await drain(database)
    assert await statuses(database) == ["RUNNING", "FAILED", "QUEUED"]
    assert await finish_jobs(database) == ["COMPLETED", "FAILED", "RUNNING"]
    assert await finish_jobs(database) == ["COMPLETED", "FAILED", "COMPLETED"]
    await assert_idle(database)


async def test_the_limit_of_the_newest_version_counts(database: Database) -> None:
    """A start of an older version does not set it back."""
    await register(database, JOB, metadata=limit())
    await start(database, count=3)
    await drain(database)
    newer = document(JOB, metadata=limit(", limit: 3"))
    insert = "insert into noetl.catalog (path, version, name, content) values ('story', 2, 'story', $1)"
    await execute(database, insert, newer)
    await start(database)
    await execute(database, "select noetl.start_execution('story', '{}', 1)")
    await drain(database)
    assert await statuses(database) == ["RUNNING", "RUNNING", "RUNNING", "QUEUED", "QUEUED"]
    for _ in range(2):
        await finish_jobs(database)
    await assert_idle(database)


async def test_a_row_that_a_person_has_locked_stalls_only_its_own_executions(database: Database) -> None:
    """Their mail is put off, and decided once the lock is free."""
    await register(database, JOB, metadata=limit())
    await start(database)
    await drain(database)
    async with session(database) as person, person.transaction():
        await person.execute("select from noetl.place for update")
        async with running(database) as broker:
            await start(database)
            await execute(database, "select noetl.start_execution('story', '{\"customer\": 8}')")
            await complete_jobs(database)
            while await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") < 1:
                await complete_jobs(database)
            assert broker.serving
    await drain(database)
    assert await statuses(database) == ["COMPLETED", "RUNNING", "COMPLETED"]
    await finish_jobs(database)
    await assert_idle(database)


async def test_a_hand_over_that_was_lost_is_found_by_the_sweep_and_counted(database: Database) -> None:
    """It never happens; the metric of the reaper shows that."""
    await register(database, JOB, metadata=limit())
    first, _ = await start(database, count=2)
    await drain(database)
    await execute(database, "delete from noetl.slot_claim where execution_id = $1", first)
    await execute(database, "update noetl.place set held = 0")
    metrics = MetricValues.of_service()
    async with lent_pool(database, lambda: create_pool(database, name="test", size=1)) as pool:
        reaper = Reaper(pool, metrics, max_lost_leases=5, missing_event_seconds=30.0, foreign_lease_grace_seconds=900.0)
        await reaper.run()
        await reaper.run()
    assert metrics.total(SWEPT_SLOTS) == 1
    await drain(database)
    assert await statuses(database) == ["RUNNING", "RUNNING"]


async def test_slots_are_listed_with_their_holders_and_their_line(database: Database) -> None:
    """For the console: pages of bounded size."""
    await register(database, JOB, metadata=limit())
    first, second, third = await start(database, count=3)
    await execute(database, "select noetl.start_execution('story', '{\"customer\": 8}')")
    await drain(database)
    async with session(database) as connection:
        found = await list_slots(connection)
        rest = await list_slots(connection, after=("story", "7"))
        line = await list_line(connection, "story", "7")
        [own] = await slots_of(connection, [third])
    assert [(one["name"], one["held"], one["max_held"], one["waiting"]) for one in found] == [
        ("customer 7", 1, 1, 2), ("customer 8", 1, 1, 0),
    ]  # fmt: skip
    assert (found[0]["holders"], [one["name"] for one in rest]) == ([first], ["customer 8"])
    assert [(one["execution_id"], one["status"], one["held_at"] is not None) for one in line] == [
        (first, "RUNNING", True), (second, "QUEUED", False), (third, "QUEUED", False),
    ]  # fmt: skip
    assert (own["name"], own["before"], own["waiting"], own["holders"]) == ("customer 7", 1, 2, [first])

"""The rules of the hot path; each test fails when its rule is broken."""

from __future__ import annotations

import re

import pytest

from noetl_broker.daemon import batch
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.errors import PermissionFault
from tests.brokers import (
    Writer,
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
    value,
)
from tests.postgres import SCHEMA, Database

CHAIN = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: [{when: "a.ok", step: b}]}
- {step: b, type: python, code: x, next: end}
- {step: end}
"""
WIDE = (
    """
workflow:
- {step: start, next: [a, b, c, d, e, f, g, h]}
"""
    + "".join(f"- {{step: {name}, type: python, code: x, next: end}}\n" for name in "abcdefgh")
    + "- {step: end}\n"
)


async def test_a_backlog_is_taken_in_large_transactions(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches hold over 100 turns: fewer transactions (by xmin) than turns / 50."""
    monkeypatch.setattr(batch, "DECIDE_SECONDS", 60.0)  # a slow machine decides fewer in the usual time
    await register(database, CHAIN)
    await start(database, count=300)
    turns = 0
    for _ in range(3):
        service = await drain(database)
        turns += service.metrics.total(metric.TURNS)
        assert service.metrics.largest_batch > 100
        await complete_jobs(database, {"ok": True})
    commits = await value(database, "select count(distinct xmin::text) from noetl.turn")
    assert turns == 900
    assert commits < turns / 50
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 300
    assert await broken_invariants(database) == {}


async def test_mail_of_an_execution_is_decided_in_its_order(database: Database) -> None:
    """A claim returns rows in any order; a cancel before its start would be ignored."""
    source = await value(database, "select pg_get_functiondef('noetl.take_mail'::regproc)")
    last = "on c.catalog_id = coalesce(x.undo_catalog_id, x.catalog_id);"
    assert source.count(last) == 1
    await execute(database, source.replace(last, f"{last[:-1]} order by m.mail_id desc;"))
    await register(database, WIDE)
    [execution_id] = await start(database)
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type) values ($1, 'execution_cancel')",
        execution_id,
    )
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "CANCELLED"


@pytest.mark.parametrize("notify", ["gated", "always", "off"])
async def test_no_notification_is_lost(database: Database, notify: str) -> None:
    """A writer commits while the daemon goes to sleep. The next sweep would be too late."""
    await register(database, "workflow:\n- {step: start}\n")
    async with running(database, notify=notify, sweep_seconds=600.0), Writer(database) as writer:
        for _ in range(100 if notify == "gated" else 10):
            await writer.start_and_wait()
    assert await broken_invariants(database) == {}


async def test_a_daemon_reads_mail_from_before_its_start(database: Database) -> None:
    """LISTEN comes first, then the drain."""
    await register(database, "workflow:\n- {step: start}\n")
    await start(database, count=5)
    async with running(database, sweep_seconds=600.0):
        await until_ended(database)
    assert await broken_invariants(database) == {}


@pytest.mark.changes_tables
async def test_a_refused_value_makes_a_dead_letter_of_its_own_mail_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write of a batch fails on some rows: it is halved until each of them is alone."""
    monkeypatch.setattr(batch, "COMPILE_SECONDS", 60.0)  # a slow machine leaves some mail for another batch
    monkeypatch.setattr(batch, "DECIDE_SECONDS", 60.0)
    await register(database, CHAIN)
    started = await start(database, count=20)
    poisoned = [started[0], started[7], started[19]]
    healthy = [one for one in started if one not in poisoned]
    listed = ", ".join(map(str, poisoned))
    await execute(database, f"alter table noetl.turn add constraint poison check (execution_id not in ({listed}))")
    service = await drain(database, lanes=1)
    dead = await rows(database, "select execution_id from noetl.dead_letter order by execution_id")
    assert [execution_id for (execution_id,) in dead] == poisoned
    assert (service.metrics.retries, service.metrics.total(metric.BATCHES)) == (1, 1)
    assert service.metrics.total(metric.TURNS) == len(healthy)
    assert await complete_jobs(database, {"ok": True}) == len(healthy)


@pytest.mark.changes_tables
async def test_a_lane_isolates_faults_for_a_hundred_batches(database: Database) -> None:
    """Two mails a batch: the first fault fails its batch, an isolating one finds the next; the last comes later."""
    await register(database, CHAIN)
    started = await start(database, count=240)
    poisoned = [started[0], started[20], started[170]]  # every fourth batch claims the newest mail
    listed = ", ".join(map(str, poisoned))
    await execute(database, f"alter table noetl.turn add constraint poison check (execution_id not in ({listed}))")
    service = await drain(database, lanes=1, batch_size=2)
    assert service.metrics.retries == 2
    assert service.metrics.total(metric.TURNS) == 237


async def test_the_first_turn_writes_each_step_once(database: Database) -> None:
    """Rows of steps that it enters are inserted with the others (xmin and cmin), and not updated after that."""
    await register(database, CHAIN)
    await start(database)
    await drain(database)
    assert await rows(
        database,
        """
        select step_name, status, visits, started_at is not null, ended_at is not null, count(*) over (partition by
          xmin::text, cmin::text)
        from noetl.workflow
        order by ordinal
        """,
    ) == [
        ("start", "COMPLETED", 1, True, True, 4),
        ("a", "RUNNING", 1, True, False, 4),
        ("b", "PENDING", 0, False, False, 4),
        ("end", "PENDING", 0, False, False, 4),
    ]


async def test_a_daemon_names_missing_rights_at_its_start(database: Database) -> None:
    """Exit code 77, before any mail fails."""
    role = database.name + "_role"
    await execute(database, f"create role {role} login password 'p'; grant usage on schema noetl to {role}")
    await execute(database, f"grant select on all tables in schema noetl to {role}")
    poor = Database(name=database.name, dsn=re.sub(r"//[^@]+@", f"//{role}:p@", database.dsn))
    try:
        with pytest.raises(
            PermissionFault, match=rf"lacks insert on {SCHEMA}\.event, .*execute on {SCHEMA}\.take_mail"
        ):
            await drain(poor)
    finally:
        await execute(database, f"drop owned by {role}; drop role {role}")

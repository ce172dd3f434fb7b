"""Signals by key come to the waits of all buckets: each execution takes each signal once."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from noetl_broker.errors import PermissionFault
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.connect.buckets import bucket_of_text, buckets_of
from noetl_broker.store.connect.installation import create_roles
from noetl_broker.store.connect.migrations import check_rights
from tests.brokers import broken_invariants, execute, rows, start, until_ended, value
from tests.installations import COUNT, register_everywhere, services_of, serving
from tests.postgres import Database
from tests.roles import login
from tests.sessions import session

PAID = """
workflow:
- {step: start, next: paid}
- {step: paid, type: wait, signal: paid, key: k, since: 1h}
"""
COPIES = "select count(*) from noetl.signal_copy"


async def test_a_signal_comes_to_the_waits_of_all_buckets(installation: Database) -> None:
    """Of `send_signal` of the installation; a broker is woken in its bucket and in the others. No copy is copied."""
    await register_everywhere(installation, PAID)
    async with serving(installation, sweep_seconds=600.0):
        for one in buckets_of(installation, COUNT):
            await start(one)
        sent = await value(installation, "select noetl.send_signal('paid', 'k', '7')")
        for one in buckets_of(installation, COUNT):
            await until_ended(one)
    assert sent % 64 == bucket_of_text("paid\x1fk", COUNT)
    for one in buckets_of(installation, COUNT):
        assert await rows(one, "select result from noetl.execution") == [(7,)]
        assert await rows(one, "select signal_id from noetl.signal") == [(sent,)]
        assert await value(one, COPIES) == 0
        assert await broken_invariants(one) == {}


async def test_a_copy_is_as_its_signal_but_without_the_key_of_its_sender(installation: Database) -> None:
    """Steps send, too: in the bucket of their execution."""
    body = """
    workflow:
    - {step: start, next: tell}
    - {step: tell, type: signal, signal: told, key: k, payload: [1.50, "ä"]}
    """
    await register_everywhere(installation, body)
    await start(installation.bucket(2))
    databases = services_of(installation)
    await databases.drain()
    columns = "select name, key, payload::text, sent_at, expires_at, execution_id, hops, signal_id from noetl.signal"
    [found] = await rows(installation.bucket(2), columns)
    assert found[-1] % 64 == 2
    for one in buckets_of(installation, COUNT):
        assert await rows(one, columns) == [found]
        keys = await rows(one, "select idempotency_key is null from noetl.signal")
        assert keys == [(one != installation.bucket(2),)]


async def test_a_signal_to_one_execution_is_not_copied(installation: Database) -> None:
    """Nor is anything of a plain schema: it has no place for copies."""
    await register_everywhere(installation, PAID)
    [execution_id] = await start(installation.bucket(1))
    await execute(installation, "select noetl.signal_execution($1, 'paid')", execution_id)
    assert await value(installation.bucket(1), "select count(*) from noetl.signal") == 1
    assert await value(installation.bucket(1), COPIES) == 0


async def test_ids_of_signals_rise_and_say_their_bucket(installation: Database, database: Database) -> None:
    """So they are unique in the installation; in a plain schema they are 1, 2, 3."""
    send = "select noetl.send_signal('n', 'k') from generate_series(1, 3)"
    assert await rows(database, send) == [(1,), (2,), (3,)]
    for number, one in enumerate(buckets_of(installation, COUNT)):
        assert await rows(one, send) == [(64 + number,), (128 + number,), (192 + number,)]


async def test_a_key_of_a_sender_belongs_to_one_bucket(installation: Database) -> None:
    """A call elsewhere is refused, since it would send twice; one without a key is not."""
    send = "select noetl.send_signal('paid', 'order 5', idempotency_key => 'x')"
    first = await value(installation, send)
    assert await value(installation, send) == first
    home = bucket_of_text("paid\x1forder 5", COUNT)
    other = (home + 1) % COUNT
    message = f"the signal paid of the key order 5 has an idempotency key, so it belongs to bucket {home}, and this is"
    async with session(installation.bucket(other)) as own:
        with pytest.raises(asyncpg.PostgresError, match=f"{message} bucket {other}") as found:
            await own.execute(send)
        assert found.value.sqlstate == "NB421"
        assert await own.fetchval("select noetl.send_signal('paid', 'order 5')") % 64 == other


async def test_a_copy_counts_a_second_longer(installation: Database) -> None:
    """The clocks of two servers differ. A signal of the bucket itself counts as it does without buckets."""
    await register_everywhere(installation, PAID)
    origin, late, later = (installation.bucket(number) for number in range(3))
    for one in (origin, late, later):
        await start(one)
    await services_of(installation).drain()
    sent = await value(origin, "select noetl.send_signal('paid', 'k')")
    at = await value(origin, "select sent_at from noetl.signal where signal_id = $1", sent)
    for one, seconds in ((origin, 0.001), (late, 1.0), (later, 1.001)):
        await execute(one, "update noetl.wait set since_at = $1::timestamptz + make_interval(secs => $2)", at, seconds)
    await services_of(installation).drain()
    status = "select status from noetl.wait"
    assert [await rows(one, status) for one in (origin, late, later)] == [[("open",)], [("done",)], [("open",)]]
    for one in (origin, late, later):
        assert await broken_invariants(one, ignore=["every execution ended"]) == {}


async def test_a_playbook_that_signals_start_begins_once(installation: Database) -> None:
    """In the one bucket that has its row, by its own signals and by copies."""
    await register_everywhere(installation, "workflow:\n- {step: start}\n")
    await execute(installation.bucket(3), "insert into noetl.on_signal (path, name) values ('story', 'go')")
    for one in buckets_of(installation, COUNT):
        await execute(one, "select noetl.send_signal('go', 'k')")
    await services_of(installation).drain()
    await services_of(installation).drain()
    counts = [await value(one, "select count(*) from noetl.execution") for one in buckets_of(installation, COUNT)]
    assert counts == [0, 0, 0, COUNT]


async def test_a_copy_that_is_written_again_is_none(installation: Database) -> None:
    """A broker that died had written it, but had not deleted its row in the bucket of the signal."""
    await register_everywhere(installation, PAID)
    origin, target = installation.bucket(0), installation.bucket(1)
    await start(target)
    sent = await value(origin, "select noetl.send_signal('paid', 'k')")
    await services_of(installation).drain()
    await execute(origin, "insert into noetl.signal_copy (target, signal_id) values (1, $1)", sent)
    await services_of(installation).drain()
    assert await value(origin, COPIES) == 0
    events = "select count(*) from noetl.event where event_type = 'execution_signal'"
    assert await value(target, events) == await value(target, "select count(*) from noetl.signal") == 1
    assert await broken_invariants(target) == {}


async def test_copies_of_old_signals_are_dropped(installation: Database) -> None:
    """Also of those that are swept."""
    origin = installation.bucket(0)
    await execute(origin, "select noetl.send_signal('old', 'k', keep => '1 microsecond') from generate_series(1, 2)")
    await execute(origin, "delete from noetl.signal where signal_id = 64")
    await services_of(installation).drain()
    assert await value(origin, COPIES) == 0
    assert await value(installation.bucket(1), "select count(*) from noetl.signal") == 0


async def test_a_locked_bucket_holds_up_no_other(installation: Database) -> None:
    """It gets its copies as soon as it is free."""
    await register_everywhere(installation, PAID)
    origin, locked, free = (installation.bucket(number) for number in (0, 1, 2))
    async with serving(installation, sweep_seconds=0.5), session(locked) as own:
        await start(free)
        async with own.transaction():
            await own.execute("lock table noetl.signal")
            await execute(origin, "select noetl.send_signal('paid', 'k')")
            await until_ended(free)
            assert await rows(origin, "select target from noetl.signal_copy where target <> 3") == [(1,)]
        await start(locked)
        await until_ended(locked)


async def test_one_broker_copies_between_two_buckets(installation: Database) -> None:
    """While another one does, it leaves the copies; it goes on when that one has died."""
    await register_everywhere(installation, PAID)
    origin, target = installation.bucket(0), installation.bucket(1)
    async with serving(installation, sweep_seconds=600.0), session(target) as other:
        await start(target)
        await start(installation.bucket(2))
        await other.execute("begin")
        assert await other.fetchval("select pg_try_advisory_xact_lock(hashtext('noetl.lock'), 64 + 0)")
        await execute(origin, "select noetl.send_signal('paid', 'k')")
        await until_ended(installation.bucket(2))
        assert await value(target, "select count(*) from noetl.signal") == 0
        await other.execute("rollback")
        await until_ended(target)


async def test_a_broker_copies_with_the_rights_of_its_role(installation: Database) -> None:
    """It says at its start if one is missing. An operator reads how late copies are."""
    await register_everywhere(installation, PAID)
    await create_roles(installation)
    role = f"{installation.schema}_broker"
    async with login(installation, "broker_of", role) as broker:
        poor = replace(installation, dsn=broker.dsn)
        [one] = await start(installation.bucket(1))
        await execute(installation.bucket(0), "select noetl.send_signal('paid', 'k')")
        await services_of(poor).drain()
        ended = "select status from noetl.execution where execution_id = $1"
        assert await value(installation.bucket(1), ended, one) == "COMPLETED"
        await execute(installation.bucket(1), f"revoke delete on noetl.signal_copy from {role}")
        async with session(poor.bucket(1)) as own:
            missing = f"{installation.schema}_1.signal_copy"
            with pytest.raises(PermissionFault, match=f"the role lacks delete on {missing};"):
                await check_rights(own)


async def test_doctor_finds_copies_that_nobody_makes(installation: Database, database: Database) -> None:
    """With the buckets that they are for. A plain schema has no such check."""
    origin = installation.bucket(1)

    async def found(database: Database) -> list[tuple[str, str]]:
        return [(each.state, each.says) for each in await examine(database) if each.check == "copies of signals"]

    assert await found(database) == []
    assert await found(origin) == [("ok", "none is late")]
    await execute(origin, "select noetl.send_signal('n', 'k')")
    assert await found(origin) == [("ok", "none is late")]
    await execute(origin, "delete from noetl.signal_copy where target = 2")
    await execute(origin, "update noetl.signal_copy set created_at = created_at - interval '3 hours'")
    assert await found(origin) == [
        ("problem", "2 are not made, the oldest for 3 h 0 min; they are for bucket 0, 3"),
    ]

"""An installation with buckets: its schemas, the home of an execution, ids, and calls that are routed or refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from noetl_broker.errors import OperatorFault, SchemaFault
from noetl_broker.store.connect import installation as installations
from noetl_broker.store.connect import migrations
from noetl_broker.store.connect.buckets import (
    bucket_of_id,
    bucket_of_text,
    buckets_of,
    count_buckets,
)
from noetl_broker.store.connect.migrations import check_version
from tests.brokers import execute, rows, value
from tests.postgres import Database, psycopg_connect
from tests.roles import login
from tests.sessions import Session, session
from tests.test_tidy import ROOT

COUNT = 4
PLAYBOOK = "insert into noetl.catalog (path, version, content, name, bucket) values ($1, 1, '', $1, $2)"
KEYS = ("a", "order 17", "ä", "x" * 200)


async def put_playbook(installation: Database, path: str = "story", bucket: str | None = None) -> None:
    """Register a playbook in each bucket, as `register` does."""
    for one in buckets_of(installation, COUNT):
        await execute(one, PLAYBOOK, path, bucket)
    if bucket is not None:
        await execute(installation, "insert into noetl.home (path, bucket) values ($1, $2)", path, bucket)


@asynccontextmanager
async def refused(session: Session, sqlstate: str, part: str) -> AsyncIterator[None]:
    """Expect an error of the database."""
    with pytest.raises(asyncpg.PostgresError, match=part) as found:
        yield
    assert found.value.sqlstate == sqlstate
    assert not session.is_in_transaction()


async def test_each_bucket_is_a_complete_broker(installation: Database) -> None:
    """And the schema of the installation has no table of executions. A program sees how many there are."""
    for one in buckets_of(installation, COUNT):
        async with session(one) as own:
            await check_version(own)
            assert await count_buckets(own) is None
    async with session(installation) as own:
        assert await count_buckets(own) == COUNT
    tables = (
        "select relname::text from pg_class where relnamespace = 'noetl'::regnamespace and relkind = 'r' order by 1"
    )
    assert await rows(installation, tables) == [("bucket",), ("home",)]


@pytest.mark.parametrize("key", KEYS)
async def test_the_home_of_a_start_is_the_same_in_sql_and_python(installation: Database, key: str) -> None:
    """By the first that it has: the text of the playbook, the bucket_key, path and idempotency key. Else random."""
    await put_playbook(installation, "at/home", "billing")
    statement = "select noetl.bucket_of($1, $2, $3)"
    for path, bucket in (("story", None), ("at/home", "billing")):
        for bucket_key in (None, key):
            for idempotency_key in (None, key):
                keyed = f"{path}\x1f{idempotency_key}" if idempotency_key else None
                home = bucket or bucket_key or keyed
                expected = None if home is None else bucket_of_text(home, COUNT)
                assert await value(installation, statement, path, bucket_key, idempotency_key) == expected
    sent = await value(installation, "select noetl.send_signal('paid', $1)", key)
    assert bucket_of_id(sent) == bucket_of_text(f"paid\x1f{key}", COUNT)


async def test_ids_say_their_bucket(installation: Database) -> None:
    """In their low 6 bits. The bits above the counter are the time, as in any schema: periods are ranges of ids."""
    moments = "select noetl.first_id_at(now() - interval '1 hour'), noetl.first_id_at(now() + interval '1 hour')"
    for number, one in enumerate(buckets_of(installation, COUNT)):
        ids = [row[0] for row in await rows(one, "select noetl.next_id() from generate_series(1, 100)")]
        assert {bucket_of_id(each) for each in ids} == {number}
        assert len({*ids}) == 100
        [(first, last)] = await rows(one, moments)
        assert first < min(ids) < max(ids) < last
        later = await value(one, "select noetl.next_id() from pg_sleep(0.002)")
        assert later > max(ids)


async def test_a_start_goes_to_its_bucket_and_once(installation: Database) -> None:
    """With a key or alone, one or many; starts without anything spread over all buckets."""
    await put_playbook(installation)
    await put_playbook(installation, "at/home", "billing")
    keyed = "select noetl.start_execution('story', '{}', null, $1, $2)"
    for key in KEYS:
        for options in (None, {"bucket_key": "customer-7"}):
            first, again = [await value(installation, keyed, f"{key} {options}", options) for _ in range(2)]
            bucket_key = options and options["bucket_key"]
            home = await value(installation, "select noetl.bucket_of('story', $1, $2)", bucket_key, f"{key} {options}")
            assert first == again
            assert bucket_of_id(first) == home
    spread = await value(installation, "select array_agg(noetl.start_execution('story')) from generate_series(1, 200)")
    assert {bucket_of_id(each) for each in spread} == {*range(COUNT)}
    many = "select noetl.start_executions($1, array_fill('{}'::jsonb, array[20]), $2)"
    keys = [f"key {n}" for n in range(20)]
    started = await value(installation, many, "story", keys)
    assert await value(installation, many, "story", keys) == started
    homes = await value(
        installation, "select array_agg(noetl.bucket_of('story', null, k)) from unnest($1::text[]) k", keys
    )
    assert [bucket_of_id(each) for each in started] == homes
    at_home = await value(installation, many, "at/home", keys)
    assert {bucket_of_id(each) for each in at_home} == {await value(installation, "select noetl.bucket_of('at/home')")}
    assert len({*await value(installation, many, "story", None)}) == 20


async def test_a_key_with_another_bucket_key_is_no_repeated_start(installation: Database, database: Database) -> None:
    """It is refused where the two meet: in one bucket, and in a schema without buckets."""
    await put_playbook(installation)
    await execute(database, PLAYBOOK, "story", None)
    statement = "select noetl.start_execution('story', '{}', null, 'k', jsonb_build_object('bucket_key', $1::text))"
    there = [n for n in range(99) if await value(installation, "select noetl.bucket_of('story', $1)", str(n)) == 0]
    for place in (installation, database):
        async with session(place) as own:
            started = await own.fetchval(statement, str(there[0]))
            assert await own.fetchval(statement, str(there[0])) == started
            async with refused(own, "NB409", "another payload or bucket_key"):
                await own.fetchval(statement, str(there[1]))


@pytest.mark.parametrize(
    "options, part",
    [
        ([], "are a JSON array, not an object"),
        ({"prio": 3}, "has no option prio"),
        ({"bucket_key": 7}, "the bucket_key 7 is no text"),
        ({"bucket_key": ""}, "the bucket_key  is no text"),
        ({"bucket_key": "x" * 2000}, "is no text of 1 to 1024 bytes"),
    ],
)
async def test_wrong_options_are_refused(database: Database, options: object, part: str) -> None:
    """Before anything is written; one start and many."""
    await execute(database, PLAYBOOK, "story", None)
    async with session(database) as own:
        async with refused(own, "NB400", part):
            await own.fetchval("select noetl.start_execution('story', options => $1)", options)
        async with refused(own, "NB400", part):
            await own.fetchval("select noetl.start_executions('story', array['{}']::jsonb[], options => $1)", options)
    assert await value(database, "select count(*) from noetl.execution") == 0


@pytest.mark.parametrize(
    "call",
    [
        *("cancel_execution($1)", "pause_execution($1)", "resume_execution($1)", "signal_execution($1, 'x')"),
        *("put_back($1)", "undo_execution($1)", "settle_undo($1, 'a', 'b')", "abandon_execution($1)"),
        *(
            "fork_execution($1, '{\"results\": []}')",
            "decide_approval($1, 'a', true, 'me')",
            "heartbeat_job($1, 'w', 1)",
        ),
        *(
            "complete_job($1, 'w', 1)",
            "fail_job($1, 'w', 1, '{\"message\": \"no\"}')",
            "log_job($1, 'w', 1, 'info', 'x')",
        ),
        *("report_progress($1, 'w', 1, '{\"done\": 1, \"total\": 2}')", "wait_for_child($1, 'w', 1, $1)"),
        *("complete_jobs('w', array[$1], array[1])", "complete_and_lease($1, 'w', 1)"),
    ],
)
async def test_a_call_in_a_wrong_bucket_is_refused(installation: Database, call: str) -> None:
    """The error names the right one. What ends a job would otherwise be lost without a word."""
    await put_playbook(installation)
    third = await value(installation.bucket(3), "select noetl.next_id()")
    message = f"the id {third} is of bucket 3, and this is bucket 1"
    async with session(installation.bucket(1)) as own, refused(own, "NB421", message):
        await own.execute(f"select noetl.{call.replace('$1', str(third))}")


async def test_a_start_by_event_in_another_bucket_is_refused(installation: Database) -> None:
    """As by a function."""
    third = await value(installation.bucket(3), "select noetl.next_id()")
    insert = "insert into noetl.event (execution_id, event_type, node_name) values ($1, 'execution_start', 'story')"
    async with session(installation.bucket(1)) as own, refused(own, "NB421", f"the id {third} is of bucket 3"):
        await own.execute(insert, third)


async def test_a_bad_start_of_many_has_its_number_in_the_call(installation: Database) -> None:
    """Whichever bucket it would go to."""
    await put_playbook(installation)
    many = "select noetl.start_executions('story', array['{}', '{}', '[]', '{}']::jsonb[], $1)"
    async with session(installation) as own:
        for keys in (None, list("abcd")):
            async with refused(own, "NB400", "payload 3 of 4: the payload of story is a JSON array"):
                await own.fetchval(many, keys)
        async with refused(own, "NB404", "no playbook nothing is registered"):
            await own.fetchval("select noetl.start_executions('nothing', array[]::jsonb[])")


async def test_a_start_in_a_wrong_bucket_is_refused(installation: Database) -> None:
    """The error says why it belongs elsewhere. A start without a home may begin in any bucket."""
    await put_playbook(installation)
    await put_playbook(installation, "at/home", "billing")
    wrong = {
        "noetl.start_execution('story', '{}', null, 'k')": ("'story', null, 'k'", "idempotency key k"),
        "noetl.start_executions('story', array['{}', '{}']::jsonb[], array[null, 'k'])": (
            "'story', null, 'k'",
            "key k",
        ),
        "noetl.start_execution('story', options => '{\"bucket_key\": \"c\"}')": ("'story', 'c'", "bucket_key c"),
        "noetl.start_execution('at/home')": ("'at/home'", "metadata.bucket: billing"),
    }
    for call, (start, why) in wrong.items():
        home = await value(installation, f"select noetl.bucket_of({start})")
        other = (home + 1) % COUNT
        async with session(installation.bucket(other)) as own:
            async with refused(own, "NB421", rf"belongs to bucket {home} \(.*{why}\), and this is bucket {other}"):
                await own.execute(f"select {call}")
            assert await own.fetchval("select noetl.start_execution('story')") & 63 == other


async def test_the_installation_routes_by_id_and_writes_settings_in_all_buckets(installation: Database) -> None:
    """An id of no bucket is refused."""
    await put_playbook(installation)
    started = [await value(one, "select noetl.start_execution('story')") for one in buckets_of(installation, COUNT)]
    for number, each in enumerate(started):
        assert await value(installation, "select noetl.cancel_execution($1, 'enough')", each)
        cancels = "select execution_id from noetl.event where event_type = 'execution_cancel'"
        assert await rows(installation.bucket(number), cancels) == [(each,)]
    await execute(installation, "select noetl.pause_path('story', 'disk full')")
    await execute(installation, "select noetl.announce_step_types('{gpu}')")
    await execute(installation, "select noetl.put_throttle('api', concurrency => 3)")
    for one in buckets_of(installation, COUNT):
        assert await rows(one, "select path, reason from noetl.path_pause") == [("story", "disk full")]
        assert await rows(one, "select name from noetl.step_type") == [("gpu",)]
        assert await rows(one, "select name, concurrency from noetl.limit") == [("api", 3)]
    async with session(installation) as own:
        async with refused(own, "NB404", "the id 63 is of no bucket"):
            await own.execute("select noetl.cancel_execution(63)")
        async with refused(own, "NB404", "the id null is of no bucket"):
            await own.execute("select noetl.cancel_execution(null)")


async def test_schedules_are_routed(installation: Database) -> None:
    """To the home of the playbook, else to the bucket of the name. A put for a playbook of another home moves it."""
    name = "nightly"
    own = bucket_of_text(name, COUNT)
    text = next(f"text {n}" for n in range(99) if bucket_of_text(f"text {n}", COUNT) != own)
    await put_playbook(installation)
    await put_playbook(installation, "at/home", text)
    put = "select noetl.put_schedule($1, $2, every => '1 hour')"
    count = "select count(*) from noetl.start_schedule"
    for path, home in (("story", own), ("at/home", bucket_of_text(text, COUNT))):
        assert await value(installation, put, name, path)
        assert not await value(installation, put, name, path)
        assert [await value(one, count) for one in buckets_of(installation, COUNT)] == [
            int(number == home) for number in range(COUNT)
        ]
        message = f"what starts {path} belongs to bucket {home}"
        async with session(installation.bucket((home + 1) % COUNT)) as other, refused(other, "NB421", message):
            await other.fetchval(put, name, path)
    assert await value(installation, "select noetl.pause_schedule($1)", name)
    assert await value(installation, "select noetl.resume_schedule($1)", name)
    await execute(installation, "select noetl.delete_schedule($1)", name)
    async with session(installation) as asking, refused(asking, "NB404", "no schedule nightly"):
        await asking.execute("select noetl.delete_schedule('nightly')")


async def test_all_buckets_have_the_roles_of_the_installation(installation: Database) -> None:
    """The functions that route have the rights of their caller: a reader starts nothing, a producer cancels."""
    await put_playbook(installation)
    await installations.create_roles(installation)
    roles = (f"{installation.schema}_{name}" for name in ("producer", "reader"))
    async with login(installation, "a", next(roles)) as producer, login(installation, "b", next(roles)) as reader:
        started = await value(producer, "select noetl.start_execution('story', '{}', null, 'k')")
        assert await value(producer, "select noetl.cancel_execution($1)", started)
        assert len(await value(producer, "select noetl.start_executions('story', array['{}', '{}']::jsonb[])")) == 2
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for function start_execution"):
            await value(reader, "select noetl.start_execution('story')")


async def test_an_interrupted_migrate_goes_on(empty_database: Database) -> None:
    """With the number that it began with."""
    with psycopg_connect(empty_database) as connection:
        text = (ROOT / "migrations/installation.sql").read_text(encoding="utf-8")
        connection.execute(text.replace("{buckets}", "3"))
    await migrations.migrate(empty_database.bucket(0), bucket=0, buckets=3)
    done = await installations.migrate(empty_database)
    assert [(name.rpartition("_")[2], len(files) > 0) for name, files in done.items()] == [
        ("0", False), ("1", True), ("2", True)
    ]  # fmt: skip
    assert not any((await installations.migrate(empty_database, 3)).values())
    found = await installations.status(empty_database)
    assert {entry.pending for files in found.values() for entry in files} == {False}


async def test_what_cannot_become_an_installation_is_refused(
    empty_database: Database, database: Database, installation: Database
) -> None:
    """Too few or many buckets, another number, a schema with a broker, a bucket by itself. Nothing is made."""
    for count in (0, 1, 65):
        with pytest.raises(OperatorFault, match=f"--buckets is {count}: an installation has 2 to 64 buckets"):
            await installations.migrate(empty_database, count)
    with pytest.raises(OperatorFault, match="has no valid name"):
        await installations.migrate(replace(empty_database, schema="x" * 31), 12)
    with pytest.raises(OperatorFault, match="the name noetl_job means something else in our SQL"):
        await installations.migrate(replace(empty_database, schema="noetl_job", installation=None), 4)
    assert await value(empty_database, "select to_regnamespace('noetl') is null")
    with pytest.raises(OperatorFault, match="has a broker without buckets, and its executions cannot be moved"):
        await installations.migrate(database, 4)
    with pytest.raises(OperatorFault, match="has 4 buckets, for ever"):
        await installations.migrate(installation, 8)
    with pytest.raises(OperatorFault, match="is a bucket: migrate its installation"):
        await installations.migrate(replace(installation, schema=installation.bucket(2).schema))


async def test_a_missing_bucket_is_not_made_anew(installation: Database) -> None:
    """Its executions would be lost without a word."""
    await execute(installation.bucket(2), "drop schema noetl cascade")
    with pytest.raises(
        SchemaFault, match=f"the bucket {installation.schema}_2 of the installation .* is missing: restore"
    ):
        await installations.migrate(installation)


BROKEN = asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError


async def test_starts_by_key_begin_once_whatever_is_cut(installation: Database) -> None:
    """Four callers send the same 300 keys at once, and repeat what was cut. Each key has one execution, at its home."""
    await put_playbook(installation)
    keys = [f"order {number}" for number in range(300)]
    start = "select noetl.start_execution('story', '{}', null, $1)"
    went_on = asyncio.Event()

    async def call_all(order: int) -> dict[str, int]:
        found: dict[str, int] = {}
        left = keys[order:] + keys[:order]
        while left:
            with contextlib.suppress(*BROKEN):
                async with session(installation) as own:
                    await own.execute("set application_name = 'caller'")
                    while left:
                        found[left[-1]] = await own.fetchval(start, left[-1])
                        left.pop()
                        if len(left) % 25 == 0:
                            went_on.set()
        return found

    async def cut() -> None:
        kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'caller'"
        async with session(installation) as own:
            while True:
                await went_on.wait()
                went_on.clear()
                await own.execute(kill)

    cutting = asyncio.create_task(cut())
    found = await asyncio.gather(*(call_all(order) for order in (0, 75, 150, 225)))
    cutting.cancel()
    assert found == [found[0]] * 4
    started = {}
    for number, one in enumerate(buckets_of(installation, COUNT)):
        for execution_id, key in await rows(one, "select execution_id, idempotency_key from noetl.execution"):
            assert bucket_of_id(execution_id) == number
            assert key not in started
            started[key] = execution_id
    assert started == found[0]

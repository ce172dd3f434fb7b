"""Actions on an installation with buckets: by id, in all at once, everywhere, one after the other."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

from noetl_broker import service
from noetl_broker.client import Client
from noetl_broker.errors import BrokerError, NotFoundFault, SchemaFault
from noetl_broker.playbook import PlaybookError
from noetl_broker.service import (
    bulk,
    execution_actions,
    executions,
    overview,
    playbooks,
    schedules,
    throttles,
    tokens,
    waits,
)
from noetl_broker.service.action import Caller, ServiceAction
from noetl_broker.service.where import by_id
from noetl_broker.store.admin.api_tokens import check_token
from noetl_broker.store.admin.doctor_of_buckets import examine_all
from noetl_broker.store.connect.bucket_connections import BucketConnections
from noetl_broker.store.connect.buckets import bucket_of_id, bucket_of_text, buckets_of
from noetl_broker.store.connect.session import place
from tests.brokers import drain, execute, rows, value
from tests.postgres import Database
from tests.sessions import session

COUNT = 4
STORY = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: story, path: story}\n"
STORY += "workflow:\n- {step: start, next: a}\n- {step: a, type: approval, title: '?', next: end}\n- {step: end}\n"
WAITS = STORY.replace("type: approval, title: '?'", "type: wait, signal: paid, key: order-7")


async def ask(place: Any, action: ServiceAction[Any, Any], /, **fields: Any) -> Any:
    """The answer of an action to a person at the machine."""
    return await action(place, Caller(), action.request(**fields))


@pytest.fixture
async def buckets(installation: Database) -> AsyncIterator[BucketConnections]:
    """The installation, with a playbook that waits for a person."""
    async with place(installation, name="test") as found:
        assert isinstance(found, BucketConnections)
        await ask(found, playbooks.register, files=[("story.yaml", STORY)])
        yield found


async def register_everywhere(installation: Database, text: str) -> None:
    """Register a playbook in all buckets."""
    async with place(installation, name="test") as found:
        await ask(found, playbooks.register, files=[("story.yaml", text)])


async def start_in_each(installation: Database, *, times: int = 3) -> list[int]:
    """Start executions in each bucket, and let brokers decide; gives their ids, in order."""
    started = [
        await value(one, "select noetl.start_execution('story')")
        for _ in range(times)
        for one in buckets_of(installation, COUNT)
    ]
    for one in buckets_of(installation, COUNT):
        await drain(one)
    return sorted(started)


async def pages(place: Any, action: ServiceAction[Any, Any], **fields: Any) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    found, cursor = [], None
    while True:
        answer = await ask(place, action, **fields, cursor=cursor)
        assert len(answer["items"]) <= fields["limit"]
        found += answer["items"]
        cursor = answer["next"]
        if cursor is None:
            return found


def test_each_action_says_where_it_runs() -> None:
    """By the id of the execution, or in a place of its own."""
    names = [module.name for module in pkgutil.iter_modules(service.__path__) if not module.ispkg]
    modules = [importlib.import_module(f"noetl_broker.service.{name}") for name in names]
    actions = {one for module in modules for one in vars(module).values() if isinstance(one, ServiceAction)}
    assert len(actions) > 70
    without = [
        one.function.__name__
        for one in actions
        if one.where is by_id and "execution_id" not in one.request.model_fields
    ]
    assert without == []


async def test_lists_are_merged_by_id(installation: Database, buckets: BucketConnections) -> None:
    """Page by page, whatever the size of a page: each row once."""
    started = await start_in_each(installation)
    for limit in (1, 5, 12, 50):
        found = await pages(buckets, executions.list_executions, limit=limit)
        assert [row["execution_id"] for row in found] == started[::-1]
        found = await pages(buckets, waits.list_approvals, limit=limit)
        assert [row["execution_id"] for row in found] == started
    only = await pages(buckets, executions.list_executions, limit=2, text=str(started[4]))
    assert [row["execution_id"] for row in only] == [started[4]]


async def test_an_action_on_one_execution_goes_to_its_bucket(
    installation: Database, buckets: BucketConnections
) -> None:
    """An id of no bucket does not exist."""
    started = await start_in_each(installation, times=1)
    for each in started:
        assert (await ask(buckets, executions.show_execution, execution_id=each))["status"] == "RUNNING"
        await ask(buckets, waits.decide, execution_id=each, step="a", approved=True, decided_by="ann")
        assert (await ask(buckets, execution_actions.cancel_execution, execution_id=each))["requested"]
    assert (await ask(buckets, overview.list_positions, execution_ids=started)).keys() == {*started}
    with pytest.raises(NotFoundFault, match="the id 63 is of no bucket"):
        await ask(buckets, executions.show_execution, execution_id=63)


async def test_a_start_goes_home(installation: Database, buckets: BucketConnections) -> None:
    """By bucket_key, by key, or anywhere; from the service and from a program."""
    home = await value(installation, "select noetl.bucket_of('story', 'customer-7')")
    given = {"path": "story", "bucket_key": "customer-7"}
    first = await ask(buckets, executions.start_execution, **given, idempotency_key="k")
    assert first == await ask(buckets, executions.start_execution, **given, idempotency_key="k")
    many = await ask(buckets, executions.start_executions, **given, payloads=[{}] * 3)
    assert {bucket_of_id(one) for one in (first["execution_id"], *many["execution_ids"])} == {home}
    spread = [(await ask(buckets, executions.start_execution, path="story"))["execution_id"] for _ in range(40)]
    assert len({bucket_of_id(one) for one in spread}) > 1
    async with Client(installation.dsn, schema=installation.schema) as client:
        assert await client.start("story", bucket_key="customer-7", idempotency_key="k") == first["execution_id"]
        assert (await client.status(first["execution_id"])).status == "RUNNING"
        assert await client.cancel(first["execution_id"])
        assert await client.signal("paid", "order-7") > 0


async def test_a_registered_home_routes_starts(installation: Database, buckets: BucketConnections) -> None:
    """It changes with `new_home` alone, in all buckets and where starts are routed."""
    text = STORY.replace("path: story", "path: story, bucket: %s")
    homes = "select bucket from noetl.home where path = 'story'"
    with pytest.raises(PlaybookError, match="would start again"):
        await ask(buckets, playbooks.register, files=[("story.yaml", text % "a")])
    assert await rows(installation, homes) == []
    for home in "abc":
        await ask(buckets, playbooks.register, files=[("story.yaml", text % home)], new_home=True)
        assert await rows(installation, homes) == [(home,)]
        started = await value(installation, "select noetl.start_execution('story')")
        assert bucket_of_id(started) == bucket_of_text(home, COUNT)
    checked = await ask(buckets, playbooks.validate, content=(text % "c").replace("bucket: c", "concurrency: {}"))
    assert [one.code for one in checked["findings"]] == ["bad-bucket"]


async def test_settings_are_written_in_all_buckets_or_in_none(
    installation: Database, buckets: BucketConnections
) -> None:
    """A playbook once more, step types, limits, a paused playbook, tokens."""
    again = await ask(buckets, playbooks.register, files=[("story.yaml", STORY)])
    assert [entry["new"] for entry in again] == [False]
    await ask(buckets, playbooks.register, files=[("story.yaml", WAITS)])
    await ask(buckets, playbooks.add_step_type, name="gpu")
    await ask(buckets, throttles.put_throttle, name="api", concurrency=3)
    await ask(buckets, playbooks.pause_path, path="story", reason="disk full")
    token = (await ask(buckets, tokens.create_token, name="me", role="viewer"))["token"]
    for one in buckets_of(installation, COUNT):
        assert await rows(one, "select version from noetl.catalog order by 1") == [(1,), (2,)]
        assert await rows(one, "select name from noetl.step_type") == [("gpu",)]
        assert await rows(one, "select path from noetl.path_pause") == [("story",)]
        async with session(one) as own:
            assert (await check_token(own, token)).name == "me"
    assert (await ask(buckets, throttles.list_throttles))["items"][0]["concurrency"] == 3
    await execute(installation.bucket(3), "alter table noetl.step_type add check (name <> 'tpu')")
    with pytest.raises(BrokerError):
        await ask(buckets, playbooks.add_step_type, name="tpu")
    assert await rows(installation.bucket(0), "select name from noetl.step_type") == [("gpu",)]
    resumed = await ask(buckets, playbooks.resume_path, path="story")
    assert resumed["changed"]


async def test_a_bucket_that_does_not_answer_is_named(installation: Database, buckets: BucketConnections) -> None:
    """The others answer. What is to be done in all of them is not done."""
    started = await start_in_each(installation, times=1)
    await execute(installation.bucket(2), "drop schema noetl cascade")
    lost = f"{installation.schema}_2"
    found = await ask(buckets, executions.list_executions, limit=50)
    assert [row["execution_id"] for row in found["items"]] == [one for one in started[::-1] if bucket_of_id(one) != 2]
    assert [one.partition(":")[0] for one in found["unanswered"]] == [lost]
    assert (await ask(buckets, executions.verify_executions, which={}, examples=3))["executions"] == 3
    assert (await ask(buckets, overview.show_overview))["present"]["live"] == 3
    [of_lost] = [one for one in started if bucket_of_id(one) == 2]
    with pytest.raises(SchemaFault, match=lost):
        await ask(buckets, executions.show_execution, execution_id=of_lost)
    with pytest.raises(SchemaFault):
        await ask(buckets, playbooks.add_step_type, name="gpu")
    assert await value(installation.bucket(0), "select count(*) from noetl.step_type") == 0
    problems = [one for one in await examine_all(installation) if one.state == "problem" and lost in one.says]
    assert problems != []


async def test_a_schedule_lives_in_the_bucket_of_its_name(installation: Database, buckets: BucketConnections) -> None:
    """Its executions begin there. All that is asked of it finds it."""
    names = [f"nightly {number}" for number in range(8)]
    for name in names:
        await ask(buckets, schedules.put_schedule, name=name, path="story", every=3600)
    listed = await ask(buckets, schedules.list_schedules)
    assert [row["name"] for row in listed["items"]] == names
    assert [row["name"] for row in await pages(buckets, schedules.list_schedules, limit=3)] != []
    assert {row["name"] for row in await pages(buckets, schedules.list_schedules, limit=3)} == {*names}
    for name in names:
        home = bucket_of_text(name, COUNT)
        assert await value(installation.bucket(home), "select count(*) from noetl.start_schedule where name = $1", name)
        assert (await ask(buckets, schedules.pause_schedule, name=name))["changed"]
        start = "select execution_id from noetl.start_scheduled($1, '2026-01-01Z', '2026-01-01T00:00:00Z', false)"
        assert bucket_of_id(await value(installation.bucket(home), start, name)) == home
    await ask(buckets, schedules.delete_schedule, name=names[0])
    with pytest.raises(NotFoundFault, match="no schedule nightly 0"):
        await ask(buckets, schedules.show_schedule, name=names[0])


async def test_a_schedule_moves_to_the_home_of_its_playbook(installation: Database, buckets: BucketConnections) -> None:
    """When it is put for another playbook. It is never in two buckets."""
    await ask(buckets, schedules.put_schedule, name="s", path="story", every=3600)
    text = next(f"text {n}" for n in range(99) if bucket_of_text(f"text {n}", COUNT) != bucket_of_text("s", COUNT))
    for one in buckets_of(installation, COUNT):
        await execute(
            one, "insert into noetl.catalog (path, version, content, bucket) values ('home', 1, '', $1)", text
        )
    await execute(installation, "insert into noetl.home values ('home', $1)", text)
    await ask(buckets, schedules.put_schedule, name="s", path="home", every=3600)
    counts = [await value(one, "select count(*) from noetl.start_schedule") for one in buckets_of(installation, COUNT)]
    assert counts == [int(number == bucket_of_text(text, COUNT)) for number in range(COUNT)]


@pytest.mark.parametrize("bucket", [None, "billing"])
async def test_what_a_playbook_declares_is_in_one_bucket(
    installation: Database, buckets: BucketConnections, bucket: str | None
) -> None:
    """A schedule in that of its name, on_signal in that of its path; with a home, both there."""
    declared = "schedule: [{name: nightly, every: 1h}], on_signal: [{signal: paid}]"
    home = "" if bucket is None else f", bucket: {bucket}"
    text = STORY.replace("path: story}", f"path: other, {declared}{home}}}")
    await ask(buckets, playbooks.register, files=[("other.yaml", text)])
    for table, own in (("start_schedule", "other#nightly"), ("on_signal", "other")):
        counts = [await value(one, f"select count(*) from noetl.{table}") for one in buckets_of(installation, COUNT)]
        assert counts == [int(number == bucket_of_text(bucket or own, COUNT)) for number in range(COUNT)]
    without = text.replace(declared, "labels: {}")
    await ask(buckets, playbooks.register, files=[("other.yaml", without)])
    for table in ("start_schedule", "on_signal"):
        assert [await value(one, f"select count(*) from noetl.{table}") for one in buckets_of(installation, COUNT)] == [
            0
        ] * COUNT


@pytest.mark.parametrize("limit", [1, 5, 100])
async def test_a_bulk_action_goes_through_one_bucket_after_the_other(
    installation: Database, buckets: BucketConnections, limit: int
) -> None:
    """`next` of an answer goes on where it stopped: each execution once."""
    started = await start_in_each(installation)
    preview = await ask(buckets, bulk.act_on_many, action="cancel", which={"path": "story"}, preview=True)
    assert (preview["found"], sum(group.executions for group in preview["groups"])) == (len(started), len(started))
    done: list[int] = []
    after: int | None = None
    while True:
        given = {"which": {"path": "story"}, "preview": False, "limit": limit, "after": after}
        answer = await ask(buckets, bulk.act_on_many, action="cancel", **given)
        done += [one["execution_id"] for one in answer["done"]]
        after = answer["next"]
        if after is None:
            break
    assert sorted(done) == started
    assert [bucket_of_id(one) for one in done] == sorted(bucket_of_id(one) for one in done)


async def test_chosen_executions_are_treated_in_their_buckets(
    installation: Database, buckets: BucketConnections
) -> None:
    """By id and by filter; the preview says how many."""
    started = await start_in_each(installation)
    some, missing = started[2:7], [64, 63]
    found = (await ask(buckets, bulk.act_on_chosen, action="pause", ids=[*some, *missing], preview=True))["found"]
    assert (found.chosen, found.acted, found.left_out) == (7, 5, {"does not exist": missing})
    answer = await ask(buckets, bulk.act_on_chosen, action="pause", ids=[*some, *missing])
    assert sorted(one["execution_id"] for one in answer["done"]) == started[2:7]
    answer = await ask(buckets, bulk.act_on_chosen, action="cancel", which={"path": "story"})
    assert sorted(one["execution_id"] for one in answer["done"]) == started


async def test_a_signal_is_listed_once(buckets: BucketConnections) -> None:
    """Although other buckets get copies of it."""
    sent = await ask(buckets, waits.send_signal, name="paid", key="order-7", payload=5)
    assert [row["signal_id"] for row in await pages(buckets, waits.list_signals, limit=10)] == [sent["signal_id"]]


async def test_settings_that_differ_are_found(installation: Database, buckets: BucketConnections) -> None:
    """The examination names the setting and the bucket that is alone."""
    del buckets
    [same] = [one for one in await examine_all(installation) if one.check == "buckets"]
    assert (same.state, same.says) == ("ok", "4 buckets have the same settings")
    await execute(installation.bucket(1), "insert into noetl.step_type (name, added_by) values ('gpu', 'me')")
    [differ] = [one for one in await examine_all(installation) if one.check == "buckets"]
    assert differ.state == "problem"
    assert differ.says == f"settings differ between buckets: step types ({installation.schema}_1)"


async def test_an_edited_playbook_is_compared_with_the_newest_of_all_buckets(
    installation: Database, buckets: BucketConnections
) -> None:
    """As many as are asked for, in all."""
    await start_in_each(installation)
    answer = await ask(buckets, playbooks.back_test, content=STORY, limit=5)
    assert answer["executions"] == 5


async def test_an_erasure_removes_the_copies_of_a_signal(installation: Database, buckets: BucketConnections) -> None:
    """In each bucket; while one of them waits for its copy, it is refused."""
    signal = (await ask(buckets, waits.send_signal, name="paid", key="order-7", payload=5))["signal_id"]
    number = bucket_of_id(signal)
    one = buckets_of(installation, COUNT)[number]
    execution = (await start_in_each(installation))[0]
    home = buckets_of(installation, COUNT)[bucket_of_id(execution)]
    await execute(home, "update noetl.execution set status = 'COMPLETED' where execution_id = $1", execution)
    await execute(home, "delete from noetl.inbox where execution_id = $1", execution)
    await execute(
        home,
        "update noetl.event set meta = jsonb_build_object('signal_id', $2::text) where execution_id = $1",
        execution,
        str(signal),
    )
    with pytest.raises(BrokerError, match="a signal that one of the executions took is being copied"):
        await ask(buckets, execution_actions.erase_execution, execution_id=execution, preview=False)
    await execute(one, "delete from noetl.signal_copy")
    for other in buckets_of(installation, COUNT):
        await execute(
            other,
            "insert into noetl.signal (signal_id, name, key, expires_at) values ($1, 'paid', 'order-7', 'infinity')"
            " on conflict do nothing",
            signal,
        )
    answer = await ask(buckets, execution_actions.erase_execution, execution_id=execution, preview=False)
    assert answer["executions"] == 1
    left = [await value(each, "select count(*) from noetl.signal") for each in buckets_of(installation, COUNT)]
    assert left == [0] * COUNT

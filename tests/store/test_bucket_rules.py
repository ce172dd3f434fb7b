"""What a playbook must say in a bucket, what a bucket refuses, and what limits count. Elsewhere nothing is refused."""

from __future__ import annotations

import pytest

from noetl_broker.errors import OperatorFault
from noetl_broker.playbook import PlaybookError, PlaybookRules, compile_playbook
from noetl_broker.service.check import check_text
from noetl_broker.store.admin import catalog
from noetl_broker.store.connect.buckets import bucket_of_text
from tests.brokers import complete_jobs, drain, execute, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import pooled_session, refused, session
from tests.stories import document

COUNT = 4
RULES = PlaybookRules()
IDLE = "workflow: [{step: start}]"
LIMITED = "concurrency: {limit: 1}"
STEP = "workflow: [{step: start, next: a}, {step: a, %s}]"
CALL = STEP % "type: playbook, path: child"
RENDERED = STEP % 'type: playbook, path: "{{ workload.path }}"'
THROTTLED = "type: http, url: x, throttle: {name: api, concurrency: 1%s}"
EACH = "type: iterator, collection: [1, 2], element: it, task: {%s}"
NO_COUNT = "does not say what it counts: each bucket counts only its own"
OTHERS = "`child` has metadata.bucket: b, and `story`, which starts it, has"
WITHOUT = f"{OTHERS} no metadata.bucket: they would live in different buckets"
STATES = "select path, status, error ->> 'type' from noetl.execution order by execution_id"
# The metadata and the body of `story`, and its error; `child` has metadata.bucket: b.
REFUSED = {
    "concurrency": (LIMITED, IDLE, f"`concurrency` of `story` {NO_COUNT} executions (write metadata.bucket: NAME"),
    "concurrency of a block": (
        "",
        STEP % "type: playbook, concurrency: {limit: 1}, workflow: [{step: start}]",
        f"`concurrency` of `story` {NO_COUNT} executions (write",
    ),
    "throttle": ("bucket: b", STEP % THROTTLED % "", f"`throttle` of `story` {NO_COUNT} jobs (write per_bucket: true"),
    "throttle of an iterator": ("", STEP % EACH % THROTTLED % "", f"`throttle` of `story` {NO_COUNT} jobs"),
    "throttle of a workbook action": (
        "",
        f"workbook: [{{name: w, {THROTTLED % ''}}}]\n{STEP % 'type: workbook, name: w'}",
        f"`throttle` of `story` {NO_COUNT} jobs",
    ),
    "child": ("", CALL, f"{WITHOUT} (give both the same metadata.bucket, or remove it from `child`)"),
    "child of another home": ("bucket: a", CALL, f"{OTHERS} metadata.bucket: a: they would"),
    "child of a version": ("", CALL.replace("path", "version: '1', path"), WITHOUT),
    "child of an iterator": ("", STEP % EACH % "type: playbook, path: child", WITHOUT),
    "child in a block": ("", STEP % f"type: playbook, {CALL}", WITHOUT),
    "child that undoes": (
        "",
        STEP % "type: http, url: x, compensate: {type: playbook, path: child}",
        WITHOUT,
    ),
    "on_failure": ("on_failure: {path: child}", IDLE, WITHOUT),
}
ACCEPTED = {
    "concurrency with a home": ("bucket: a, concurrency: {limit: 1}", IDLE),
    "concurrency per bucket": ("concurrency: {limit: 1, per_bucket: true}", IDLE),
    "throttle per bucket": ("", STEP % THROTTLED % ", per_bucket: true"),
    "child of one home": ("bucket: b, on_failure: {path: child}", CALL),
    "child without a home": ("bucket: a", STEP % "type: playbook, path: elsewhere"),
    "child with a template": ("", RENDERED),
    "child with a template as its version": ("", CALL.replace("path", 'version: "{{ workload.v }}", path')),
}


async def register(
    place: Database, body: str, metadata: str = "", path: str = "story", *, new_home: bool = False
) -> None:
    """Register a playbook as the program does."""
    text = document(body, path=path, metadata=metadata)
    async with pooled_session(place) as connection:
        playbook = compile_playbook(text, file="a.yaml", rules=RULES)
        await catalog.register(connection, [(playbook, text)], new_home=new_home)


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bucket_refuses_it(installation: Database, name: str) -> None:
    """By `register`, which says where and what to do and registers nothing; by `validate` in the same words."""
    metadata, body, complaint = REFUSED[name]
    bucket = installation.bucket(1)
    await register(bucket, IDLE, "bucket: b", "child")
    with pytest.raises(PlaybookError) as found:
        await register(bucket, body, metadata)
    [finding] = found.value.findings
    assert complaint in str(finding)
    text = document(body, metadata=metadata).splitlines()
    assert finding.code == "bad-bucket"
    assert finding.path.rpartition(".")[2] in text[finding.line - 1]
    assert await rows(bucket, "select path from noetl.catalog") == [("child",)]
    async with pooled_session(bucket) as connection:
        checked = await check_text(connection, document(body, metadata=metadata), RULES)
    assert [one.message for one in checked.findings if one.severity == "error"] == [finding.message]


@pytest.mark.parametrize("name", ACCEPTED)
async def test_a_bucket_accepts_it(installation: Database, name: str) -> None:
    """What says how it counts, children that live with their parents, and what is not known before it runs."""
    metadata, body = ACCEPTED[name]
    await register(installation.bucket(1), IDLE, "bucket: b", "child")
    await register(installation.bucket(1), body, metadata)
    home = "b" if "bucket: b" in metadata else "a" if "bucket: a" in metadata else None
    assert await value(installation.bucket(1), "select bucket from noetl.catalog where path = 'story'") == home


async def test_a_schema_without_buckets_accepts_all_of_it(database: Database) -> None:
    """The keys have no effect there."""
    await register(database, IDLE, "bucket: b", "child")
    for number, (metadata, body, _) in enumerate(REFUSED.values()):
        await register(database, body, metadata, f"story{number}")
        async with pooled_session(database) as connection:
            checked = await check_text(connection, document(body, metadata=metadata), RULES)
        assert checked.errors == 0
    await register(database, CALL, "bucket: a, concurrency: {limit: 1, per_bucket: true}")
    await register(database, CALL, "bucket: c")
    await start(database)
    await drain(database)
    assert await rows(database, STATES) == [("story", "COMPLETED", None), ("child", "COMPLETED", None)]


async def test_a_parent_and_its_child_are_registered_together(installation: Database) -> None:
    """In any order: the homes of the call count, not those of earlier versions."""
    await register(installation.bucket(0), IDLE, "bucket: b", "child")
    texts = [document(CALL, metadata="bucket: a"), document(IDLE, path="child", metadata="bucket: a")]
    made = [(compile_playbook(text, rules=RULES), text) for text in texts]
    async with pooled_session(installation.bucket(0)) as connection:
        await catalog.register(connection, made, new_home=True)
    assert await value(installation.bucket(0), "select count(*) from noetl.catalog where bucket = 'a'") == 2


@pytest.mark.parametrize("before, after", [("bucket: a", "bucket: b"), ("bucket: a", ""), ("", "bucket: b")])
async def test_another_home_needs_new_home(installation: Database, database: Database, before: str, after: str) -> None:
    """Executions with earlier idempotency keys would start again. Without buckets nothing would."""
    bucket = installation.bucket(2)
    for place in (bucket, database):
        await register(place, IDLE, before)
    has = f"`story` has {f'metadata.{after}' if after else 'no metadata.bucket'}, and its version 1 has"
    with pytest.raises(PlaybookError, match=f"{has}.*would start again") as found:
        await register(bucket, IDLE, after)
    assert found.value.findings[0].hint == "keep it, or register with --new-home"
    await register(bucket, IDLE, after, new_home=True)
    await register(bucket, f"{IDLE} # the same home", after)
    await register(database, IDLE, after)
    assert await value(bucket, "select max(version) from noetl.catalog") == 3


async def test_an_installation_has_the_homes_of_its_playbooks(installation: Database) -> None:
    """Of their latest versions: a home is added, changed and removed."""
    texts = {"a": ("bucket: x", "bucket: y"), "b": ("bucket: x", ""), "c": ("", "bucket: x"), "d": ("bucket: z",) * 2}
    for turn, homes in enumerate(([("a", "x"), ("b", "x"), ("d", "z")], [("a", "y"), ("c", "x"), ("d", "z")])):
        made = [
            compile_playbook(document(IDLE, path=path, metadata=given[turn]), rules=RULES)
            for path, given in texts.items()
        ]
        async with pooled_session(installation) as connection:
            await catalog.write_homes(connection, made)
        assert await rows(installation, "select path, bucket from noetl.home order by path") == homes


@pytest.mark.parametrize(
    "body, metadata, callers",
    [
        (RENDERED, "", "none"),
        (RENDERED, "bucket: a", "a"),
        (STEP % EACH % 'type: playbook, path: "{{ workload.path }}"', "", "none"),
        (STEP % f"type: playbook, args: {{path: '{{{{ workload.path }}}}'}}, {RENDERED}", "", "none"),
    ],
)
async def test_a_rendered_child_with_another_home_fails(
    installation: Database, body: str, metadata: str, callers: str
) -> None:
    """It fails at its start, and so does the step, with the type `other_bucket`."""
    bucket = installation.bucket(bucket_of_text("a", COUNT))
    await register(bucket, IDLE, "bucket: b", "child")
    await register(bucket, body, metadata)
    await start(bucket, payload={"path": "child"})
    await drain(bucket)
    states = await rows(bucket, STATES)
    assert {(status, kind) for _, status, kind in states} == {("FAILED", "other_bucket")}
    found = await value(bucket, "select error ->> 'message' from noetl.execution where path = 'child'")
    caller = "story#a" if "step: a, type: playbook, args" in body else "story"
    assert found == (
        f"playbook child has metadata.bucket: b, and {caller}, which starts it, has {callers}:"
        " give both the same, or none to the former"
    )
    assert await inconsistencies(bucket) == {}


async def test_children_with_the_home_of_their_parent_run(installation: Database) -> None:
    """A child without a home does, too."""
    bucket = installation.bucket(bucket_of_text("a", COUNT))
    await register(bucket, IDLE, "bucket: a", "child")
    await register(bucket, IDLE, "", "elsewhere")
    await register(bucket, RENDERED, "bucket: a")
    for path in ("child", "elsewhere"):
        await start(bucket, payload={"path": path})
    await drain(bucket)
    assert {status for _, status, _ in await rows(bucket, STATES)} == {"COMPLETED"}


async def test_an_alarm_with_another_home_fails(installation: Database) -> None:
    """If it got the home after its playbook was registered."""
    bucket = installation.bucket(0)
    await register(bucket, STEP % "type: fail", "on_failure: {path: ops/alarm}")
    await register(bucket, IDLE, "bucket: b", "ops/alarm")
    await start(bucket)
    await drain(bucket)
    assert await rows(bucket, STATES) == [("story", "FAILED", "fail"), ("ops/alarm", "FAILED", "other_bucket")]
    assert await inconsistencies(bucket) == {}


async def test_a_fork_on_a_version_with_another_home_is_refused(installation: Database) -> None:
    """It would live where its source is. A fork on its own version is not refused."""
    here = bucket_of_text("a", COUNT)
    bucket = installation.bucket(here)
    await register(bucket, IDLE, "bucket: a")
    other = next(text for text in "bcdefgh" if bucket_of_text(text, COUNT) != here)
    await register(bucket, IDLE, f"bucket: {other}", new_home=True)
    source = await value(bucket, "select noetl.start_execution('story', version => 1)")
    await drain(bucket)
    latest = "select catalog_id from noetl.catalog where version = 2"
    async with session(bucket) as own:
        plan: dict[str, list[object]] = {"results": []}
        async with refused("NB421", f"belongs to bucket .* .metadata.bucket: {other}., and this is bucket {here}"):
            await own.fetchval("select noetl.fork_execution($1, $2, $3)", source, plan, await value(bucket, latest))
        assert await own.fetchval("select noetl.fork_execution($1, $2)", source, plan)


async def test_a_limit_per_bucket_counts_in_each_by_itself(installation: Database) -> None:
    """`concurrency` its executions, `throttle` its jobs."""
    for number in (0, 3):
        bucket = installation.bucket(number)
        await register(bucket, STEP % "type: http, url: x", "concurrency: {limit: 1, per_bucket: true}", "one")
        await register(bucket, STEP % THROTTLED % ", per_bucket: true")
        await start(bucket, "one", count=3)
        await start(bucket, count=3)
        await drain(bucket)
    for number in (0, 3):
        bucket = installation.bucket(number)
        running = "select path, status, count(*) from noetl.execution group by 1, 2 order by 1, 2"
        assert await rows(bucket, running) == [("one", "QUEUED", 2), ("one", "RUNNING", 1), ("story", "RUNNING", 3)]
        assert await value(bucket, "select count(*) from noetl.lease_jobs('w', 9)") == 2


async def test_a_limit_of_a_playbook_with_a_home_is_exact(installation: Database) -> None:
    """All its executions live in one bucket."""
    for number in range(COUNT):
        await register(installation.bucket(number), STEP % "type: http, url: x", "bucket: a, concurrency: {limit: 2}")
    text = document(IDLE, metadata="bucket: a")
    async with pooled_session(installation) as connection:
        await catalog.write_homes(connection, [compile_playbook(text, rules=RULES)])
    starts = "select noetl.start_execution('story', idempotency_key => n::text) from generate_series(1, 9) n"
    await execute(installation, starts)
    states = "select status, count(*) from noetl.execution group by 1 order by 1"
    for number in range(COUNT):
        await drain(installation.bucket(number))
        expected = [("QUEUED", 7), ("RUNNING", 2)] if number == bucket_of_text("a", COUNT) else []
        assert await rows(installation.bucket(number), states) == expected
    there = installation.bucket(bucket_of_text("a", COUNT))
    await complete_jobs(there)
    await drain(there)
    assert await rows(there, states) == [("COMPLETED", 2), ("QUEUED", 5), ("RUNNING", 2)]


async def test_a_bucket_alone_registers_no_playbook_of_a_fork(installation: Database) -> None:
    """All buckets have the same catalog. A registered text is found."""
    bucket = installation.bucket(1)
    text = document(IDLE)
    async with pooled_session(bucket) as connection:
        playbook = compile_playbook(text, rules=RULES)
        with pytest.raises(OperatorFault, match="one bucket cannot register it alone: noetl-broker register FILE"):
            await catalog.find_or_register(connection, playbook, text)
        await catalog.register(connection, [(playbook, text)])
        assert not (await catalog.find_or_register(connection, playbook, text)).new

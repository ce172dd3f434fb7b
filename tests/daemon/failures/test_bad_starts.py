"""Any inserted start: its execution runs, or fails with a reason, and affects no other."""

from __future__ import annotations

from tests.bad_events import BAD, FORK, assert_healthy, begin, insert, outcomes, start_by_hand
from tests.brokers import drain, register, rows, value
from tests.postgres import Database


async def test_a_completion_before_the_start_is_recorded(database: Database) -> None:
    """The start comes later, and the execution runs."""
    await register(database, FORK)
    await insert(database, 5, {})
    await drain(database)
    assert await outcomes(database) == ["unknown_execution"]
    await start_by_hand(database, 5, '{"path": "story"}')
    await assert_healthy(database, 5)
    turns = await rows(
        database, "select turn, outcome from noetl.turn where execution_id = 5 and turn < 3 order by turn"
    )
    assert turns == [(1, "unknown_execution"), (2, "decided")]


async def test_two_starts_of_one_execution_start_it_once(database: Database) -> None:
    """The second is a duplicate, also with another payload."""
    await register(database, FORK)
    await start_by_hand(database, 5, '{"path": "story", "workload": {"n": 1}}')
    await start_by_hand(database, 5, '{"path": "story", "workload": {"n": 2}}')
    await assert_healthy(database, 5)
    assert await value(database, "select workload ->> 'n' from noetl.execution") == "1"
    assert await value(database, "select count(*) from noetl.queue") == 2


IMPOSSIBLE: list[tuple[str | None, int | None, str]] = [
    ('{"path": "nowhere"}', None, "no playbook nowhere is registered"),
    ('{"path": "story", "version": 7}', None, "no playbook story version 7 is registered"),
    ('{"path": "story"}', 404, "no playbook story is registered"),
    ("{}", None, "no playbook"),
    (None, None, "no playbook"),
    ('["story"]', None, "no playbook"),
    ('"story"', None, "no playbook"),
    ('{"path": {"a": 1}}', None, "no playbook"),
    ('{"path": "story", "workload": [1]}', None, "is no mapping"),
    ('{"path": "story", "workload": "text"}', None, "is no mapping"),
    ('{"path": "story", "workload": 0}', None, "is no mapping"),
    ('{"path": "story", "workload": false}', None, "is no mapping"),
    ('{"path": "story", "workload": ' + '{"a":' * 500 + "1" + "}" * 501, None, "nests too deeply"),
]


async def test_an_impossible_start_fails_with_a_reason(database: Database) -> None:
    """The execution exists and has failed; later events come after its end."""
    _, bystander = await begin(database)
    for number, (context, catalog_id, _) in enumerate(IMPOSSIBLE):
        await start_by_hand(database, number, context, catalog_id)
    await drain(database)
    found = """
        select x.status, x.error ->> 'message', array_agg(e.event_type order by e.created_at)
        from noetl.execution x
        join noetl.event e using (execution_id)
        where execution_id < 100
        group by x.execution_id
        order by x.execution_id"""
    failed = await rows(database, found)
    assert [(status, events) for status, _, events in failed] == [
        ("FAILED", ["execution_start", "execution_failed"])
    ] * len(IMPOSSIBLE)
    expected = [message for _, _, message in IMPOSSIBLE]
    assert [(has, is_in) for (_, has, _), is_in in zip(failed, expected, strict=True) if is_in not in has] == []
    for number in range(len(IMPOSSIBLE)):
        await insert(database, number, {"event_id": BAD + number})
    await assert_healthy(database, bystander)
    late = "select distinct outcome from noetl.turn where execution_id < 100 and event_id >= $1 and turn > 1"
    assert await rows(database, late, BAD) == [("after_end",)]


async def test_a_start_without_a_catalog_id_finds_its_playbook(database: Database) -> None:
    """By path, and by version if one is given."""
    await register(database, FORK)
    contexts = [
        '{"path": "story"}',
        '{"path": "story", "workload": null}',
        *(
            f'{{"path": "story", "version": {version}}}'
            for version in ("null", '"1"', '"latest"', "1.0", "99999999999999", "[1]")
        ),
    ]
    for number, context in enumerate(contexts):
        await start_by_hand(database, number, context)
    await assert_healthy(database, 0)
    assert await rows(database, "select status, count(*) from noetl.execution group by 1") == [("COMPLETED", 8)]

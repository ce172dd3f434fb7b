"""Blocks: the steps of a child playbook in the file of its parent, registered with it."""

from __future__ import annotations

from textwrap import dedent

import asyncpg
import pytest

from noetl_broker.errors import BrokerError
from noetl_broker.playbook import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service import recoveries
from noetl_broker.store.admin import catalog
from tests.brokers import complete_jobs, drain, execute, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import session

HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {path: shop/order, name: order}\n"
ORDER = """
workload: {order: 7, items: [a, b]}
workbook:
- {name: send, type: http, url: "http://mail/{{ what }}"}
workflow:
- {step: start, next: pay}
- step: pay
  type: playbook
  args: {order: "{{ workload.order }}"}
  workflow:
  - {step: start, next: charge}
  - {step: charge, type: http, url: "http://bank/{{ order }}", next: tell}
  - {step: tell, type: workbook, task: send, args: {what: "{{ charge.id }}"}, next: end}
  - {step: end, result: {receipt: "{{ charge.id }}"}}
  next: pack
- step: pack
  type: iterator
  collection: "{{ workload.items }}"
  element: item
  task:
    args: {sku: "{{ item }}"}
    workflow:
    - {step: start, next: pick}
    - {step: pick, type: http, url: "http://store/{{ sku }}"}
  next: end
- {step: end, result: {receipt: "{{ pay.receipt }}", packed: "{{ pack }}"}}
"""
ENDED = "select path, version, status from noetl.execution order by execution_id"


async def registered(database: Database, body: str = ORDER) -> catalog.Registered:
    """Register a playbook with its blocks; return what was registered."""
    text = HEAD + dedent(body)
    async with session(database) as connection:
        [found] = await catalog.register(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])
    return found


async def fail_jobs(database: Database) -> None:
    """Lease all jobs and fail each."""
    await execute(
        database,
        "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w', 9)",
    )
    await drain(database)


async def run_to_end(database: Database) -> None:
    """Answer all jobs until no job is left."""
    await drain(database)
    while await complete_jobs(database, {"id": 4}):
        await drain(database)


async def test_a_block_runs_as_a_child_of_its_playbook(database: Database) -> None:
    """Its workload are the inputs of the step, and it calls the workbook of its playbook."""
    await registered(database)
    [parent] = await start(database, "shop/order")
    await run_to_end(database)
    assert await rows(database, ENDED) == [
        ("shop/order", 1, "COMPLETED"),
        ("shop/order#pay", 1, "COMPLETED"),
        ("shop/order#pack", 1, "COMPLETED"),
        ("shop/order#pack", 1, "COMPLETED"),
    ]
    urls = "select action::jsonb ->> 'url' from noetl.queue where node_type = 'http' order by queue_id"
    assert [row[0] for row in await rows(database, urls)] == [
        "http://bank/7",
        "http://mail/4",
        "http://store/a",
        "http://store/b",
    ]
    result = await value(database, "select result from noetl.execution where execution_id = $1", parent)
    assert result == {"receipt": 4, "packed": [{"id": 4}, {"id": 4}]}
    assert await inconsistencies(database) == {}


async def test_a_block_has_the_version_of_its_playbook(database: Database) -> None:
    """An execution of version 1 that reaches its block after version 2 was registered runs that of version 1."""
    await registered(database)
    await start(database, "shop/order")
    await registered(database, ORDER.replace("http://store/", "http://other/"))
    await start(database, "shop/order")
    await run_to_end(database)
    packed = """
        select version, action::jsonb ->> 'url'
        from noetl.queue
        join noetl.execution using (execution_id)
        where node_name = 'pick'
        order by 1, 2"""
    assert await rows(database, packed) == [
        (1, "http://store/a"),
        (1, "http://store/b"),
        (2, "http://other/a"),
        (2, "http://other/b"),
    ]
    assert await inconsistencies(database) == {}


async def test_the_same_text_registers_no_block_again(database: Database) -> None:
    """A block has a row for each version of its playbook, also where it did not change."""
    versions = [(await registered(database, text)).version for text in (ORDER, ORDER, ORDER.replace("[a, b]", "[a]"))]
    assert versions == [1, 1, 2]
    assert await rows(database, "select path, version, name from noetl.catalog order by path, version") == [
        ("shop/order", 1, "order"),
        ("shop/order", 2, "order"),
        ("shop/order#pack", 1, "order#pack"),
        ("shop/order#pack", 2, "order#pack"),
        ("shop/order#pay", 1, "order#pay"),
        ("shop/order#pay", 2, "order#pay"),
    ]


AROUND = """
workload: {order: 7}
workflow:
- {step: start, next: pay}
- step: pay
  type: playbook
  args: {order: "{{ workload.order }}"}
  WORDS
  workflow:
  - {step: start, next: charge}
  - {step: charge, type: http, url: x, compensate: {type: http, url: "undo/{{ order }}"}, next: tell}
  - {step: tell, type: http, url: y}
  next: ship
- {step: ship, type: http, url: z, next: end}
- {step: sorry, type: http, url: "sorry/{{ workload.order }}", next: end}
- {step: end}
"""


async def leased_urls(database: Database) -> list[str]:
    """Complete the open jobs; return the url of each."""
    found = await rows(database, "select action::jsonb ->> 'url' from noetl.queue where status in ('queued', 'retry')")
    await complete_jobs(database, {"id": 4})
    await drain(database)
    return sorted(row[0] for row in found)


async def test_a_catch_stands_around_a_block(database: Database) -> None:
    """What the block had done is undone by the block, then the parent goes on."""
    await registered(database, AROUND.replace("WORDS", "catch: [{step: sorry}]"))
    await start(database, "shop/order")
    await drain(database)
    assert await leased_urls(database) == ["x"]
    await fail_jobs(database)
    assert [await leased_urls(database) for _ in range(2)] == [["undo/7"], ["sorry/7"]]
    assert await rows(database, ENDED) == [("shop/order", 1, "COMPLETED"), ("shop/order#pay", 1, "FAILED")]
    assert await inconsistencies(database) == {}


async def test_a_block_that_completed_is_undone_with_its_parent(database: Database) -> None:
    """On the same version, although another one is registered since."""
    await registered(database, AROUND.replace("WORDS", "desc: a"))
    await start(database, "shop/order")
    await drain(database)
    assert [await leased_urls(database) for _ in range(2)] == [["x"], ["y"]]
    await registered(database, AROUND.replace("WORDS", "desc: b").replace("undo/", "other/"))
    await fail_jobs(database)
    await drain(database)
    assert await leased_urls(database) == ["undo/7"]
    await drain(database)
    assert await rows(database, ENDED) == [
        ("shop/order", 1, "FAILED"),
        ("shop/order#pay", 1, "COMPLETED"),
    ]
    assert await inconsistencies(database) == {}


async def test_a_timeout_stands_around_a_block(database: Database) -> None:
    """It is that of all its steps together; the block is cancelled, and undoes what it did."""
    await registered(database, AROUND.replace("WORDS", "timeout: 60"))
    await start(database, "shop/order")
    await drain(database)
    assert await leased_urls(database) == ["x"]
    await execute(database, "update noetl.queue set first_leased_at = first_leased_at - interval '1 hour'")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert await leased_urls(database) == ["undo/7"]
    error = await value(database, "select error ->> 'type' from noetl.execution where path = 'shop/order'")
    assert error == "timeout"
    assert await rows(database, ENDED) == [("shop/order", 1, "FAILED"), ("shop/order#pay", 1, "CANCELLED")]
    assert await inconsistencies(database) == {}


async def test_a_fork_of_another_version_runs_the_block_of_that_version(database: Database) -> None:
    """As a retry with `--version` does: the block is started again."""
    await registered(database)
    [execution_id] = await start(database, "shop/order")
    await drain(database)
    await fail_jobs(database)
    second = await registered(database, ORDER.replace("http://bank/", "http://other/"))
    rules = PlaybookRules()
    async with session(database) as connection:
        made = await recoveries.recover_failed(connection, execution_id, rules, recoveries.OnVersion(None, rules))
    await drain(database)
    queued = "select action::jsonb ->> 'url' from noetl.queue where status = 'queued'"
    assert (made["version"], await value(database, queued)) == (second.version, "http://other/7")


async def test_a_block_is_forked_on_another_playbook(database: Database) -> None:
    """That is registered, and the fork runs its block; a playbook without the block is refused."""
    await registered(database)
    await start(database, "shop/order")
    await drain(database)
    await fail_jobs(database)
    block = await value(database, "select execution_id from noetl.execution where path = 'shop/order#pay'")
    rules = PlaybookRules()
    bodies = (ORDER.replace("http://bank/", "http://other/"), "workflow: [{step: start}]")
    texts = [HEAD + dedent(body) for body in bodies]
    others = [recoveries.OtherPlaybook(compile_playbook(text, rules=rules), text, None) for text in texts]
    good, lacking = (recoveries.ForkFrom("charge", {}, other=other) for other in others)
    async with session(database) as connection:
        with pytest.raises(BrokerError, match="the other playbook has no block shop/order#pay"):
            await recoveries.fork_execution(connection, block, lacking, rules)
        await recoveries.fork_execution(connection, block, good, rules)
    await drain(database)
    assert (await rows(database, ENDED))[-1] == ("shop/order#pay", 2, "RUNNING")
    assert await leased_urls(database) == ["http://other/7"]


async def test_a_block_alone_cannot_be_started(database: Database) -> None:
    """Nor has a schedule of it a meaning."""
    await registered(database)
    with pytest.raises(asyncpg.PostgresError, match="shop/order#pay is a block: it runs only in executions"):
        await start(database, "shop/order#pay")

"""Signals come to the waits that they fit, whatever comes first, and none is lost or doubled."""

from __future__ import annotations

from typing import Any

from noetl_broker.daemon.metrics.registry import SIGNAL_ERRORS, SIGNAL_STARTS
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.catalog import register as registered
from tests.brokers import broken_invariants, drain, execute, register, rows, running, start, until_ended, value
from tests.postgres import Database
from tests.sessions import session
from tests.stories import document

PAID = """
workflow:
- {step: start, next: paid}
- {step: paid, type: wait, signal: payment, key: "{{ workload.order }}", when: "{{ signal.payload.amount >= 10 }}"}
"""


async def send(database: Database, name: str, key: str, payload: Any = None, **more: Any) -> int:
    """Send a signal by its key; return its id."""
    extra = "".join(f", {word} => '{text}'" for word, text in more.items())
    query = f"select noetl.send_signal($1, $2, $3::jsonb{extra})"
    sent: int = await value(database, query, name, key, payload)
    return sent


async def test_a_signal_ends_its_wait(database: Database) -> None:
    """A running broker is woken; the result is the payload."""
    await register(database, PAID)
    async with running(database, sweep_seconds=600.0):
        [execution_id] = await start(database, payload={"order": 42})
        await send(database, "payment", "43", {"amount": 10})
        await send(database, "payment", "42", {"amount": 5})
        await send(database, "payment", "42", {"amount": 20})
        await until_ended(database)
    assert await value(database, "select result from noetl.execution where execution_id = $1", execution_id) == {
        "amount": 20
    }
    assert await rows(database, "select status from noetl.wait") == [("done",)]
    assert await rows(database, "select * from noetl.match_request") == []
    assert await broken_invariants(database) == {}


async def test_a_signal_that_was_sent_before_the_wait_counts_from_the_start_of_the_execution(
    database: Database,
) -> None:
    """One that was sent before the start does not count."""
    await register(database, PAID)
    await send(database, "payment", "42", {"amount": 10})
    [execution_id] = await start(database, payload={"order": "42"})
    await send(database, "payment", "42", {"amount": 11})
    await drain(database)
    assert await rows(database, "select status, result from noetl.execution where execution_id = $1", execution_id) == [
        ("COMPLETED", {"amount": 11})
    ]


async def test_an_execution_is_sent_a_signal(database: Database) -> None:
    """A wait without a key is for those; one that has ended gets none."""
    await register(database, "workflow:\n- {step: start, next: go}\n- {step: go, type: wait, signal: go}\n")
    [execution_id] = await start(database)
    await drain(database)
    assert await value(database, "select noetl.signal_execution($1, 'go', '7')", execution_id) == 1
    await drain(database)
    assert await rows(database, "select status, result from noetl.execution") == [("COMPLETED", 7)]
    assert await value(database, "select noetl.signal_execution($1, 'go')", execution_id) is None


async def test_a_signal_comes_to_each_execution_once(database: Database) -> None:
    """To each of several executions, but not to both waits of one."""
    body = """
    workflow:
    - {step: start, next: [{step: a}, {step: b}]}
    - {step: a, type: wait, signal: ping, key: k}
    - {step: b, type: wait, signal: ping, key: k}
    """
    await register(database, body)
    await start(database, count=3)
    await drain(database)
    await send(database, "ping", "k", 1)
    await drain(database)
    taken = "select node_name, result from noetl.event where event_type = 'step_completed' order by 1, execution_id"
    assert await rows(database, taken) == [("a", 1)] * 3
    await send(database, "ping", "k", 2)
    await drain(database)
    assert await rows(database, taken) == [("a", 1)] * 3 + [("b", 2)] * 3
    assert await broken_invariants(database) == {}


async def test_a_loop_reads_signals_in_the_order_of_their_ids(database: Database) -> None:
    """Those of one statement, and none is lost."""
    body = """
    workflow:
    - {step: start, next: item}
    - step: item
      type: wait
      signal: item
      key: q
      next: [{when: "{{ item < 120 }}", step: item}, {else: [{step: end}]}]
    - {step: end}
    """
    await register(database, body)
    await start(database)
    await drain(database)
    await execute(database, "select noetl.send_signal('item', 'q', to_jsonb(n)) from generate_series(1, 120) n")
    await drain(database)
    query = "select result from noetl.event where event_type = 'step_completed' order by created_at"
    assert await rows(database, query) == [(number,) for number in range(1, 121)]
    assert await rows(database, "select status from noetl.execution") == [("COMPLETED",)]


async def test_a_doubled_event_of_a_signal_changes_nothing(database: Database) -> None:
    """The event is known by the signal that it brings."""
    await register(database, PAID)
    await start(database, payload={"order": 1})
    await drain(database)
    await send(database, "payment", "1", {"amount": 1})
    await drain(database)
    await execute(
        database,
        """
        insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, context)
        select execution_id, catalog_id, event_type, node_id, node_name, context
        from noetl.event
        where event_type = 'execution_signal'""",
    )
    await drain(database)
    assert await rows(database, "select outcome, facts from noetl.turn where turn > 2") == [
        ("duplicate", {"doubled": True})
    ]
    assert await rows(database, "select status from noetl.wait") == [("open",)]


async def test_a_signal_step_tells_another_execution(database: Database) -> None:
    """In the transaction of the turn, once, by its node id."""
    await register(database, PAID)
    await register(
        database,
        """
        workflow:
        - {step: start, next: tell}
        - {step: tell, type: signal, signal: payment, key: 42, payload: {amount: 10}}
        """,
        path="teller",
    )
    await start(database, payload={"order": 42})
    [teller] = await start(database, path="teller")
    await drain(database)
    assert await rows(database, "select path, status, result from noetl.execution order by path") == [
        ("story", "COMPLETED", {"amount": 10}),
        ("teller", "COMPLETED", {"name": "payment", "key": "42"}),
    ]
    assert await rows(database, "select idempotency_key, hops from noetl.signal") == [(f"{teller}:tell", 1)]


ON_SIGNAL = """
workflow:
- {step: start, next: go}
- {step: go, type: signal, signal: "{{ workload.next | default('nobody') }}", next: end}
- {step: end, result: "{{ signal }}"}
"""


async def declared(database: Database, text: str) -> None:
    """Register a playbook as the command does."""
    async with session(database) as connection:
        await registered(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])


async def test_a_signal_starts_the_playbooks_that_declare_it(database: Database) -> None:
    """One execution each, with the signal in its workload; the latest version and its condition count."""
    when = "{signal: payment, when: '{{ signal.payload.amount > 10 }}'}"
    await send(database, "payment", "before", {"amount": 99})
    await declared(database, document(ON_SIGNAL, path="a", metadata="on_signal: {signal: payment}"))
    await declared(database, document(ON_SIGNAL, path="a", metadata=f"on_signal: [{when}, {{signal: refund}}]"))
    await declared(database, document(ON_SIGNAL, path="b", metadata="on_signal: {signal: refund}"))
    for amount in (5, 15):
        await send(database, "payment", str(amount), {"amount": amount})
    await send(database, "payment", "broken")
    await send(database, "refund", "1")
    service = await drain(database)
    started = """
    select path, idempotency_key, result #>> '{name}', result #> '{payload,amount}'
    from noetl.execution
    order by 1, 2"""
    assert await rows(database, started) == [
        ("a", "3", "payment", 15),
        ("a", "5", "refund", None),
        ("b", "5", "refund", None),
    ]
    assert service.metrics.by_label(SIGNAL_STARTS) == {"started": 3, "unfit": 2}
    assert service.metrics.total(SIGNAL_ERRORS) == 1


async def test_a_signal_whose_execution_was_started_already_is_counted_so(database: Database) -> None:
    """Its id is the idempotency key of the start."""
    await declared(database, document(ON_SIGNAL, path="a", metadata="on_signal: {signal: payment}"))
    sent = await send(database, "payment", "k")
    await execute(database, "select noetl.start_execution('a', idempotency_key => $1)", str(sent))
    service = await drain(database)
    assert service.metrics.by_label(SIGNAL_STARTS) == {"existing": 1}
    assert await value(database, "select count(*) from noetl.execution") == 1


async def test_a_cycle_of_playbooks_that_signal_each_other_ends(database: Database) -> None:
    """After 32 hops a signal starts nothing; a child execution does not begin anew. This one has made 29 of them."""
    cycle = """
    workflow:
    - {step: start, next: call}
    - {step: call, type: playbook, path: teller}
    """
    teller = "workflow:\n- {step: start, next: tell}\n- {step: tell, type: signal, signal: ping, key: k}\n"
    await declared(database, document(teller, path="teller"))
    await declared(database, document(cycle, path="cycle", metadata="on_signal: {signal: ping}"))
    await send(database, "ping", "k")
    await execute(database, "update noetl.signal set hops = 29")
    service = await drain(database)
    assert await value(database, "select count(*) from noetl.execution where path = 'cycle'") == 4
    assert service.metrics.by_label(SIGNAL_STARTS) == {"started": 4, "hops": 1}

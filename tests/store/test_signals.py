"""Signals in SQL: what may be sent, what a key means, and that a request finds what was committed meanwhile."""

from __future__ import annotations

from datetime import timedelta

from noetl_broker.store import queries
from tests.brokers import drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.roles import logins
from tests.sessions import refused, session

WAIT = "workflow:\n- {step: start, next: go}\n- {step: go, type: wait, signal: go, key: k}\n"
SEND = "select noetl.send_signal('go', 'k', $1::jsonb)"
TRIGGER = """
    create table payments (order_id int, amount int);
    create function tell() returns trigger language plpgsql as $$
    begin
      perform noetl.send_signal('payment', new.order_id::text, jsonb_build_object('amount', new.amount));
      return null;
    end
    $$;
    create trigger tell after insert on payments for each row execute function tell();
    grant insert on payments to noetl_producer"""
MATCH = "select delivered, again, worked_on from noetl.match_signals($1)"
# What a broker writes when a wait begins.
BEGIN_WAIT = """
    with wait as (
      insert into noetl.wait (execution_id, node_id, step, kind, request, names, key, since_at)
      select execution_id, execution_id || ':go', 'go', 'signal', '{}', '{go}', 'k', started_at
      from noetl.execution
      returning execution_id, node_id
    )
    insert into noetl.match_request (execution_id, node_id)
    select execution_id, node_id
    from wait"""


BAD_SIGNALS = (
    ("'', 'k'", "the name of the signal has 0 characters; it must have 1 to 255"),
    ("'go', null", "the signal go has no key"),
    ("'go', repeat('k', 1025)", "the key of the signal go has 1025 bytes; the limit is 1024"),
    (
        "'go', 'k', to_jsonb(repeat('x', 2097152))",
        "the payload of the signal go takes 2097154 bytes; the limit is 2097152",
    ),
    ("'go', 'k', keep => '-1 day'", "the signal go would be kept for -1 days"),
    ("'go', 'k', idempotency_key => repeat('x', 1025)", "the idempotency key has 1025 bytes; the limit is 1024"),
)


async def test_a_bad_signal_is_refused(database: Database) -> None:
    """With the value and its limit. Only an execution that has ended gets null, no unknown one."""
    async with session(database) as own:
        for arguments, message in BAD_SIGNALS:
            async with refused("NB400", f"^{message}(\\n|$)"):
                await own.execute(f"select noetl.send_signal({arguments})")
        async with refused("NB404", "^no execution 5(\\n|$)"):
            await own.execute("select noetl.signal_execution(5, 'go')")


async def test_an_idempotency_key_sends_one_signal_of_a_name_and_key(database: Database) -> None:
    """While it is kept. Another payload is a conflict."""
    send = "select noetl.send_signal($1, $2, $3::jsonb, 'i')"
    first = await value(database, send, "go", "k", {"a": 1})
    assert await value(database, send, "go", "k", {"a": 1}) == first
    assert await value(database, send, "go", "other", {"a": 2}) == first + 2  # an identity counts refused rows too
    conflict = f"^the idempotency key i of the signal go is used: signal {first} has another payload(\\n|$)"
    async with session(database) as own, refused("NB409", conflict):
        await own.execute(send, "go", "k", {"a": 2})
    await execute(database, "update noetl.signal set expires_at = clock_timestamp()")
    assert await value(database, send, "go", "k", {"a": 2}) > first + 2


async def test_a_trigger_of_a_table_of_ones_own_sends(database: Database) -> None:
    """With the rights of a producer, in the transaction of the row."""
    async with logins(database):
        await execute(database, TRIGGER)
        async with session(database) as own:
            await own.execute("set role noetl_producer")
            await own.execute("insert into payments values (42, 5), (43, 6)")
    assert await rows(database, "select name, key, payload from noetl.signal order by signal_id") == [
        ("payment", "42", {"amount": 5}),
        ("payment", "43", {"amount": 6}),
    ]
    assert await value(database, "select count(*) from noetl.match_request") == 2


async def test_a_wait_that_commits_after_the_signal_was_matched_finds_it(database: Database) -> None:
    """The request of the wait sees the signal; that of the signal did not see the wait."""
    await register(database, "workflow:\n- {step: start, next: go}\n- {step: go, type: python, code: x}\n")
    await start(database)
    async with session(database) as late, late.transaction():
        await late.execute(BEGIN_WAIT)
        await execute(database, SEND, 1)
        assert await rows(database, MATCH, 10) == [(0, 0, 1)]
        assert await rows(database, "select * from noetl.match_request") == []
    assert await rows(database, MATCH, 10) == [(1, 0, 1)]
    assert await rows(database, "select status from noetl.wait") == [("signalled",)]


async def test_a_signal_that_commits_after_the_wait_was_matched_finds_it(database: Database) -> None:
    """The request of the signal sees the wait."""
    await register(database, WAIT)
    await start(database)
    async with session(database) as late, late.transaction():
        await late.execute(SEND, 1)
        await drain(database)
        assert await rows(database, "select * from noetl.match_request") == []
    assert await rows(database, MATCH, 10) == [(1, 0, 1)]


async def test_a_wait_whose_row_is_locked_is_looked_at_again(database: Database) -> None:
    """A turn that writes it, for example."""
    await register(database, WAIT)
    await start(database)
    await drain(database)
    async with session(database) as other, other.transaction():
        await other.execute("select from noetl.wait for update")
        await execute(database, SEND, 1)
        assert await rows(database, MATCH, 10) == [(0, 1, 1)]
        assert await rows(database, MATCH, 10) == [(0, 1, 1)]
    assert await rows(database, MATCH, 10) == [(1, 0, 1)]


async def test_many_receivers_get_it_in_several_transactions(database: Database) -> None:
    """Each goes on where the last one stopped, and every wait gets it once."""
    await register(database, WAIT)
    await start(database, count=25)
    await drain(database)
    await execute(database, SEND, 1)
    await execute(database, SEND, 2)
    delivered = [await rows(database, MATCH, 10) for _ in range(3)]
    assert delivered == [[(10, 0, 2)], [(10, 0, 2)], [(5, 0, 2)]]
    assert await rows(database, "select signal_id, count(*) from noetl.signal_taken group by 1") == [(1, 25)]
    await drain(database)
    assert await rows(database, "select status, result, count(*) from noetl.execution group by 1, 2") == [
        ("COMPLETED", 1, 25)
    ]


async def test_locked_waits_do_not_hold_up_the_others(database: Database) -> None:
    """The next transaction begins behind them, though they fill a batch."""
    await register(database, WAIT)
    await start(database, count=12)
    await drain(database)
    ten = "select execution_id from noetl.wait order by 1 limit 10"
    async with session(database) as other, other.transaction():
        await other.execute(f"select from noetl.wait where execution_id in ({ten}) for update")
        await execute(database, SEND, 1)
        assert await rows(database, MATCH, 10) == [(0, 10, 1)]
        assert (await rows(database, MATCH, 10))[0][0] == 2


async def test_a_lower_id_that_commits_later_is_not_lost(database: Database) -> None:
    """Ids are given before commits: the next wait gets the lower one."""
    body = """
    workflow:
    - {step: start, next: a}
    - {step: a, type: wait, signal: go, key: k, next: b}
    - {step: b, type: wait, signal: go, key: k}
    """
    await register(database, body)
    await start(database)
    await drain(database)
    async with session(database) as late, late.transaction():
        await late.execute(SEND, "first")
        await execute(database, SEND, "second")
        await drain(database)
    await drain(database)
    query = "select node_name, result from noetl.event where event_type = 'step_completed' order by created_at"
    assert await rows(database, query) == [("a", "second"), ("b", "first")]


async def test_an_old_signal_is_not_taken_and_is_swept(database: Database) -> None:
    """One that was sent to an execution goes some days after its end."""
    await register(database, WAIT)
    [execution_id] = await start(database)
    await execute(database, "select noetl.send_signal('go', 'k', keep => '1 microsecond')")
    await execute(database, "select noetl.signal_execution($1, 'other')", execution_id)
    await drain(database)
    assert await rows(database, "select status from noetl.wait") == [("open",)]
    sweep = "select swept, next_id from noetl.sweep_signals($1, $2)"
    assert await rows(database, sweep, 10, 0) == [(1, 0)]
    await execute(database, SEND, 1)
    await drain(database)
    assert await rows(database, sweep, 10, 0) == [(0, 0)]
    await execute(database, "update noetl.execution set ended_at = ended_at - $1::interval", timedelta(days=8))
    assert await rows(database, sweep, 1, 0) == [(1, 3)]
    assert await rows(database, sweep, 1, 3) == [(0, 0)]
    assert await rows(database, "select name from noetl.signal") == [("go",)]


async def test_only_the_wait_that_did_not_take_its_signal_is_open_again(database: Database) -> None:
    """The other one of the execution keeps its signal."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: wait, signal: go, key: k}
        - {step: b, type: wait, signal: go, key: k}
        """,
    )
    [execution] = await start(database)
    await drain(database)
    await execute(database, "update noetl.wait set status = 'signalled'")
    await execute(database, queries.sql("reopen_waits"), [execution], [f"{execution}:b"])
    waits = "select step, status from noetl.wait order by step"
    assert await rows(database, waits) == [("a", "signalled"), ("b", "open")]
    assert (
        await value(database, "select node_id from noetl.match_request where execution_id is not null")
        == f"{execution}:b"
    )

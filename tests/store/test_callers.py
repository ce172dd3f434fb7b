"""Who did it: each function that a person calls writes `by`, and only an operator's login acts for somebody else."""

from __future__ import annotations

from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.roles import login, logins
from tests.sessions import refused, session

WAITS = "workflow: [{step: start, next: ask}, {step: ask, type: approval}]"
UNDOES = "workflow: [{step: start, next: a}, {step: a, type: python, code: x, compensate: {type: python, code: y}}]"
OPTIONS = "options => jsonb_build_object('by', {by})"
EVENT = "context ->> 'by' from noetl.event where event_type = '{}'"
STARTED = "started_by from noetl.execution where {}"
# Each function with a call of it, and where `by` stands then. `live` waits for a person; the others have ended: one of
# `story`, and two that can be undone.
CALLS = {
    "start_execution": (f"('waits', {OPTIONS}, idempotency_key => 'one')", STARTED.format("idempotency_key = 'one'")),
    "start_executions": (
        "('waits', '{{null}}', '{{two}}', " + OPTIONS + ")",
        STARTED.format("idempotency_key = 'two'"),
    ),
    "pause_execution": ("({live}, by => {by})", EVENT.format("execution_pause")),
    "resume_execution": ("({live}, by => {by})", EVENT.format("execution_resume")),
    "ask_to_hold": (
        "({live}, 'execution_pause', 'a', {by})",
        EVENT.format("execution_pause") + " and context ->> 'reason' = 'a'",
    ),
    "signal_execution": ("({live}, 'go', by => {by})", "sent_by from noetl.signal where name = 'go'"),
    "send_signal": ("('paid', '7', by => {by})", "sent_by from noetl.signal where name = 'paid'"),
    "decide_approval": ("({live}, '{live}:ask', true, by => {by})", EVENT.format("approval_decided")),
    "cancel_execution": ("({live}, by => {by})", EVENT.format("execution_cancel")),
    "fork_execution": (
        "({ended}, jsonb_build_object('results', '[]'::jsonb, 'by', {by}))",
        STARTED.format("forked_from is not null"),
    ),
    "undo_execution": ("({undone}, by => {by})", EVENT.format("execution_undo")),
    "abandon_execution": ("({undone}, by => {by})", EVENT.format("execution_abandon")),
    "settle_undo": ("({settled}, 'a', 'by hand', {by})", EVENT.format("undo_settled")),
    "erase_execution": ("({settled}, by => {by})", "erased_by from noetl.execution where execution_id = {settled}"),
    "erase_executions": (
        "(array[{other}::bigint], {by})",
        "erased_by from noetl.execution where execution_id = {other}",
    ),
    "pause_path": ("('waits', by => {by})", "paused_by from noetl.path_pause"),
    "put_schedule": ("('daily', 'waits', every => '1 day', by => {by})", "changed_by from noetl.start_schedule"),
    "pause_schedule": ("('daily', {by})", "changed_by from noetl.start_schedule where paused"),
    "resume_schedule": ("('daily', {by})", "changed_by from noetl.start_schedule where not paused"),
    "start_scheduled": ("('daily', now(), 'now', false, {by})", STARTED.format("idempotency_key like '%daily%'")),
    "put_throttle": ("('api', 5, by => {by})", "changed_by from noetl.limit"),
    "announce_step_types": ("('{{resize}}', {by})", "added_by from noetl.step_type"),
    "create_api_token": ("('t', sha256('t'), 'viewer', by => {by})", "created_by from noetl.api_token"),
    "revoke_api_token": ("('t', {by})", "revoked_by from noetl.api_token"),
}
# Functions with `by` or options that write nothing, or are asked by these.
OTHERS = {"caller_name", "is_approver", "outcome", "check_options", "check_schedule_options", "start_meta"}
TAKES_BY = """
select distinct p.proname::text
from pg_proc p
where p.pronamespace = 'noetl'::regnamespace
  and ('by' = any(p.proargnames) or 'options' = any(p.proargnames) or p.proname = 'fork_execution')"""


async def ended_and_live(database: Database) -> dict[str, int]:
    """Start what the calls act on; return the ids."""
    await register(database, WAITS, path="waits")
    await register(database, UNDOES, path="undoes")
    await register(database, "workflow: [{step: start, next: end}, {step: end}]", path="ends")
    [live] = await start(database, "waits")
    undone, settled = await start(database, "undoes", count=2)
    ended, other = await start(database, "ends", count=2)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    return {"live": live, "undone": undone, "settled": settled, "ended": ended, "other": other}


async def test_each_function_writes_for_whom_it_was_called(database: Database) -> None:
    """As an operator's login says. Another login, with all other rights, may name nobody else."""
    found = {name for (name,) in await rows(database, TAKES_BY)}
    assert found - OTHERS == set(CALLS)
    ids = await ended_and_live(database)
    async with login(database, "forger") as forger:
        role = f'"forger_{database.name}"'
        await execute(
            database,
            f"grant usage on schema noetl to {role}; grant execute on all functions in schema noetl to {role};"
            f" revoke execute on function noetl.pause_path(text, text, text) from {role}",
        )
        for name, (arguments, place) in CALLS.items():
            call = f"select noetl.{name}{arguments}".format(by=f"'token:{name}'", **ids)
            words = f"not act for token:{name}|denied for (function pause_path|table api_token)"
            async with session(forger) as own, refused("42501", words):
                await own.execute(call)
            await execute(database, call)
            assert (name, await value(database, "select " + place.format(**ids))) == (name, f"token:{name}")
            await drain(database)


async def test_without_a_name_it_is_the_login(database: Database) -> None:
    """Of whoever is connected, also in a function with the rights of its owner."""
    async with logins(database) as roles:
        login_name = await value(roles.producer, "select 'login:' || session_user")
        await execute(roles.producer, "select noetl.send_signal('paid', '7')")
    assert await rows(database, "select sent_by from noetl.signal") == [(login_name,)]


async def test_a_producer_cancels_by_an_event_without_a_name(database: Database) -> None:
    """An event of its own says nothing of who caused it."""
    await register(database, WAITS, path="waits")
    [live] = await start(database, "waits")
    await drain(database)
    insert = "insert into noetl.event (execution_id, event_type, context) values ($1, 'execution_cancel', $2)"
    async with logins(database) as roles, session(roles.producer) as own:
        async with refused("42501", "may not say who cancels"):
            await own.execute(insert, live, {"by": "login:ann"})
        await own.execute(insert, live, {"reason": "enough"})
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "CANCELLED"


async def test_a_schedule_starts_for_nobody(database: Database) -> None:
    """Its options cannot say for whom, nor when, nor where."""
    await register(database, WAITS, path="waits")
    put = "select noetl.put_schedule('daily', 'waits', every => '1 day', options => json_object(array[$1, $2])::jsonb)"
    async with session(database) as own:
        for name, given in (("by", "token:ann"), ("start_at", "2030-01-01T00:00:00Z"), ("bucket_key", "7")):
            async with refused("NB400", f"the schedule daily: its options have a {name}"):
                await own.execute(put, name, given)

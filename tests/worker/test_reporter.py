"""Answers that the database refuses."""

from __future__ import annotations

import pytest

from tests.postgres import Database
from tests.worker.test_loop import Queue, queue, working

__all__ = ["queue"]
REFUSES = """
create sequence public.refusals;
create function public.refuse() returns trigger language plpgsql as $$
begin
  if new.node_name = 's0' and new.event_type = any(string_to_array('KINDS', ' ')) then
    raise exception using errcode = '22023', message = format('not s0, number %s', nextval('public.refusals'));
  end if;
  return new;
end $$;
create trigger refuse before insert on noetl.event for each row execute function public.refuse();
"""
MAKES_DUE = """
create function public.make_due() returns trigger language plpgsql as $$
begin
  update noetl.queue set available_at = now() where node_name = 's0';
  return null;
end $$;
create trigger make_due after insert on noetl.event for each row when (new.node_name = 's1')
execute function public.make_due();
"""


@pytest.mark.parametrize(
    "kinds, status, answers",
    [("action_completed", "failed", ["action_failed"]), ("action_completed action_failed", "leased", [])],
)
async def test_a_refused_answer_delays_no_other(
    database: Database, queue: Queue, kinds: str, status: str, answers: list[str]
) -> None:
    """Its job fails; if the failure is refused too, its lease expires."""
    await queue.connection.execute(REFUSES.replace("KINDS", kinds))
    [bad, good] = await queue.put({"type": "noop"}, number=2)
    async with working(database.dsn, concurrency=2):
        await queue.until(good, "done")
        await queue.until(await queue.put_one({"type": "noop"}), "done")
        if answers:
            await queue.until(bad, "failed")
    events = await queue.events(bad)
    assert (await queue.status(bad), [kind for kind, _, _ in events]) == (status, answers)
    assert all("not s0" in error["message"] for _, _, error in events)


async def test_a_refused_answer_shows_no_row(database: Database, queue: Queue) -> None:
    """The error of the job and the log have only the server's message."""
    refuses = "alter table noetl.event add constraint no_s0 check (event_type <> 'action_completed')"
    await queue.connection.execute(refuses)
    queue_id = await queue.put_one({"type": "noop", "args": {"name": "hush"}})
    async with working(database.dsn):
        await queue.until(queue_id, "failed")
    [(_, _, error)] = await queue.events(queue_id)
    assert 'violates check constraint "no_s0"' in error["message"]
    assert "hush" not in error["message"]
    assert "Failing row" not in error["message"]


async def test_a_job_that_cannot_be_leased_fails_no_answer(database: Database, queue: Queue) -> None:
    """A full worker completes and leases in one call; it completes alone what that call refuses."""
    await queue.connection.execute(REFUSES.replace("KINDS", "action_started"))
    await queue.put({"type": "noop"})
    await queue.connection.execute("update noetl.queue set available_at = now() + interval '1 hour'")
    queue_id = await queue.put_one({"type": "noop", "then": "makes s0 due"})
    await queue.connection.execute(MAKES_DUE)
    async with working(database.dsn, concurrency=1):
        assert await queue.until(queue_id, "done", "failed") == "done"

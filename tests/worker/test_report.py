"""The worker's answers where the database will not have one of them."""

from __future__ import annotations

import pytest

from tests.postgres import Database
from tests.worker.test_pool import Queue, queue, working

__all__ = ["queue"]
REFUSES = """
create sequence public.refusals;
create function public.refuse() returns trigger language plpgsql as $$
begin
  if new.node_name = 's0' and new.event_type = any(string_to_array('KINDS', ' ')) then
    raise exception 'not s0, number %', nextval('public.refusals');
  end if;
  return new;
end $$;
create trigger refuse before insert on noetl.event for each row execute function public.refuse();
"""


@pytest.mark.parametrize(
    "kinds, status, answers",
    [("action_completed", "failed", ["action_failed"]), ("action_completed action_failed", "leased", [])],
)
async def test_an_answer_that_is_always_refused_holds_up_no_other(
    database: Database, queue: Queue, kinds: str, status: str, answers: list[str]
) -> None:
    """The job of that answer fails, or is left to its lease where even that is refused; those beside it are done."""
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


async def test_a_refusal_shows_no_row(database: Database, queue: Queue) -> None:
    """The error of the job goes where its result was not to go, and into the log: the server's sentence is enough."""
    refuses = "alter table noetl.event add constraint no_s0 check (event_type <> 'action_completed')"
    await queue.connection.execute(refuses)
    queue_id = await queue.put_one({"type": "noop", "args": {"name": "hush"}})
    async with working(database.dsn):
        await queue.until(queue_id, "failed")
    [(_, _, error)] = await queue.events(queue_id)
    assert 'violates check constraint "no_s0"' in error["message"]
    assert "hush" not in error["message"]
    assert "Failing row" not in error["message"]

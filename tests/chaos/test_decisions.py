"""People decide at the moments at which approvals time out: each ends once, as the first of both said."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from tests.brokers import register, rows, running, start, until_ended
from tests.chaos.sampling import LONG
from tests.chaos.under_load import leave_core
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

ASKED = """
workflow:
- {step: start, next: ask}
- {step: ask, type: approval, timeout: "{{ workload.seconds }}", next: end}
- {step: end, result: "{{ ask.by }}"}
"""
COUNT, SECONDS = (2_000, 2) if LONG else (30, 1)
SURE = 5  # approvals that nobody decides, and as many that time out long after the test
PICK = """
    select a.execution_id, a.node_id
    from noetl.pending_approvals a
    where a.execution_id <> all ($2::bigint[])
    order by a.times_out_at, random()
    limit 1 offset $1"""
DECIDE = "select noetl.decide_approval($1, $2, true, by => $3)"


async def decide_until(
    wanted: set[int], database: Database, name: str, decided: Counter[tuple[int, str]], left: list[int]
) -> None:
    """Decide what times out next, or one after it, until all wanted ones are; a fifth is rolled back."""
    random = Random(name)
    async with session(database) as person:
        while not wanted <= {execution_id for execution_id, _ in +decided}:
            found = await person.fetchrow(PICK, random.randrange(3), left) or await person.fetchrow(PICK, 0, left)
            if found is None:
                await leave_core()
                continue
            transaction = person.transaction()
            await transaction.start()
            counts = await person.fetchval(DECIDE, found["execution_id"], found["node_id"], name)
            if random.random() < 0.2:
                await transaction.rollback()
            else:
                await transaction.commit()
                decided[found["execution_id"], name] += counts


async def test_each_approval_ends_once_by_a_decision_or_by_its_timeout(database: Database) -> None:
    """A committed decision that was true is the result; without one the approval times out."""
    await register(database, ASKED)
    decided: Counter[tuple[int, str]] = Counter()
    async with running(database, sweep_seconds=600.0), running(database, sweep_seconds=600.0):
        left = await start(database, payload={"seconds": 0.3}, count=SURE)
        for number in range(COUNT):
            await start(database, payload={"seconds": 0.3 + number * SECONDS / COUNT})
        late = set(await start(database, payload={"seconds": 3600}, count=SURE))
        people = [decide_until(late, database, name, decided, left) for name in ("login:ann", "login:bob", "token:eve")]
        await asyncio.gather(*people)
        await until_ended(database)
    ended = dict(
        await rows(database, "select execution_id, coalesce(result #>> '{}', error ->> 'type') from noetl.execution")
    )
    by = {execution_id: name for (execution_id, name), count in decided.items() if count}
    assert sum(decided.values()) == len(by)
    assert ended == {execution_id: by.get(execution_id, "timeout") for execution_id in ended}
    assert len(ended) == COUNT + 2 * SURE
    assert late <= set(by)
    assert not by.keys() & set(left)
    assert await inconsistencies(database) == {}

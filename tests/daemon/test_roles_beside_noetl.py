"""The daemon's role on the database of a NoETL server, whose tables call functions of that server."""

from __future__ import annotations

from noetl_broker.store.migrate import create_roles
from tests.brokers import drain, rows
from tests.noetl import open_noetl
from tests.postgres import Database
from tests.roles import login

STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""


async def test_the_daemons_role_is_enough_there(empty_database: Database) -> None:
    """Ids of jobs come from that server's own function, whose sequence the role may use; rows are decided from."""
    noetl = await open_noetl(empty_database)
    await create_roles(empty_database.dsn)
    async with login(empty_database, "broker_of", "noetl_broker") as broker:
        await noetl.register(STEP)
        noetl.tasks["a"] = lambda _: {"n": 1}
        noetl.lost = {"action_completed"}
        await noetl.start(9)
        await drain(broker)
        await noetl.work()
        assert await rows(broker, "select noetl.reap_ended_jobs(9, -1)") == [(1,)]
        await drain(broker)
    await noetl.connection.close()
    ended = "select status, result from noetl.execution"
    assert await rows(empty_database, ended) == [("COMPLETED", {"n": 1})]

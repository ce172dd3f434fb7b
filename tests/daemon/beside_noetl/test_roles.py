"""The daemon's role on the database of a NoETL server, whose tables call functions of that server."""

from __future__ import annotations

from noetl_broker.playbook import PlaybookRules
from noetl_broker.service.explanations import explain_part
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.admin.executions import load_execution_details
from noetl_broker.store.admin.verify import VerifyScope, verify
from noetl_broker.store.connect.migrations import create_roles
from tests.brokers import drain, rows
from tests.noetl import open_noetl
from tests.postgres import Database, named
from tests.roles import login
from tests.sessions import session

STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""


async def test_the_daemons_role_suffices_on_the_database_of_a_noetl_server(noetl_database: Database) -> None:
    """Its id function and its sequence may be used; jobs are decided from rows."""
    noetl = await open_noetl(noetl_database)
    await create_roles(noetl_database)
    async with login(noetl_database, "broker_of", named("noetl_broker")) as broker:
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
    assert await rows(noetl_database, ended) == [("COMPLETED", {"n": 1})]


async def test_an_operator_explains_and_verifies_on_the_database_of_a_noetl_server(noetl_database: Database) -> None:
    """Also while the server's worker has ended a job whose event is not here."""
    noetl = await open_noetl(noetl_database)
    await create_roles(noetl_database)
    async with login(noetl_database, "operator_of", named("noetl_operator")) as operator:
        await noetl.register(STEP)
        noetl.tasks["a"] = lambda _: {"n": 1}
        noetl.lost = {"action_completed"}
        await noetl.start(9)
        await drain(noetl_database)
        await noetl.work()
        async with session(operator) as connection:
            why = await explain_part(connection, 9, "a", PlaybookRules(), shows_values=True)
            report = await verify(connection, VerifyScope(), deep=PlaybookRules())
            details = await load_execution_details(connection, 9)
            found = await examine(operator)
    await noetl.connection.close()
    lacking = [one.says for one in found if one.check == "rights" and one.state != "ok"]
    assert (why.kind, report.broken, details["status"], lacking) == ("step", 0, "RUNNING", [])

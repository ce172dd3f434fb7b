"""Beside a NoETL server: errors of its worker, some of which have only the status of a response."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.model.values import JSON
from tests.brokers import drain, rows
from tests.noetl import RETRIED, NoETL, ended, fail_task, http_error, reap_ended_jobs, verify_faults
from tests.postgres import Database

UNAVAILABLE = {
    "step": "a",
    "type": "http",
    "message": "the server answered with status 503",
    "response": "later",
    "status_code": 503,
}


async def test_an_error_that_came_is_never_reported_as_missing(noetl: NoETL, noetl_database: Database) -> None:
    """The worker owns retries and its row is `dead`: the result has the reason."""
    await noetl.register(RETRIED)
    noetl.tasks["a"] = lambda _: fail_task(None, http_error(503, "later"))
    noetl.retries = False
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    await noetl.work()
    await drain(noetl_database)
    assert await reap_ended_jobs(noetl, 0) == 1
    await drain(noetl_database)
    assert await rows(noetl_database, "select status, error from noetl.execution") == [("FAILED", UNAVAILABLE)]
    assert await verify_faults(noetl) == {}


@pytest.mark.parametrize("result", [None, "null", {"id": "x", "status": "error"}])
async def test_an_error_without_a_reason_says_so(noetl: NoETL, noetl_database: Database, result: JSON) -> None:
    """The event exists, so the error does not report a missing event."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "action_error", result)
    await drain(noetl_database)
    await noetl.connection.execute("update noetl.queue set status = 'dead'")
    assert await reap_ended_jobs(noetl, 0) == 1
    await drain(noetl_database)
    message = "null" if result == "null" else "the action failed"
    assert await ended(noetl) == [("FAILED", None, message)]
    assert await verify_faults(noetl) == {}

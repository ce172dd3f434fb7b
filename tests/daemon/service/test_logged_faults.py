"""The log line of a database fault has its kind and message, and never the row of the server's detail."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import asyncpg
import pytest
import structlog

from noetl_broker import logs
from noetl_broker.daemon import background, databases
from noetl_broker.errors import DatabaseFault
from noetl_broker.store.connect.sqlstates import trace_of
from tests.brokers import execute
from tests.postgres import Database
from tests.sessions import put_job, session

LogFault = Callable[[str, Exception], None]
PAYLOAD = "hunter2"
EVENT = "it failed"


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    """Restore the log configuration."""
    yield
    structlog.reset_defaults()
    logs.configure(level="error", form="console")


@pytest.fixture
async def refused(database: Database) -> asyncpg.PostgresError:
    """Give the error of a row that a check constraint refuses."""
    await execute(database, "alter table noetl.queue add check (node_name <> 'CANARY')")
    async with session(database) as own:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await put_job(own, "CANARY", action=f'{{"password": "{PAYLOAD}"}}')
    assert PAYLOAD in str(caught.value)
    return caught.value


@pytest.fixture(params=[background.log_fault, databases.log_database_fault], ids=["background", "database"])
def log_fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LogFault:
    """Give the function that logs a fault, with a fresh logger."""
    function: LogFault = request.param
    for module in (background, databases):
        monkeypatch.setattr(module, "log", structlog.get_logger("test"))
    return function


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_row_that_a_constraint_refused_is_not_logged(
    log_fault: LogFault, refused: asyncpg.PostgresError, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in the message nor in a traceback. The SQLSTATE is, for which docs/reference/messages.md has a remedy."""
    logs.configure(level="debug", form=form)
    log_fault(EVENT, refused)
    logged = capsys.readouterr().err
    assert EVENT in logged
    assert "CheckViolationError: new row for relation" in logged
    assert PAYLOAD not in logged
    assert log_fault is not background.log_fault or "23514" in logged


def test_a_bug_is_logged_with_its_traceback(log_fault: LogFault, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the traceback shows where it is."""
    logs.configure(level="debug", form="json")
    try:
        dict[str, int]()["nothing"]
    except KeyError as error:
        log_fault(EVENT, error)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def caused(error: Exception) -> Exception:
    """Give an error with this cause."""
    made = ValueError("ours")
    made.__cause__ = error
    return made


def beside(error: Exception) -> Exception:
    """Give an error with this context, in a cycle of the two."""
    made = ValueError("ours")
    made.__context__, error.__context__ = error, made
    return made


@pytest.mark.parametrize("wrap", [caused, beside, lambda error: ExceptionGroup("all", [caused(error)])])
def test_a_traceback_with_an_error_of_the_server_is_not_shown(wrap: Callable[[Exception], Exception]) -> None:
    """However deep it is in the chain."""
    assert trace_of(wrap(asyncpg.CheckViolationError("no"))) is None
    ours = wrap(DatabaseFault("away"))
    assert trace_of(ours) is ours

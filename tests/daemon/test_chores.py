"""What the log says of a fault of the database: its kind and its sentence, never the row that the server shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import asyncpg
import pytest
import structlog

from noetl_broker import logs
from noetl_broker.daemon import chores, fleet
from noetl_broker.errors import DatabaseFault
from noetl_broker.store.faults import trace_of
from tests.brokers import execute
from tests.postgres import Database
from tests.sessions import put_job, session

Tell = Callable[[str, Exception], None]
PAYLOAD = "hunter2"
EVENT = "it failed"


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    """Leave the log as the other tests have it."""
    yield
    structlog.reset_defaults()
    logs.configure(level="error", form="console")


@pytest.fixture
async def refused(database: Database) -> asyncpg.PostgresError:
    """Give the error of a row with a payload that a check of somebody's refuses."""
    await execute(database, "alter table noetl.queue add check (node_name <> 'CANARY')")
    async with session(database) as own:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await put_job(own, "CANARY", action=f'{{"password": "{PAYLOAD}"}}')
    assert PAYLOAD in str(caught.value)
    return caught.value


@pytest.fixture(params=[chores.tell_fault_of_chore, fleet.tell_fault_of_database], ids=["chore", "database"])
def tell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Give what tells of a fault, with a log that no test before has bound to a stream of its own."""
    telling: Tell = request.param
    for module in (chores, fleet):
        monkeypatch.setattr(module, "log", structlog.get_logger("test"))
    return telling


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_row_that_a_check_refused_is_not_logged(
    tell: Tell, refused: asyncpg.PostgresError, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by the error's own words nor by its traceback."""
    logs.configure(level="debug", form=form)
    tell(EVENT, refused)
    told = capsys.readouterr().err
    assert EVENT in told
    assert "CheckViolationError: new row for relation" in told
    assert PAYLOAD not in told


def test_a_chore_tells_the_sqlstate(
    refused: asyncpg.PostgresError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By it the page about operations says what to do."""
    monkeypatch.setattr(chores, "log", structlog.get_logger("test"))
    logs.configure(level="debug", form="json")
    chores.tell_fault_of_chore(EVENT, refused)
    assert '"sqlstate": "23514"' in capsys.readouterr().err


def test_a_fault_of_the_program_is_logged_with_its_traceback(tell: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else says where it is."""
    logs.configure(level="debug", form="json")
    try:
        dict[str, int]()["nothing"]
    except KeyError as error:
        tell(EVENT, error)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def caused(error: Exception) -> Exception:
    """Give an error that was raised from this one."""
    made = ValueError("ours")
    made.__cause__ = error
    return made


def beside(error: Exception) -> Exception:
    """Give an error that was raised while this one was told of, in a ring of the two."""
    made = ValueError("ours")
    made.__context__, error.__context__ = error, made
    return made


@pytest.mark.parametrize("wrap", [caused, beside, lambda error: ExceptionGroup("all", [caused(error)])])
def test_a_traceback_that_leads_to_the_servers_words_is_none_to_show(wrap: Callable[[Exception], Exception]) -> None:
    """However deep they stand in it."""
    assert trace_of(wrap(asyncpg.CheckViolationError("no"))) is None
    ours = wrap(DatabaseFault("away"))
    assert trace_of(ours) is ours

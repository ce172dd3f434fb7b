"""docs/how-to/recover.md: its commands run on executions that failed, and print what the page shows."""

from __future__ import annotations

import itertools

import pytest

from tests.docs.pages import code_blocks, read_page
from tests.docs.runner import PageRun
from tests.docs.test_troubleshoot_page import GET, LOG, WEATHER, answer
from tests.undos import ORDER, work

PAGE = read_page("recover")
NEWS = "noetl.fail_job(queue_id, 'w1', attempts, '{\"message\": \"503 Service Unavailable\"}')"


@pytest.fixture
def weather(reader: PageRun) -> PageRun:
    """The playbook of the page is registered."""
    reader.register(WEATHER, "examples/weather")
    reader.calls_of(PAGE)
    return reader


def fail(reader: PageRun) -> str:
    """Start an execution that fails in `news`; return its id."""
    execution = reader.start("examples/weather")
    for step, call in (("get", GET), ("log", LOG), ("news", NEWS)):
        answer(reader, step, call)
    return execution


def test_an_execution_is_recovered_as_shown(weather: PageRun) -> None:
    """Its dead letter is given back. Then it fails, is explained, retried, undone and forked."""
    weather.ids = itertools.repeat(weather.start("examples/weather"))
    weather.sql(
        """
        create function audit() returns trigger language plpgsql as $$
        begin raise exception 'the audit table is full'; end $$;
        create trigger audit after insert on noetl.turn for each row execute function audit()
        """
    )
    answer(weather, "get", GET)
    weather.sql("drop trigger audit on noetl.turn")
    for call in ("dead-letters", "reevaluate", "reevaluate"):
        weather.shown(f"noetl-broker {call}")
    answer(weather, "log", LOG)
    answer(weather, "news", NEWS)
    for call in ("explain", "retry", "retry"):
        weather.shown(f"noetl-broker {call}")
    failed = next(weather.ids)
    weather.register(ORDER, "examples/order")
    left = weather.start("examples/order")
    assert weather.database is not None
    weather.aside(work(weather.database, failing=("ship", "charge!undo")))
    weather.ids = iter([left, failed])
    weather.shown("noetl-broker undo")
    weather.shown("noetl-broker fork")


def test_failed_executions_are_retried_as_shown(weather: PageRun) -> None:
    """Only `--yes` retries many of them."""
    weather.calls = [(call, text) for call, text in weather.calls if "--since" in call]
    fail(weather)
    weather.shown("noetl-broker retry --step news --since 2h")
    weather.shown("noetl-broker retry --step news --since 2h --yes")
    assert weather.calls == []
    weather.ids = iter([fail(weather)])
    fail(weather)
    weather.run(code_blocks(PAGE, "sh")[0])

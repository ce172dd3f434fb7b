"""Playbooks that are slow to compile: no other execution waits for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from noetl_broker.daemon import playbook_cache
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Playbook
from tests.brokers import (
    PATIENCE_SECONDS,
    Writer,
    broken_invariants,
    drain,
    register,
    rows,
    running,
    start,
    until_ended,
    value,
)
from tests.postgres import Database

# It compiles in the thread of long texts, and names an unknown step.
LONG_TEXT = "workflow:\n- {step: start, next: nowhere}\n" + "".join(f"- {{step: s{n}}}\n" for n in range(5_000))
assert len(LONG_TEXT) > playbook_cache.LONG_CHARS
BYSTANDER = "workflow:\n- {step: start, next: end}\n- {step: end, result: 1}\n"
COUNT = "select count(*) from noetl.execution where path = $1 and status = $2"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no compilation of the playbook `slow` end before the test sets this, however fast the machine is."""
    gate = threading.Event()

    def compile_later(content: str, *, path: str, **more: Any) -> Playbook:
        if path == "slow":
            gate.wait(PATIENCE_SECONDS)
        return compile_playbook(content, path=path, **more)

    monkeypatch.setattr(playbook_cache, "compile_playbook", compile_later)
    yield gate
    gate.set()


async def test_no_execution_waits_for_a_slow_compilation(database: Database, gate: threading.Event) -> None:
    """Executions of another playbook start and end meanwhile, also behind much mail of the slow one."""
    await register(database, LONG_TEXT, path="slow")
    await register(database, BYSTANDER, path="bystander")
    async with running(database), Writer(database, "bystander") as writer:
        await start(database, "slow", count=100)
        for _ in range(10):
            await writer.start_and_wait()
        assert await value(database, COUNT, "slow", "RUNNING") == 100
        gate.set()
        await until_ended(database)
    assert await value(database, COUNT, "slow", "FAILED") == 100
    assert await broken_invariants(database) == {}


async def test_a_stop_does_not_wait_for_a_compilation(database: Database, gate: threading.Event) -> None:
    """The mail stays in the inbox, and the next daemon decides it."""
    await register(database, LONG_TEXT, path="slow")
    await register(database, BYSTANDER, path="bystander")
    async with running(database), Writer(database, "bystander") as writer:
        await start(database, "slow")
        await writer.start_and_wait()
    assert await value(database, "select count(*) from noetl.inbox") == 1
    gate.set()
    await drain(database)
    assert await value(database, COUNT, "slow", "FAILED") == 1
    assert await broken_invariants(database) == {}


async def test_a_playbook_that_takes_too_long_to_compile_fails_its_executions(database: Database) -> None:
    """The result is cached: the second execution uses it."""
    await register(database, LONG_TEXT, path="slow")
    await start(database, "slow", count=2)
    service = await drain(database, playbook_rules=PlaybookRules(most_seconds=0.01))
    errors = await rows(database, "select status, error ->> 'message' from noetl.execution")
    assert (
        errors
        == [("FAILED", "playbook slow does not compile: slow:1:1: reading the document takes more than 0.01 s")] * 2
    )
    assert service.metrics.total(metric.TURNS) == 2
    assert await broken_invariants(database) == {}


async def test_a_playbook_larger_than_the_limit_is_not_loaded(database: Database) -> None:
    """A row of the catalog may have a gigabyte."""
    await register(database, "workflow:\n- {step: start}\n#" + "x" * 20_000_000, path="large")
    await start(database, "large")
    await drain(database)
    [(message,)] = await rows(database, "select error ->> 'message' from noetl.execution")
    assert message.startswith("playbook large does not compile: the document has 20,000,")

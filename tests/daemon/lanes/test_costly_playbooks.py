"""Playbooks that are slow to compile: no other execution waits for them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from noetl_broker.daemon import playbook_cache
from noetl_broker.daemon.metrics import registry as metric
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

TARGETS = 12_000
# Each target is compared with all steps, and is none of them.
BAD_TARGETS = (
    f"workflow:\n- {{step: start, next: [{', '.join(f'step_number_{n}' for n in range(TARGETS))}]}}\n"
    + "".join(f"- {{step: stop_number_{n}}}\n" for n in range(3_000))
)


def slow(tag: str) -> str:
    """Give a playbook that compiles in the thread of long texts; each tag has its own cache entry."""
    texts = (json.dumps("{{ " + "(" * 40 + f"{tag}{n}" + ")" * 40 + " }}") for n in range(700))
    items = "".join(f"    - {text}\n" for text in texts)
    return f"workflow:\n- {{step: start, next: a}}\n- step: a\n  type: http\n  args:\n    x:\n{items}"


BYSTANDER = "workflow:\n- {step: start, next: end}\n- {step: end, result: 1}\n"
COUNT = "select count(*) from noetl.execution where path = $1 and status = $2"


async def test_a_playbook_with_many_errors_fails_its_execution_and_delays_no_other(database: Database) -> None:
    """12,000 targets are no steps."""
    await register(database, BAD_TARGETS, path="hostile")
    await register(database, BYSTANDER, path="bystander")
    async with running(database), Writer(database, "bystander") as writer, asyncio.timeout(PATIENCE_SECONDS):
        await start(database, "hostile")
        for _ in range(10):
            await writer.start_and_wait()
        await until_ended(database)
    assert await value(database, COUNT, "bystander", "COMPLETED") == 10
    [(status, error)] = await rows(database, "select status, error from noetl.execution where path = 'hostile'")
    assert (status, "there is no step `step_number_0`" in error["message"]) == ("FAILED", True)
    assert await broken_invariants(database) == {}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no compilation of the playbook `slow` end before the test sets this, however fast the machine is."""
    gate, compile_text = threading.Event(), playbook_cache._compile_text

    def compile_and_wait(content: str, path: str, *more: Any) -> Playbook | str:
        compiled = compile_text(content, path, *more)
        if path == "slow":
            gate.wait(PATIENCE_SECONDS)
        return compiled

    monkeypatch.setattr(playbook_cache, "_compile_text", compile_and_wait)
    yield gate
    gate.set()


async def test_no_execution_waits_for_a_slow_compilation(database: Database, gate: threading.Event) -> None:
    """Executions of another playbook start and end meanwhile, also behind much mail of the slow one."""
    await register(database, slow("first"), path="slow")
    await register(database, BYSTANDER, path="bystander")
    async with running(database), Writer(database, "bystander") as writer:
        await start(database, "slow", count=300)
        for _ in range(10):
            await writer.start_and_wait()
        assert await value(database, COUNT, "slow", "RUNNING") == 300
        gate.set()
        await until_ended(database)
    assert await value(database, COUNT, "slow", "FAILED") == 300
    assert await broken_invariants(database) == {}


async def test_a_stop_does_not_wait_for_a_compilation(database: Database, gate: threading.Event) -> None:
    """The mail stays in the inbox, and the next daemon decides it."""
    await register(database, slow("second"), path="slow")
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
    await register(database, slow("third"), path="slow")
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

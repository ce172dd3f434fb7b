"""The core only: turns of the ten-step playbook in memory, on one thread."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from benchmarks.bench import Bench
from benchmarks.playbooks import RESULT, STEPS, chain
from benchmarks.results import Row, at_most
from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.wants import WORKLOAD
from noetl_broker.broker.model.event import Event
from noetl_broker.daemon.garbage_collection import collected_between_batches
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Playbook

AT = datetime(2026, 1, 1, tzinfo=UTC)


async def measure(bench: Bench) -> list[Row]:
    """Measure microseconds a turn."""
    playbook = compile_playbook(chain("ten"), rules=PlaybookRules())
    executions = bench.scaled(2_000, 500)
    _run(playbook, 50)
    with collected_between_batches():  # as in the daemon
        rounds = [_run(playbook, executions) for _ in range(bench.rounds)]
    return [Row(figure="core", what="one turn", unit="µs", values=tuple(rounds), bar=at_most(12))]


def _run(playbook: Playbook, executions: int) -> float:
    """Return processor microseconds a turn, which do not depend on other load."""
    events = [Event("execution_start", context={"workload": {}})]
    events += [Event("action_completed", f"s{step}", 1, RESULT) for step in range(1, STEPS + 1)]
    turns = 0
    began = time.thread_time()
    for execution_id in range(executions):
        session = Session(playbook, execution_id=execution_id, answers={WORKLOAD: {"limit": 5}})
        for number, event in enumerate(events, 1):
            session.apply(event, AT + timedelta(seconds=number))
        turns += len(events)
        if session.state.status != "COMPLETED":
            raise RuntimeError(f"the execution is {session.state.status}, not COMPLETED")
    return (time.thread_time() - began) / turns * 1e6

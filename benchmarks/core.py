"""The core alone: turns of the ten-step playbook in memory, on one thread."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from benchmarks.bench import Bench
from benchmarks.playbooks import RESULT, STEPS, chain
from benchmarks.results import Row, at_most
from noetl_broker.broker.context import WORKLOAD, Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import Event, Turn
from noetl_broker.broker.state import ExecutionState
from noetl_broker.daemon.garbage import collected_between_batches
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.findings import Rules
from noetl_broker.playbook.model import Playbook

AT = datetime(2026, 1, 1, tzinfo=UTC)


async def measure(bench: Bench) -> list[Row]:
    """Microseconds a turn."""
    playbook = compile_playbook(chain("ten"), rules=Rules())
    executions = bench.scaled(2_000, 500)
    _play(playbook, 50)
    with collected_between_batches():  # as in the daemon
        rounds = [_play(playbook, executions) for _ in range(bench.rounds)]
    return [Row(figure="core", what="one turn", unit="µs", values=tuple(rounds), bar=at_most(45))]


def _play(playbook: Playbook, executions: int) -> float:
    """The processor's own time: a busy machine does not make the core slower."""
    events = [Event("execution_start", context={"workload": {}})]
    events += [Event("action_completed", f"s{step}", 1, RESULT) for step in range(1, STEPS + 1)]
    turns = 0
    began = time.thread_time()
    for execution_id in range(executions):
        state, known = ExecutionState(), Known(answers={WORKLOAD: {"limit": 5}}, complete=True)
        for number, event in enumerate(events, 1):
            turn = Turn(execution_id, number, AT + timedelta(seconds=number))
            state, decision = take_turn(playbook, state, event, turn, known)
            remember(known, event, turn, decision)
        turns += len(events)
        if state.status != "COMPLETED":
            raise RuntimeError(f"the execution is {state.status}, not COMPLETED")
    return (time.thread_time() - began) / turns * 1e6

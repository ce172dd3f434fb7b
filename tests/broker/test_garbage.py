"""What a turn leaves behind: nothing that only the garbage collector can free."""

import gc
from datetime import UTC, datetime

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import Event, Turn
from noetl_broker.broker.state import ExecutionState
from tests.stories import playbook

AT = datetime(2026, 1, 1, tzinfo=UTC)
LOOP = playbook(
    """
    workload: {limit: 3}
    workflow:
    - {step: start, next: fetch}
    - {step: fetch, type: python, code: x, args: {page: "{{ workload.limit }}"}, next: router}
    - step: router
      next: [{when: "fetch.n < workload.limit", step: fetch, args: {n: "{{ result.n }}"}}, {else: [{step: end}]}]
    - {step: end, result: "{{ fetch.n }}"}
    """
)


def test_a_turn_is_freed_when_it_ends() -> None:
    """A ring of objects in every turn would have cost the daemon a tenth of its time."""
    events = [
        Event("execution_start", context={"workload": {}}),
        *(Event("action_completed", "fetch", n, {"n": n}) for n in (1, 2, 3)),
    ]
    _play(events)  # what is made once, at the first evaluation, is made
    gc.collect()
    gc.disable()
    try:
        _play(events)
        left = gc.collect()
    finally:
        gc.enable()
    assert left == 0


def _play(events: list[Event]) -> None:
    state, known = ExecutionState(), Known(complete=True)
    for number, event in enumerate(events, 1):
        turn = Turn(1, number, AT)
        state, decision = take_turn(LOOP, state, event, turn, known)
        remember(known, event, turn, decision)
    assert state.status == "COMPLETED"

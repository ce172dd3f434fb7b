"""A turn leaves no objects that only the garbage collector can free."""

import gc
from datetime import UTC, datetime

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.event import Event
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
    """Cycles of objects in every turn would cost a tenth of the daemon's time."""
    events = [
        Event("execution_start", context={"workload": {}}),
        *(Event("action_completed", "fetch", n, {"n": n}) for n in (1, 2, 3)),
    ]
    _play(events)  # The first evaluation fills caches.
    gc.collect()
    gc.disable()
    try:
        _play(events)
        left = gc.collect()
    finally:
        gc.enable()
    assert left == 0


def _play(events: list[Event]) -> None:
    session = Session(LOOP)
    for event in events:
        session.apply(event, AT)
    assert session.state.status == "COMPLETED"

"""Random executions: what reported success and has a `compensate` is undone exactly once or listed, last first."""

from __future__ import annotations

import pytest

from noetl_broker.broker.state.state import is_live
from tests.broker.random_undos import Node, World, run

SEEDS_AT_ONCE = 50
LEFT = frozenset({"open", "failed"})
ALLOWED = {"done", "superseded", "failed", "open", "unknown"}  # for what succeeded


def faults(world: World) -> list[str]:
    """Return how an execution breaks the rules of undoing."""
    state = world.session.state
    rows = {node: status for node, (_, status) in world.session.known.undo_rows().items()}
    found = []
    if is_live(state.status):
        return [f"it hangs: {state}"]
    found += _faults_of_successes(world, rows)
    unsure = {node for node, (row, _) in world.session.known.undo_rows().items() if row.unsure}
    known = world.successes.keys() | unsure
    found += [f"{node} was undone and never succeeded" for node in world.done if node not in known]
    found += [f"{node} was undone twice" for node in world.done if world.done.count(node) > 1]
    for started in (*world.rounds, world.started):
        order = [world.successes[node] for node, _ in dict(started).items() if node in world.successes]
        if order != sorted(order, reverse=True):
            found.append(f"undone in the order {started} of {world.successes}")
    counted = [sum(each in statuses for each in rows.values()) for statuses in (LEFT, {"unknown"})]
    if [state.undo, state.unknown] != counted:
        found.append(f"{state.undo} open and {state.unknown} unknown rows are counted: {rows}")
    if state.compensation is not None:
        found.append(f"it undoes for ever: {state.compensation}")
    for node in world.doubtful - world.successes.keys():
        if world.is_to_be_undone(node) and node not in rows:
            found.append(f"{node} is {rows.get(node)}, and may have happened")
    return found


def _faults_of_successes(world: World, rows: dict[Node, str]) -> list[str]:
    found = []
    for node in world.successes:
        status = rows.get(node)
        if status not in ALLOWED:
            found.append(f"{node} succeeded, and is {status} after {world.session.state.status}")
        if status == "done" and world.done.count(node) != 1:
            found.append(f"{node} was undone {world.done.count(node)} times")
    return found


@pytest.mark.parametrize("first", range(0, 300, SEEDS_AT_ONCE))
def test_random_executions_undo_what_they_did(first: int) -> None:
    """Whatever fails, times out, is lost, is late, comes twice or is cancelled."""
    broken = {seed: found for seed in range(first, first + SEEDS_AT_ONCE) if (found := faults(run(seed)))}
    assert broken == {}

"""Paths and diagrams of stories, without a database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from noetl_broker.broker.model.event import Emitted
from noetl_broker.broker.state.state import ExecutionState
from noetl_broker.diagram.build import picture_of_execution
from noetl_broker.diagram.model import Picture
from noetl_broker.history.past import TRACED
from noetl_broker.history.path import ExecutionPath, StepStatus, trace_path
from noetl_broker.history.story import STORY_EXECUTION, STORY_START, play_turns, read_events
from noetl_broker.playbook.model import Playbook
from tests.stories import playbook as compiled


def path_of(playbook: Playbook, story: str, *, version: int | None = 1) -> ExecutionPath:
    """Return the path of a story at its last turn; turn n is n seconds after STORY_START."""
    events: list[Emitted] = []
    rows: dict[str, dict[str, Any]] = {name: {} for name in playbook.steps}
    state, now, ended = ExecutionState(), STORY_START, None
    for number, (_, decision, after) in enumerate(play_turns(playbook, read_events(story)), 1):
        state, now = after, STORY_START + timedelta(seconds=number)
        events += [event for event in decision.events if event.type in TRACED]
        for row in decision.rows:
            rows[row.step].update(status=row.status, visits=row.visits, ended_at=None if row.ended is None else now)
            if row.started is not None:
                rows[row.step]["started_at"] = now
        ended = decision.ended or ended
    steps = {name: StepStatus(arrived=len(state.waiting.get(name, ())), **row) for name, row in rows.items()}
    waiting = [arrival.arc for arrivals in state.waiting.values() for arrival in arrivals]
    return ExecutionPath(
        execution_id=STORY_EXECUTION,
        version=version,
        status="RUNNING" if ended is None else ended.status,
        started_at=STORY_START,
        ended_at=None if ended is None else now,
        read_at=now,
        error=None if ended is None else ended.error,
        steps=steps,
        trace=trace_path(playbook, events, steps, waiting),
    )


def picture_of_story(body: str, story: str) -> Picture:
    """Return the diagram of a story."""
    playbook = compiled(body)
    return picture_of_execution(playbook, path_of(playbook, story))


def arcs_taken(body: str, story: str) -> dict[str, int | None]:
    """Return how often each arc `source -> target` was taken; None if it is not known."""
    playbook = compiled(body)
    trace = path_of(playbook, story).trace
    return {
        f"{arc.source} -> {arc.target}": None if arc.ordinal in trace.unknown else trace.taken.get(arc.ordinal, 0)
        for arc in playbook.arcs
    }

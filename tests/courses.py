"""Courses of executions out of stories: what a database would remember of one, without a database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from noetl_broker.broker.course import Course, Standing, trace
from noetl_broker.broker.model import Emitted
from noetl_broker.broker.state import ExecutionState
from noetl_broker.broker.story import STORY_EXECUTION, STORY_START, play_turns, read_events
from noetl_broker.drawing.compose import picture_of_execution
from noetl_broker.drawing.picture import Picture
from noetl_broker.playbook.model import Playbook
from tests.stories import playbook as compiled

TRACED = ("step_started", "step_completed", "step_failed", "action_retry", "execution_failed")


def course_of(playbook: Playbook, story: str, *, version: int | None = 1) -> Course:
    """The course of a story (its lines with `>`): turn n is n seconds after STORY_START; it is read at the last one."""
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
    steps = {name: Standing(arrived=len(state.waiting.get(name, ())), **row) for name, row in rows.items()}
    waiting = [arrival.arc for arrivals in state.waiting.values() for arrival in arrivals]
    return Course(
        execution_id=STORY_EXECUTION,
        version=version,
        status="RUNNING" if ended is None else ended.status,
        started_at=STORY_START,
        ended_at=None if ended is None else now,
        read_at=now,
        error=None if ended is None else ended.error,
        steps=steps,
        trace=trace(playbook, events, steps, waiting),
    )


def picture_of_story(body: str, story: str) -> Picture:
    """The picture of an execution of this workload and workflow that went as the story says."""
    playbook = compiled(body)
    return picture_of_execution(playbook, course_of(playbook, story))


def arcs_taken(body: str, story: str) -> dict[str, int | None]:
    """How often each arc was taken, written `source -> target`; None where nothing tells."""
    playbook = compiled(body)
    told = course_of(playbook, story).trace
    return {
        f"{arc.source} -> {arc.target}": None if arc.ordinal in told.unsure else told.taken.get(arc.ordinal, 0)
        for arc in playbook.arcs
    }

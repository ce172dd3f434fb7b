"""Explanations of stories as text, without a database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from noetl_broker.explain.explain import explain_execution, explain_step
from noetl_broker.explain.facts import Cause, Facts, JobFact
from noetl_broker.explain.reason import Reason
from noetl_broker.history.record import History
from noetl_broker.history.story import STORY_START

NOW = STORY_START + timedelta(minutes=10)


def facts_of(history: History, **more: Any) -> Facts:
    """Return the facts of a story's execution, ten minutes after its start; `more` replaces some of them."""
    ended = history.ended
    given: dict[str, Any] = {
        "execution_id": history.execution_id,
        "path": "story",
        "version": 1,
        "status": "RUNNING" if ended is None else ended.status,
        "started_at": STORY_START,
        "ended_at": None if ended is None else STORY_START + timedelta(seconds=90),
        "read_at": NOW,
        "result": None if ended is None else ended.result,
        "error": None if ended is None else ended.error,
        "brokers": 1,
        "causes": {
            turn.turn.number: Cause(100 + turn.turn.number, turn.event.type, NOW, None) for turn in history.turns
        },
    }
    return Facts(**given | more)


def job(**more: Any) -> JobFact:
    """Return a job that was queued four minutes ago; `more` replaces some of its columns."""
    queued = NOW - timedelta(minutes=4)
    given: dict[str, Any] = {
        "type": "python",
        "status": "queued",
        "attempts": 0,
        "max_attempts": 1,
        "lost_leases": 0,
        "available_at": queued,
        "created_at": queued,
    }
    return JobFact(**given | more)


def execution_lines(history: History | None, facts: Facts) -> str:
    """Return the explanation of the execution."""
    return "\n".join(lines(explain_execution(history, facts)))


def step_lines(history: History, name: str, number: int | None = None, **more: Any) -> str:
    """Return the explanation of a step."""
    return "\n".join(lines(explain_step(history, facts_of(history, **more), name, number)))


def lines(why: Reason, depth: int = 0) -> Iterator[str]:
    """Yield the sentences; reasons are indented below what they explain."""
    yield "  " * depth + why.says
    for answer in why.because:
        yield from lines(answer, depth + 1)

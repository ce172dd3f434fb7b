"""Explanations without a database: a story's history, what the tables would say beside it, and the answer as lines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from textwrap import dedent
from typing import Any

from noetl_broker.broker.explain import explain_execution, explain_step
from noetl_broker.broker.facts import Cause, Facts, JobFact
from noetl_broker.broker.history import History
from noetl_broker.broker.story import STORY_START
from noetl_broker.broker.why import Why

NOW = STORY_START + timedelta(minutes=10)


def facts_of(history: History, **more: Any) -> Facts:
    """The facts of a story's execution ten minutes after its start, with a broker connected; `more` replaces some."""
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
    """A job that was queued four minutes ago; `more` replaces some of its columns."""
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
    """What is said of the whole execution."""
    return "\n".join(lines(explain_execution(history, facts)))


def step_lines(history: History, name: str, number: int | None = None, **more: Any) -> str:
    """What is said of a step."""
    return "\n".join(lines(explain_step(history, facts_of(history, **more), name, number)))


def lines(why: Why, depth: int = 0) -> Iterator[str]:
    """The sentences, indented by what they rest on."""
    yield "  " * depth + why.says
    for answer in why.because:
        yield from lines(answer, depth + 1)


def told(text: str) -> str:
    """The expected lines as they stand in a test."""
    return dedent(text).strip("\n").rstrip()

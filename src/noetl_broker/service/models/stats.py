"""What is asked about numbers of executions, and what the answer has."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from noetl_broker.service.models.base import UNANSWERED, Given, Text, Version
from noetl_broker.service.models.values import ErrorType, Moment, Time

By = Literal["hour", "day"]


class StatsRequest(Given):
    """Which numbers: of all playbooks, or of one with its steps."""

    path: Text | None = Field(None, description="of this playbook, with its steps; without it, of all together")
    since: Time = Field("24h", description="that started since: a moment or a span, at most 60 days ago")
    until: Time | None = Field(None, description="that started until then: a moment or a span")
    by: By = Field("hour", description="the length of the times in the answer")
    version: Version | None = Field(None, description="of this version of the playbook")


class Lengths(BaseModel):
    """Percentiles of a length of time, in seconds, right to within 10 %; null: there was none."""

    p50: float | None
    p95: float | None
    p99: float | None


class Numbers(BaseModel):
    """What became of executions that started in a time, and how long the completed ones took."""

    started: int
    completed: int
    failed: int
    cancelled: int
    live: int = Field(description="that have not ended")
    duration: Lengths


class NumbersOfTime(Numbers):
    """One hour or day."""

    at: Moment = Field(description="when it begins")
    backlog: int = Field(
        description="executions that were live at its end, of those that started at most 7 days before"
    )
    is_missing: bool = Field(description="some hours of it are not summed yet, so the numbers are too small")


class ErrorNumber(BaseModel):
    """How many failed with a type of error."""

    type: ErrorType
    count: int


class StepNumbers(BaseModel):
    """What became of the visits of a step."""

    step: str
    visits: int
    completed: int = Field(description="executions whose last visit of it completed")
    failed: int
    retries: int = Field(description="attempts of its jobs after their first")
    duration: Lengths = Field(description="of the last visit, if it completed; waiting and retries included")
    wait: Lengths = Field(description="from the moment at which a job was ready until a worker leased it")
    errors: list[ErrorNumber] = Field(description="of failures that ended the execution")


class PlaybookNumbers(BaseModel):
    """One of the playbooks with most starts."""

    path: str
    started: int
    failed: int


class StatsView(BaseModel):
    """Numbers of executions by the time of their start."""

    path: str | None
    version: int | None
    since: Moment
    until: Moment
    by: By
    read_at: Moment
    total: Numbers
    errors: list[ErrorNumber]
    times: list[NumbersOfTime]
    playbooks: list[PlaybookNumbers] = Field(description="without `path`: the 50 with most starts")
    steps: list[StepNumbers] = Field(description="with `path`: its steps")
    sampled: float = Field(description="the part of the executions whose steps were read; 1 is all")
    missing_hours: int = Field(description="hours whose executions are not summed yet, and too many to read now")
    live: int = Field(description="executions that are live now, counted up to 10,000")
    unanswered: list[str] = UNANSWERED

"""The answers of a test to jobs: a value, a failure, several in turn, or a function of the job."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.errors import BrokerError, JobFailed
from noetl_broker.job import Job
from noetl_broker.playbook.blocks import dotted
from noetl_broker.template import read_integer, read_real
from noetl_broker.template.durations import parse_duration

Answer = Any  # a JSON value, an exception, an InTurn, or a function of a Job that returns a value or raises


class SimulationFault(BrokerError):
    """An answer or a playbook is missing or cannot be used. The test must be changed."""


@dataclass(frozen=True, slots=True)
class InTurn:
    """Answers that are used one after another, each once; see `in_turn`."""

    answers: tuple[Answer, ...]


def in_turn(*answers: Answer) -> InTurn:
    """One answer for each job of the step: for its visits, its attempts, or the items of an iterator.

    A plain list is one answer: a result.
    """
    return InTurn(answers)


@dataclass(frozen=True, slots=True)
class Delayed:
    """An answer that comes later; see `delayed`."""

    answer: Answer
    seconds: float


def delayed(answer: Answer, *, after: float | str | timedelta) -> Delayed:
    """An answer that comes so long after the job began: seconds, a timedelta, or a duration such as "3d".

    With nothing else to do, the simulation's clock jumps to it. If the step's `timeout` is shorter, the attempt times
    out.
    """
    return Delayed(answer, seconds_of(after))


def seconds_of(after: float | str | timedelta) -> float:
    """The seconds of a duration. Raises SimulationFault for anything else."""
    if isinstance(after, timedelta):
        after = after.total_seconds()
    try:
        return parse_duration(after)
    except ValueError as error:
        raise SimulationFault(f"after={after!r} is no duration: {error}") from None


def names_of(path: str, step: str) -> tuple[str, ...]:
    """What a test may call a step, the strongest first: `path:step`, `pay.charge` in the block of `pay`, `charge`."""
    return f"{path}:{step}", dotted(path, step), step


class JobOutcome(NamedTuple):
    """The result of a job, or the error of its failure."""

    result: JSON = None
    error: dict[str, JSON] | None = None
    retryable: bool = True
    after: float = 0.0  # seconds


class Answers:
    """The answers of one simulation, by `step` or `path:step`; it counts those of `in_turn`."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self._in_turn: dict[str, Iterator[Answer]] = {
            key: iter(answer.answers) for key, answer in answers.items() if isinstance(answer, InTurn)
        }

    def key_of(self, path: str, step: str) -> str | None:
        """The key of the answer for a step; None if there is none."""
        return next((key for key in names_of(path, step) if key in self._answers), None)

    def answer(self, job: Job) -> JobOutcome:
        """The outcome of a job. Raises SimulationFault if there is no answer."""
        key = self.key_of(job.path, job.step)
        if key is None:
            raise SimulationFault(
                f"step {job.step} (type {job.type}) of {job.path} has no answer; "
                f"give one to simulate: answers={{{job.step!r}: …}}, a value, a JobFailed, or a function of the job"
            )
        answer = self._answers[key]
        if isinstance(answer, InTurn):
            try:
                answer = next(self._in_turn[key])
            except StopIteration:
                count = len(answer.answers)
                raise SimulationFault(
                    f"job {job.name} of {job.path} needs one more answer than the {count} of answers[{key!r}]; "
                    "add one, or give a function of the job"
                ) from None
        return outcome_of(answer, job)


def outcome_of(answer: Answer, job: Job) -> JobOutcome:
    """The outcome of a job: a function is called, an exception fails the attempt.

    Raises a failed assertion of such a function, and SimulationFault.
    """
    if callable(answer) and not isinstance(answer, type):
        answer = _call(answer, job)
    if isinstance(answer, Delayed):
        return outcome_of(answer.answer, job)._replace(after=answer.seconds)
    if isinstance(answer, (AssertionError, SimulationFault)):
        raise answer
    if isinstance(answer, JobFailed):
        details = {"message": answer.message, "type": answer.kind, **answer.details}
        return JobOutcome(None, as_json(details, job), answer.retryable)
    if isinstance(answer, Exception):
        return JobOutcome(None, {"message": str(answer) or type(answer).__name__, "type": type(answer).__name__})
    return JobOutcome(as_json(answer, job))


def _call(function: Callable[[Job], Answer], job: Job) -> Answer:
    try:
        answer = function(job)
    except Exception as error:  # noqa: BLE001 - whatever a job raises is its failure
        return error
    if inspect.iscoroutine(answer):
        answer.close()
        raise SimulationFault(
            f"the answer to job {job.name} is an asynchronous function, but a simulation does not wait; "
            "use a plain function"
        )
    return answer


def as_json(value: Answer, job: Job) -> JSON:
    """The value as the database returns it. Raises SimulationFault if JSON cannot hold it."""
    try:
        text = json.dumps(value, allow_nan=False)
        return as_stored(json.loads(text, parse_int=read_integer, parse_float=read_real))
    except (TypeError, ValueError) as error:
        raise SimulationFault(f"the answer to job {job.name} is not JSON: {error}") from error

"""What a test says that jobs answer: a value, a failure, several in turn, or a function of the job."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from noetl_broker.broker.model import JSON, as_stored
from noetl_broker.errors import BrokerError, JobFailed
from noetl_broker.job import Job
from noetl_broker.template import read_integer, read_real

Answer = Any  # a JSON value, an exception, an InTurn, or a function of a Job that gives or raises one of the first two


class SimulationFault(BrokerError):
    """The simulation lacks an answer or a playbook, or was given what it cannot use: the test mends it."""


@dataclass(frozen=True, slots=True)
class InTurn:
    """Answers that are given one after the other, each once; see `in_turn`."""

    answers: tuple[Answer, ...]


def in_turn(*answers: Answer) -> InTurn:
    """One answer for each job of the step in turn: for its visits, its attempts, or the items of an iterator.

    A plain list is no such thing: it is a result.
    """
    return InTurn(answers)


class Said(NamedTuple):
    """What a job answered: its result, or the error of a failure."""

    result: JSON = None
    error: dict[str, JSON] | None = None
    retryable: bool = True


class Answers:
    """All answers of one simulation, by `step` or by `path:step`; it remembers which of several were given."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        """The mapping that the test wrote."""
        self._answers = answers
        self._following: dict[str, Iterator[Answer]] = {
            key: iter(answer.answers) for key, answer in answers.items() if isinstance(answer, InTurn)
        }

    def key_of(self, path: str, step: str) -> str | None:
        """The key under which a step of a playbook is answered; None where it is not."""
        return next((key for key in (f"{path}:{step}", step) if key in self._answers), None)

    def say(self, job: Job) -> Said:
        """The answer to a job; raises SimulationFault where there is none."""
        key = self.key_of(job.path, job.step)
        if key is None:
            raise SimulationFault(
                f"step {job.step} (type {job.type}) of {job.path} has no answer; "
                f"give one to simulate: answers={{{job.step!r}: …}}, a value, a JobFailed, or a function of the job"
            )
        answer = self._answers[key]
        if isinstance(answer, InTurn):
            try:
                answer = next(self._following[key])
            except StopIteration:
                count = len(answer.answers)
                raise SimulationFault(
                    f"job {job.name} of {job.path} is one more than the {count} answers of answers[{key!r}]; "
                    "add one, or give a function of the job"
                ) from None
        return said_by(answer, job)


def said_by(answer: Answer, job: Job) -> Said:
    """What an answer comes to: a function is called, an exception is a failed attempt.

    A failed assertion within a function is the test's and goes on up, as does a SimulationFault.
    """
    if callable(answer) and not isinstance(answer, type):
        answer = _called(answer, job)
    if isinstance(answer, (AssertionError, SimulationFault)):
        raise answer
    if isinstance(answer, JobFailed):
        details = {"message": answer.message, "type": answer.kind, **answer.details}
        return Said(None, as_json(details, job), answer.retryable)
    if isinstance(answer, Exception):
        return Said(None, {"message": str(answer) or type(answer).__name__, "type": type(answer).__name__})
    return Said(as_json(answer, job))


def _called(function: Callable[[Job], Answer], job: Job) -> Answer:
    try:
        answer = function(job)
    except Exception as error:  # noqa: BLE001 - whatever a job raises, is how it failed
        return error
    if inspect.iscoroutine(answer):
        answer.close()
        raise SimulationFault(
            f"the answer to job {job.name} is an asynchronous function, and a simulation waits for nothing: "
            "give a plain one"
        )
    return answer


def as_json(value: Answer, job: Job) -> JSON:
    """The value as it comes back from the database; raises SimulationFault for what JSON cannot hold."""
    try:
        text = json.dumps(value, allow_nan=False)
        return as_stored(json.loads(text, parse_int=read_integer, parse_float=read_real))
    except (TypeError, ValueError) as error:
        raise SimulationFault(f"the answer to job {job.name} is no JSON: {error}") from error

"""The signals of a simulation: a test or a step sends them, and waits take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.model.effects import WaitOpened
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import EXECUTION_SIGNAL
from noetl_broker.broker.model.values import JSON, Visit, as_stored
from noetl_broker.job import Job
from noetl_broker.playbook.signals import KEY_FORMS, NAME_FORMS, signal_key, signal_name
from noetl_broker.template.durations import DURATION_FORMS, moment_text, parse_duration
from noetl_broker.testing.answers import SimulationFault, as_json

if TYPE_CHECKING:
    from noetl_broker.testing.execution import SimulatedExecution

KEYS = frozenset({"name", "key", "payload", "after", "before"})


class GivenSignal(NamedTuple):
    """A signal that a test sends `delay` seconds after the start; `key` None: to the first execution."""

    name: str
    key: str | None
    payload: JSON
    delay: float = 0.0


class Sent(NamedTuple):
    """A signal that was sent; `given`: by the test."""

    name: str
    key: str
    payload: JSON
    at: datetime
    given: bool = False


class OpenWait(NamedTuple):
    """A wait for a signal, since the start of its execution less `since`; `signalled`: a signal is on its way to it."""

    execution: int
    wait: WaitOpened
    started_at: datetime
    signalled: bool = False


class Signals:
    """All signals that were sent, in their order, and the waits that are open."""

    def __init__(self) -> None:
        self._sent: list[Sent] = []
        self._taken: set[tuple[int, int]] = set()  # an execution, and the index of a signal
        self._open: dict[tuple[int, Visit], OpenWait] = {}

    def send(self, sent: Sent) -> None:
        """Send a signal."""
        self._sent.append(sent)

    def open(self, execution: int, wait: WaitOpened, started_at: datetime) -> None:
        """A wait began."""
        self._open[execution, (wait.step, wait.visit)] = OpenWait(execution, wait, started_at)

    def reopen(self, execution: int, visit: Visit) -> None:
        """A wait did not take the signal that came to it."""
        if (execution, visit) in self._open:
            self._open[execution, visit] = self._open[execution, visit]._replace(signalled=False)

    def close(self, execution: int, visit: Visit | None = None) -> None:
        """A wait ended; without a visit, all waits of an execution."""
        for key in [key for key in self._open if key[0] == execution and visit in {None, key[1]}]:
            del self._open[key]

    def bring(self) -> Iterator[tuple[int, Event]]:
        """Bring each open wait its next signal: the execution, and its event."""
        for key, waiting in [*self._open.items()]:
            if waiting.signalled:
                continue
            index = self._next(waiting)
            if index is not None:
                self._taken.add((waiting.execution, index))
                self._open[key] = waiting._replace(signalled=True)
                yield waiting.execution, _event(waiting, self._sent[index], index + 1)

    def untaken(self, executions: Iterable[SimulatedExecution]) -> Iterator[Sent]:
        """The signals of the test that no wait of these executions took."""
        taken = {number - 1 for execution in executions for number in execution.signals_taken()}
        return (sent for index, sent in enumerate(self._sent) if sent.given and index not in taken)

    def _next(self, waiting: OpenWait) -> int | None:
        wait = waiting.wait
        oldest = waiting.started_at - timedelta(seconds=wait.since)
        for index, sent in enumerate(self._sent):
            fits = sent.name in wait.names and sent.key == wait.key and sent.at >= oldest
            if fits and (waiting.execution, index) not in self._taken:
                return index
        return None


def _event(waiting: OpenWait, sent: Sent, number: int) -> Event:
    context: dict[str, JSON] = {
        "name": sent.name, "key": sent.key, "payload": sent.payload, "at": moment_text(sent.at), "signal_id": number,
    }  # fmt: skip
    if sent.at < waiting.started_at:
        context["before_start"] = (waiting.started_at - sent.at).total_seconds()
    return Event(EXECUTION_SIGNAL, waiting.wait.step, waiting.wait.visit, context=as_stored(context))


def signals_of(given: Sequence[Mapping[str, Any]]) -> list[GivenSignal]:
    """The signals of the argument `signals`. Raises SimulationFault for a wrong one."""
    return [_read(index, one) for index, one in enumerate(given)]


def _read(index: int, given: Any) -> GivenSignal:
    what = f"signals[{index}]"
    if not isinstance(given, Mapping) or not given.keys() <= KEYS or "name" not in given:
        keys = ", ".join(sorted(KEYS))
        raise SimulationFault(f"{what} is {given!r:.80}; write a mapping with `name`, and perhaps others of {keys}")
    name = _parsed(signal_name, given["name"], f"{what}: name", NAME_FORMS)
    key = None if given.get("key") is None else _parsed(signal_key, given["key"], f"{what}: key", KEY_FORMS)
    after, before = (
        _parsed(parse_duration, given.get(word, 0), f"{what}: {word}", DURATION_FORMS) for word in ("after", "before")
    )
    payload = as_json(given.get("payload"), Job(step=what, type="signal"))
    return GivenSignal(name, key, payload, after - before)


def _parsed(parse: Any, value: Any, what: str, forms: str) -> Any:
    try:
        return parse(value)
    except ValueError:
        raise SimulationFault(f"{what} is {value!r:.80}, not {forms}") from None

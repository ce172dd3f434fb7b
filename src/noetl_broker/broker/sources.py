"""Where the values come from that a template read: results with their events, inputs, the workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.context import result_of, want_turn
from noetl_broker.broker.model import EXECUTION_START, JSON
from noetl_broker.broker.why import Why
from noetl_broker.broker.words import visit_name
from noetl_broker.template import StepResult

if TYPE_CHECKING:
    from noetl_broker.broker.facts import Cause, Facts
    from noetl_broker.broker.history import History
    from noetl_broker.broker.journey import Journey
    from noetl_broker.broker.state import Visit

HANDED = frozenset({"result", "this"})


class Sources:
    """What is known of one execution when somebody asks where a value comes from."""

    def __init__(self, history: History, journey: Journey, facts: Facts) -> None:
        """Take the history, the way that it shows, and the tables' facts."""
        self.history = history
        self.journey = journey
        self.facts = facts
        self._visits = {result.name: visit for visit, result in journey.results.items()}
        self._payload = _payload(history)

    def of_name(self, name: str, origin: str, reader: Visit, turn: int) -> Why | None:
        """Where a name came from that this visit's `next` names, read in this turn; None: that needs no telling."""
        if origin == "input":
            return Why("input", f"{name} was an input of {visit_name(*reader)}", {"name": name})
        if name in HANDED and origin == "word":
            return self.of_result(self._handed(reader), name)
        if origin == "step":
            return self.of_result(self._latest(name, reader, turn), name)
        if origin == "workload":
            given = "the payload" if name in self._payload else "the defaults of the playbook"
            return Why("workload", f"{name} came from the workload, out of {given}", {"name": name})
        return self._of_nobody(name) if origin == "nowhere" else None

    def of_result(self, visit: Visit | None, name: str | None) -> Why | None:
        """Which event carried the result of a visit; `name` is what stood for it in a template, None: nothing did."""
        result = self.journey.results.get(visit) if visit is not None else None
        if visit is None or result is None:
            return None
        whose = f"the result of {visit_name(*visit)}"
        whose = whose if name is None else f"{name} was {whose}"
        facts: dict[str, JSON] = {"name": name, "step": visit[0], "visit": visit[1]}
        if result.name < 0:
            facts["event_id"] = -result.name
            return Why("result", f"{whose}: brought along by this fork (event {-result.name})", facts)
        cause = self.facts.causes.get(result.name)
        facts |= {"turn": result.name, **event_facts(cause)}
        return Why("result", f"{whose}: {event_words(cause, result.name)}", facts)

    def data_of(self, visit: Visit) -> StepResult | None:
        """What a visit gave; None where it has no result, or where that is not known any more."""
        result = self.journey.results.get(visit)
        if result is None:
            return None
        if result.name < 0:
            carried = self.history.taken.get(want_turn(result.name))
            return carried if isinstance(carried, StepResult) else None
        event = next((turn.event for turn in self.history.turns if turn.turn.number == result.name), None)
        return None if event is None else result_of(event.type, event.result, event.error)

    def event_of(self, turn: int) -> str:
        """The event that a turn read, in words."""
        return event_words(self.facts.causes.get(turn), turn)

    def _latest(self, step: str, reader: Visit, turn: int) -> Visit | None:
        """The visit whose result the step's name stood for: the reader's own, or the highest that had one by then."""
        if reader[0] == step and reader in self.journey.results:
            return reader
        visits = [visit for visit, result in self.journey.results.items() if visit[0] == step and result.name <= turn]
        return max(visits, key=lambda visit: visit[1], default=None)

    def _handed(self, reader: Visit) -> Visit | None:
        if reader in self.journey.results:
            return reader
        arrival = self.journey.entered.get(reader)
        return self._visits.get(arrival.result) if arrival is not None and arrival.result is not None else None

    def _of_nobody(self, name: str) -> Why:
        playbook = self.history.playbook
        if not isinstance(playbook, str) and name in playbook.steps:
            return Why("undefined", f"{name} is a step, and had no result", {"name": name})
        return Why("undefined", f"no input, step or key of the workload is called {name}", {"name": name})


def event_words(cause: Cause | None, turn: int) -> str:
    """An event as people are told of it: `action_completed from w1 (event 123, turn 4)`."""
    if cause is None:
        return f"the event of turn {turn}"
    worker = f" from {cause.worker}" if cause.worker else ""
    return f"{cause.type}{worker} (event {cause.event_id}, turn {turn})"


def tell_part(error: JSON) -> tuple[Why, ...]:
    """Whose failure it was of those that a step had started: an item, a child; nothing where it was its own."""
    told = error if isinstance(error, dict) else {}
    index, child, step = told.get("index"), told.get("child_execution_id"), told.get("child_step")
    parts = [f"item {index}"] if isinstance(index, int) else []
    if isinstance(child, int):
        parts.append(f"execution {child}{f', in its step {step}' if step else ''}: noetl-broker explain {child}")
    facts: dict[str, JSON] = {"index": index, "child_execution_id": child, "child_step": step}
    return (Why("part", f"that was {', '.join(parts)}", facts),) if parts else ()


def event_facts(cause: Cause | None) -> dict[str, JSON]:
    """An event as a program is told of it."""
    if cause is None:
        return {}
    return {"event_id": cause.event_id, "event_type": cause.type, "event_at": cause.at, "worker_id": cause.worker}


def _payload(history: History) -> dict[str, JSON]:
    for turn in history.turns:
        if turn.event.kind == EXECUTION_START and isinstance(turn.event.context, dict):
            payload = turn.event.context.get("workload")
            return payload if isinstance(payload, dict) else {}
    return {}

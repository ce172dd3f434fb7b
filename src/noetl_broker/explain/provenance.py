"""The origin of the values of a template: results and their events, inputs, the workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.draft.known import result_of
from noetl_broker.broker.draft.wants import want_turn
from noetl_broker.broker.model.event_types import EXECUTION_START
from noetl_broker.broker.model.values import JSON
from noetl_broker.explain.reason import Reason
from noetl_broker.history.timeline import is_result_of
from noetl_broker.node_ids import visit_name
from noetl_broker.template import StepResult

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.explain.facts import Cause, Facts
    from noetl_broker.history.record import History
    from noetl_broker.history.timeline import Timeline

HANDED = frozenset({"result", "this"})


class Provenance:
    """Answers where a value of one execution came from."""

    def __init__(self, history: History, timeline: Timeline, facts: Facts) -> None:
        self.history = history
        self.timeline = timeline
        self.facts = facts
        self._visits = {result.name: visit for visit, result in timeline.results.items() if result.visit is None}
        self._payload = _payload(history)

    def of_name(self, name: str, origin: str, reader: Visit, turn: int) -> Reason | None:
        """The origin of a name in the `next` of a visit; None if it is obvious."""
        if origin == "input":
            return Reason("input", f"{name} was an input of {visit_name(*reader)}", {"name": name})
        if name in HANDED and origin == "word":
            return self.of_result(self._handed(reader), name)
        if origin == "step":
            return self.of_result(self._latest(name, reader, turn), name)
        if origin == "workload":
            source = "the payload" if name in self._payload else "the workload's defaults"
            return Reason("workload", f"{name} came from {source}", {"name": name})
        return self._of_undefined(name) if origin == "nowhere" else None

    def of_result(self, visit: Visit | None, name: str | None) -> Reason | None:
        """The event that carried the result of a visit; `name` is the template's name for it, if it had one."""
        result = self.timeline.results.get(visit) if visit is not None else None
        if visit is None or result is None:
            return None
        whose = f"the result of {visit_name(*visit)}"
        whose = whose if name is None else f"{name} was {whose}"
        facts: dict[str, JSON] = {"name": name, "step": visit[0], "visit": visit[1]}
        if result.name < 0:
            facts["event_id"] = -result.name
            return Reason("result", f"{whose}: taken over by this fork (event {-result.name})", facts)
        cause = self.facts.causes.get(result.name)
        facts |= {"turn": result.name, **event_facts(cause)}
        says = f"{whose}: {event_text(cause, result.name)}{envelope_note(self.data_of(visit))}"
        return Reason("result", says, facts)

    def data_of(self, visit: Visit) -> StepResult | None:
        """The result of a visit; None if there is none, or if it is no longer known."""
        result = self.timeline.results.get(visit)
        if result is None:
            return None
        if result.name < 0:
            carried = self.history.taken.get(want_turn(result.name))
            return carried if isinstance(carried, StepResult) else None
        turn = next((turn for turn in self.history.turns if turn.turn.number == result.name), None)
        if turn is None:
            return None
        for emitted in turn.events:  # of a wait or an approval, which the broker completes, or of an `output`
            if is_result_of(emitted, visit):
                return result_of(emitted.type, emitted.result, emitted.error)
        return result_of(turn.event.type, turn.event.result, turn.event.error)

    def event_of(self, turn: int) -> str:
        """The event that a turn read, as text."""
        return event_text(self.facts.causes.get(turn), turn)

    def _latest(self, step: str, reader: Visit, turn: int) -> Visit | None:
        """The visit that a step's name meant: the reader itself, or the highest one with a result by then."""
        if reader[0] == step and reader in self.timeline.results:
            return reader
        visits = [visit for visit, result in self.timeline.results.items() if visit[0] == step and result.name <= turn]
        return max(visits, key=lambda visit: visit[1], default=None)

    def _handed(self, reader: Visit) -> Visit | None:
        if reader in self.timeline.results:
            return reader
        arrival = self.timeline.entered.get(reader)
        return self._visits.get(arrival.result) if arrival is not None and isinstance(arrival.result, int) else None

    def _of_undefined(self, name: str) -> Reason:
        playbook = self.history.playbook
        if not isinstance(playbook, str) and name in playbook.steps:
            return Reason("undefined", f"{name} is a step without a result", {"name": name})
        return Reason("undefined", f"{name} is no input, step or workload key", {"name": name})


def envelope_note(result: StepResult | None) -> str:
    """Says that templates see only a part of what the worker returned; empty if they see all."""
    return "; its `data` was taken out of an envelope" if result is not None and result.unwrapped else ""


def event_text(cause: Cause | None, turn: int) -> str:
    """An event as text: `action_completed from w1 (event 123, turn 4)`."""
    if cause is None:
        return f"the event of turn {turn}"
    worker = f" from {cause.worker}" if cause.worker else ""
    return f"{cause.type}{worker} (event {cause.event_id}, turn {turn})"


def explain_failed_part(error: JSON) -> tuple[Reason, ...]:
    """The item or child that failed; nothing where the step itself failed."""
    error = error if isinstance(error, dict) else {}
    index, child, step = error.get("index"), error.get("child_execution_id"), error.get("child_step")
    parts = [f"item {index}"] if isinstance(index, int) else []
    if isinstance(child, int):
        parts.append(f"execution {child}{f', in its step {step}' if step else ''}: noetl-broker explain {child}")
    facts: dict[str, JSON] = {"index": index, "child_execution_id": child, "child_step": step}
    return (Reason("part", f"that was {', '.join(parts)}", facts),) if parts else ()


def event_facts(cause: Cause | None) -> dict[str, JSON]:
    """An event, for a program."""
    if cause is None:
        return {}
    return {"event_id": cause.event_id, "event_type": cause.type, "event_at": cause.at, "worker_id": cause.worker}


def _payload(history: History) -> dict[str, JSON]:
    for turn in history.turns:
        if turn.event.kind == EXECUTION_START and isinstance(turn.event.context, dict):
            payload = turn.event.context.get("workload")
            return payload if isinstance(payload, dict) else {}
    return {}

"""Plans what a fork begins with: the state before the last entry of a step, and the token that enters the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.arrivals.forks import Fork, encode_fork
from noetl_broker.broker.draft.known import Known
from noetl_broker.broker.model.effects import TimerSet
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import Arrival, EndReached, ExecutionState, Hold, is_live
from noetl_broker.errors import BrokerError, HistoryFault, OperatorFault, UnknownStepFault
from noetl_broker.history.fork_inputs import ForkInputs, ForkPoint, TakenResults
from noetl_broker.history.timeline import Timeline, last_entry, trace_turns
from noetl_broker.node_ids import visit_name
from noetl_broker.playbook.diagnostics import did_you_mean
from noetl_broker.template import NotLoaded, TemplateError
from noetl_broker.template.durations import moment_text

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.history.record import History
    from noetl_broker.history.timeline import TracedTurn
    from noetl_broker.playbook.model import Playbook, Step

OF_WAITS = frozenset({"wait", "timeout"})  # purposes of timers


class ForkPlan(NamedTuple):
    """The plan of a fork; `document` goes into its start event, with the results in the store's form."""

    document: dict[str, JSON]
    left_out: tuple[str, ...] = ()  # steps with a result that the fork's playbook does not have

    @property
    def taken(self) -> tuple[str, ...]:
        """The steps of the results that it takes over."""
        return tuple(result["step"] for result in self.document["results"])

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that it enters."""
        return self._entered("repeats")

    @property
    def iterators(self) -> tuple[str, ...]:
        """The iterators that it enters with the items that completed."""
        return self._entered("items")

    def _entered(self, key: str) -> tuple[str, ...]:
        kept = self.document["state"]["hold"]["kept"]
        return tuple(dict.fromkeys(arrival["step"] for arrival in kept if key in arrival))


def plan_fork(
    history: History, name: str, *, playbook: Playbook | None = None, values: Mapping[str, JSON] | None = None
) -> ForkPlan:
    """A fork that goes on from a step, perhaps on another playbook, with `values` as results of steps.

    It takes over the results from before the last entry of the step. If the step was never entered, it takes over all
    results. Raises OperatorFault for an unknown step, BrokerError where the history cannot be replayed.
    """
    values = values or {}
    chosen = playbook or playbook_of(history)
    for step in (name, *values):
        find_step(chosen, step)
    before, entered, due = _before_last_entry(history, name)
    timeline, end = before.timeline, before.state.end
    visit = entered or (name, timeline.latest(name) + 1)
    timeline.remove(visit)
    results = TakenResults(timeline, before.turn, values)
    arrival, is_changed = timeline.entered.get(visit), chosen is not history.playbook or bool(values)
    if arrival is None or is_changed:
        with _refusing(name):
            inputs = ForkInputs(history, before, chosen, results)
            arrival = inputs.arrival_of(visit)
        with _refusing("end"):
            end = inputs.end_again(end) if end is not None and is_changed else end
    if arrival.spent:  # no join spends it: the fork has no other token
        sources = dict.fromkeys(one for token in timeline.incoming.get(visit, ()) for one in token.arrival.sources)
        arrival = arrival._replace(spent=frozenset(), sources=arrival.sources or tuple(sources))
    ends = tuple(step for step in before.state.ends if step not in arrival.sources)
    before = before._replace(state=before.state._replace(waiting={}, ends=ends, end=end))
    enter = arrival._replace(visit=visit[1], due=None if is_changed else due, items=None)
    plan = plan_of(history, chosen, before, (enter,), results)
    _refuse_undone(history, plan)
    return plan


def plan_of(
    history: History, playbook: Playbook, point: ForkPoint, kept: tuple[Arrival, ...], results: TakenResults
) -> ForkPlan:
    """A fork that begins with the state at a point, and delivers the tokens `kept`."""
    timeline, steps, before = point.timeline, playbook.steps, point.state
    state = ExecutionState(
        total=max(timeline.total - sum((one.step, one.visit) in timeline.entered for one in kept), 0),
        waiting=before.waiting,
        ends=tuple(step for step in before.ends if step in steps),
        end=before.end,
        hold=Hold(kept),
    )
    finished = {step: timeline.latest(step) or int(step in results.given) for step in steps}
    visits = {step: number for step, number in finished.items() if number}
    fork = Fork(history.execution_id, point.turn, visits, state)
    carried = [*(arrival.result for arrival in fork.arrivals), None if before.end is None else before.end.result]
    document = encode_fork(fork, playbook.arcs)
    document["results"] = [taken.document() for taken in results.taken(carried, steps)]
    if before.signals:
        document["signals"] = [signal.turn for signal in before.signals]
    return ForkPlan(document, tuple(step for step in results.latest if step not in steps))


def _refuse_undone(history: History, plan: ForkPlan) -> None:
    """Raise OperatorFault if the fork would take over a result that was undone."""
    undone = {node[:2] for node in history.undone}
    for taken in plan.document["results"]:
        if (taken["step"], taken["visit"]) in undone and "set" not in taken:
            name = visit_name(taken["step"], taken["visit"])
            message = f"execution {history.execution_id} undid {name}, or tried to, so no fork takes over its result"
            raise OperatorFault(f"{message}; fork from {taken['step']} or a step before it")


def playbook_of(history: History) -> Playbook:
    """The playbook of a history. Raises BrokerError if there is none, or if it cannot be replayed."""
    if history.broken is not None:
        raise HistoryFault(history.execution_id, history.broken)
    if isinstance(history.playbook, str):
        raise BrokerError(f"execution {history.execution_id} cannot be replayed: {history.playbook}")
    return history.playbook


def find_step(playbook: Playbook, name: str) -> Step:
    """The step of this name. Raises UnknownStepFault if there is none."""
    step = playbook.steps.get(name)
    if step is None:
        hint = did_you_mean(name, [*playbook.steps])
        raise UnknownStepFault(f"playbook {playbook.path} has no step {name}{'; ' if hint else ''}{hint}")
    return step


def _before_last_entry(history: History, name: str) -> tuple[ForkPoint, Visit | None, str | None]:
    """The execution before the step was last entered, that visit, and when the visit, a wait, ends or times out.

    The whole execution where it never was entered.
    """
    playbook = playbook_of(history)
    last, visit = last_entry(history, name) or (history.turns[-1].turn.number, None)
    timeline, state, due = Timeline(), ExecutionState(), None
    known = Known(history.rules, history.taken, complete=True)
    reached: dict[int, EndReached | None] = {}  # by turn: the state forgets the inputs when the execution ends
    for turn in trace_turns(history):
        number = turn.recorded.turn.number
        if not turn.agrees:
            break
        timeline.add(turn, visit if number == last else None)
        if turn.draft is not None:
            reached[number] = turn.draft.state.end
        before_last = number != last and is_live(turn.state.status)
        known, state = turn.known, turn.state._replace(signals=turn.state.signals if before_last else state.signals)
        if number == last:
            due = None if visit is None else dues_of(turn).get(visit)
            break  # results of later turns do not exist yet
    end = reached.get(timeline.done_in.get(("end", timeline.latest("end")), 0)) if name != "end" else None
    return ForkPoint(playbook, last, timeline, known, state._replace(end=end)), visit, due


def dues_of(turn: TracedTurn) -> dict[Visit, str]:
    """When the waits that began in a turn end or time out."""
    return {
        (timer.step, timer.visit): moment_text(timer.due)
        for timer in turn.decision.of(TimerSet)
        if timer.purpose in OF_WAITS
    }


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Raise OperatorFault if the inputs of a step cannot be rendered."""
    try:
        yield
    except TemplateError as fault:
        raise OperatorFault(f"step {name} cannot be entered with these results: {fault}") from fault
    except NotLoaded as missing:
        raise OperatorFault(
            f"step {name} cannot be entered: a transition to it reads what is no longer known: {missing}"
        ) from missing

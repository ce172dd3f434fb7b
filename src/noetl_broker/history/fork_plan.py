"""Plans what a fork takes over: it enters the chosen step once, with the results from before it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.arrivals.forks import Fork, encode_fork
from noetl_broker.broker.arrivals.joins import merge_arrivals
from noetl_broker.broker.arrivals.steps import visit_inputs
from noetl_broker.broker.compensation import undo_of
from noetl_broker.broker.draft.draft import Draft
from noetl_broker.broker.draft.known import Found, Known, result_of
from noetl_broker.broker.draft.wants import want_failed, want_failing, want_step, want_turn
from noetl_broker.broker.initial import TO_START, make_workload
from noetl_broker.broker.model.effects import TimerSet
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import STEP_RESULT
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import (
    FAILED,
    NO_INPUTS,
    RUNNING,
    Arrival,
    EndReached,
    ExecutionState,
    InlineResult,
    RenderedInputs,
    ResultRef,
    is_live,
)
from noetl_broker.broker.writing.inputs import condition_scope, reach, render_inputs
from noetl_broker.errors import BrokerError, HistoryFault, OperatorFault, UnknownStepFault
from noetl_broker.history.timeline import IncomingToken, Timeline, last_entry, trace_turns
from noetl_broker.node_ids import visit_name
from noetl_broker.playbook.diagnostics import did_you_mean
from noetl_broker.playbook.keywords import ERROR
from noetl_broker.template import NotLoaded, TemplateError
from noetl_broker.template.durations import moment_text

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.history.record import History
    from noetl_broker.history.timeline import Result, TracedTurn
    from noetl_broker.playbook.model import Playbook, Step, Target

OF_WAITS = frozenset({"wait", "timeout"})  # purposes of timers
SET_BY_HAND = 2**40  # names of results that an operator gave begin here: no execution has so many turns


class TakenResult(NamedTuple):
    """A result that the fork takes over: its name in the source execution, or the value that an operator gave."""

    step: str
    visit: int
    status: str
    name: int
    by_hand: bool = False
    value: JSON = None
    inline: bool = False  # its step_completed carries it

    @property
    def key(self) -> int | Visit:
        """A key that no other result has."""
        return (self.step, self.visit) if self.inline else self.name


class ForkPlan(NamedTuple):
    """The plan of a fork; `document` goes into its start event, with the results in the store's form."""

    document: dict[str, JSON]
    steps: tuple[str, ...]  # that it enters
    taken: tuple[TakenResult, ...]
    left_out: tuple[str, ...] = ()  # steps with a result that the fork's playbook does not have
    anew: str | None = None  # why a retry starts from the start
    iterators: tuple[str, ...] = ()  # that it enters with the items that completed


class MissingTransition(Exception):
    """A transition that the other playbook does not have: `args` are its source (empty: the start) and its target."""


class BeforeEntry(NamedTuple):
    """The execution just before a step was last entered."""

    timeline: Timeline
    known: Known
    ends: tuple[str, ...]  # of branches
    end: EndReached | None  # the last visit of `end`; None also where the step is `end`
    visit: Visit | None  # that was entered; None if the step never was
    due: str | None  # when that visit, a wait, ends or times out
    signals: tuple[int, ...] = ()  # the turns whose signals were kept


def plan_fork(
    history: History, name: str, *, playbook: Playbook | None = None, values: Mapping[str, JSON] | None = None
) -> ForkPlan:
    """A fork that goes on from a step, perhaps on another playbook, with `values` as results of steps.

    It takes over the results from before the last entry of the step. If the step was never entered, it takes over all
    results. Raises OperatorFault for an unknown step, BrokerError where the history cannot be replayed.
    """
    values = values or {}
    _refuse_undo_execution(history)
    chosen = playbook or playbook_of(history)
    for step in (name, *values):
        find_step(chosen, step)
    before = _before_last_entry(history, name)
    timeline, entered = before.timeline, before.visit
    visit = entered or (name, timeline.latest(name) + 1)
    remove_visit(timeline, visit)
    latest = {each: timeline.latest(each) for each in chosen.steps}
    results = TakenResults(timeline.results, values, latest, steps=chosen.steps)
    arrival, end = timeline.entered.get(visit), before.end
    is_changed = chosen is not history.playbook or bool(values)
    if arrival is None or is_changed:
        with _refusing(name):
            renderer = EntryRenderer(history, timeline, before.known, chosen, results)
            arrival = renderer.arrival_of(visit)
        with _refusing("end"):
            end = renderer.end_again(end) if end is not None and is_changed else end
    arrival = _unspent(arrival, timeline.incoming.get(visit, ()))._replace(
        due=None if is_changed else before.due, items=None
    )
    results.add_latest()
    fork = Fork(
        history.execution_id,
        history.turns[-1].turn.number if entered is None else timeline.entered_in[visit],
        visits={each: max(number, 1) for each, number in latest.items() if number or each in values},
        total=timeline.total - (entered is not None),
        enter=((visit[1], results.renamed(arrival)),),
        ends=tuple(each for each in before.ends if each in chosen.steps and each not in arrival.sources),
        end=results.renamed_end(end),
    )
    left_out = tuple(each for each in results.latest if each not in chosen.steps)
    plan = plan_of(fork, results, left_out, before.signals)
    _refuse_undone(history, plan)
    return plan


def _refuse_undo_execution(history: History) -> None:
    """Raise BrokerError for an execution that undoes what another one did: its steps would run for the first time."""
    undo = undo_of(history.turns[0].event) if history.turns else None
    if undo is None:
        return
    origin = undo.get("origin") or undo.get("execution_id")
    raise BrokerError(
        f"execution {history.execution_id} undoes what execution {origin} did, and ran none of its steps;"
        f" noetl-broker undo {origin} goes on with what is left, noetl-broker fork {origin} --from STEP forks that one"
    )


def _refuse_undone(history: History, plan: ForkPlan) -> None:
    """Raise OperatorFault if the fork would take over a result that was undone."""
    for taken in plan.taken:
        undone = [node for node in history.undone if node[:2] == (taken.step, taken.visit)]
        if undone and not taken.by_hand:
            name = visit_name(taken.step, taken.visit)
            message = f"execution {history.execution_id} undid {name}, or tried to, so no fork takes over its result"
            remedy = f"noetl-broker retry {history.execution_id} starts again with the same payload"
            raise OperatorFault(f"{message}; fork from {taken.step} or a step before it, or {remedy}")


def plan_of(
    fork: Fork, results: TakenResults, left_out: tuple[str, ...] = (), signals: tuple[int, ...] = ()
) -> ForkPlan:
    """The plan; the fork reads kept `signals` as events of its own."""
    document = {**encode_fork(fork), "results": results.documents()}
    if signals:
        document["signals"] = list(signals)
    steps = tuple(dict.fromkeys(arrival.step for _, arrival in fork.enter))
    iterators = tuple(dict.fromkeys(arrival.step for _, arrival in fork.enter if arrival.items is not None))
    return ForkPlan(document, steps, tuple(results.taken()), left_out, iterators=iterators)


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


def _before_last_entry(history: History, name: str) -> BeforeEntry:
    """The execution before the step was last entered, or as a whole where it never was."""
    playbook_of(history)
    found = last_entry(history, name)
    last, visit = found if found is not None else (history.turns[-1].turn.number, None)
    timeline, known = Timeline(), Known(history.rules, history.taken, complete=True)
    ends: tuple[str, ...] = ()
    dues: dict[Visit, str] = {}
    signals: tuple[int, ...] = ()
    reached: dict[int, EndReached | None] = {}  # by turn: the state forgets the inputs when the execution ends
    for turn in trace_turns(history):
        number = turn.recorded.turn.number
        if not turn.agrees:
            break
        timeline.add(turn, visit if number == last else None)
        known, ends = turn.known, turn.state.ends
        if turn.draft is not None:
            reached[number] = turn.draft.state.end
        if number == last:
            dues = dues_of(turn)
            break  # results of later turns do not exist yet
        if is_live(turn.state.status):
            signals = tuple(kept.turn for kept in turn.state.signals)
    end = reached.get(timeline.done_in.get(("end", timeline.latest("end")), 0)) if name != "end" else None
    return BeforeEntry(timeline, known, ends, end, visit, None if visit is None else dues.get(visit), signals)


def dues_of(turn: TracedTurn) -> dict[Visit, str]:
    """When the waits that began in a turn end or time out."""
    return {
        (timer.step, timer.visit): moment_text(timer.due)
        for timer in turn.decision.of(TimerSet)
        if timer.purpose in OF_WAITS
    }


def remove_visit(timeline: Timeline, visit: Visit) -> None:
    """Remove the result of a visit that will be made again."""
    timeline.results.pop(visit, None)
    timeline.done_in.pop(visit, None)


def _unspent(arrival: Arrival, incoming: Iterable[IncomingToken]) -> Arrival:
    """The arrival without a join that spends it: the fork has no other token."""
    if not arrival.spent:
        return arrival
    sources = dict.fromkeys(name for token in incoming for name in token.arrival.sources)
    return arrival._replace(spent=frozenset(), sources=arrival.sources or tuple(sources))


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


class TakenResults:
    """The results that a fork may take over.

    Each taken result gets a position from 1. The fork names it by this position.
    """

    def __init__(
        self,
        results: Mapping[Visit, Result],
        values: Mapping[str, JSON],
        latest: Mapping[str, int],
        *,
        steps: Collection[str],
    ) -> None:
        """Use `values` in place of the latest results of their steps; only results of `steps` are taken."""
        self._steps = steps
        self._named = {
            result.key: TakenResult(step, visit, result.status, result.name, inline=result.visit is not None)
            for (step, visit), result in results.items()
        }
        self._order: list[int | Visit] = []
        self.latest: dict[str, TakenResult] = {}  # by step
        for one in sorted(self._named.values(), key=lambda one: one.visit):
            self.latest[one.step] = one
        for number, (step, value) in enumerate(values.items()):
            replaced = self.latest.get(step)
            visit = replaced.visit if replaced is not None else max(latest.get(step, 0), 1)
            name = replaced.name if replaced is not None else SET_BY_HAND + number
            taken = TakenResult(step, visit, "COMPLETED", name, by_hand=True, value=value)
            self.latest[step] = self._named[name] = taken

    def position(self, name: ResultRef | Visit) -> ResultRef:
        """The position of a result; None if the fork does not take it. An inline result stays."""
        if isinstance(name, InlineResult):
            return name
        if name is None or name not in self._named or self._named[name].step not in self._steps:
            return None
        if name not in self._order:
            self._order.append(name)
        return self._order.index(name) + 1

    def renamed(self, arrival: Arrival) -> Arrival:
        """The arrival, with its result named by position."""
        return arrival._replace(result=self.position(arrival.result))

    def renamed_end(self, end: EndReached | None) -> EndReached | None:
        """The visit of `end`, with its result named by position."""
        return None if end is None else end._replace(result=self.position(end.result))

    def add_latest(self) -> None:
        """Take the latest result of each step."""
        for step in self._steps:
            if step in self.latest:
                self.position(self.latest[step].key)

    def taken(self) -> list[TakenResult]:
        """The taken results, by position."""
        return [self._named[name] for name in self._order]

    def documents(self) -> list[dict[str, JSON]]:
        """The taken results in the store's form: each names a turn or an event, or holds a value."""
        return [_document(one) for one in self.taken()]


def _document(taken: TakenResult) -> dict[str, JSON]:
    document: dict[str, JSON] = {"step": taken.step, "visit": taken.visit, "status": taken.status}
    if taken.by_hand:
        return {**document, "set": taken.value}
    if taken.inline:
        document["inline"] = True
    return {**document, **({"turn": taken.name} if taken.name > 0 else {"source": -taken.name})}


class EntryRenderer:
    """Renders what a fork's step and `end` are given, with the fork's playbook and results."""

    def __init__(
        self, history: History, timeline: Timeline, known: Known, playbook: Playbook, results: TakenResults
    ) -> None:
        """Make the workload. Raises TemplateError if that fails."""
        self._source_playbook = history.playbook
        self._timeline = timeline
        self._results = results
        self.playbook = playbook
        answers = dict(known.answers)
        for taken in results.latest.values():
            if taken.by_hand:
                result = result_of(STEP_RESULT, taken.value, None)
                answers[want_turn(taken.name)] = result
                answers[want_step(taken.step)] = Found(taken.visit, result)
                for want in (want_failed(taken.step, taken.visit), want_failing(taken.step, taken.visit)):
                    answers.pop(want, None)
        known = Known(history.rules, answers, complete=True)
        self._draft = Draft(playbook, ExecutionState(RUNNING), Event(STEP_RESULT), history.turns[-1].turn, known)
        for name, taken in results.latest.items():
            if name in playbook.steps:
                self._draft.state.count_visits(playbook.steps[name], taken.visit)
        make_workload(self._draft, history.workload or {})

    def arrival_of(self, visit: Visit) -> Arrival:
        """The arrival of a visit. Raises TemplateError or NotLoaded."""
        step, incoming = self.playbook.steps[visit[0]], self._timeline.incoming.get(visit)
        return self._arrival_again(step, incoming) if incoming else self._first_arrival(step)

    def end_again(self, end: EndReached) -> EndReached | None:
        """The last visit of `end` with its inputs rendered again. Raises TemplateError or NotLoaded.

        Unchanged where the tokens that made it are not known; None if this playbook has no `end`.
        """
        step = self.playbook.end
        if step is None:
            return None
        visit = (step.name, self._timeline.latest(step.name))
        left, incoming = self._timeline.left.get(visit), self._timeline.incoming.get(visit)
        if step.has_action and left is not None and left.given.values:
            return reach(step, end.result, left.given)
        if not incoming:
            return end
        arrival = self._arrival_again(step, incoming)
        result = end.result if step.has_action else arrival.result
        return reach(step, result, visit_inputs(self._draft, step, arrival))

    def _arrival_again(self, step: Step, incoming: list[IncomingToken]) -> Arrival:
        """The tokens of a visit, with their inputs rendered again, merged."""
        return merge_arrivals([self._again(step, *token) for token in incoming])

    def moved(self, incoming: Iterable[IncomingToken]) -> Arrival:
        """The tokens of a visit, or a waiting token, on the transitions of this playbook; merged.

        Their inputs are rendered again where the visit that they came from is known, and kept otherwise. Raises
        MissingTransition, TemplateError or NotLoaded.
        """
        return merge_arrivals([self._moved(*token) for token in incoming])

    def _moved(self, source: Visit | None, arrival: Arrival) -> Arrival:
        step = self.playbook.steps.get(arrival.step)
        target = None if step is None else self._target(arrival.arc, arrival.step)
        if step is None or (target is None and arrival.arc != TO_START):
            raise MissingTransition(self._source(arrival.arc), arrival.step)
        if source is not None:
            return self._again(step, source, arrival)
        return self._kept(step, arrival)._replace(arc=TO_START if target is None else target.arc)

    def _first_arrival(self, step: Step) -> Arrival:
        """The arrival at a step that was never entered: one arc from each preceding step that has a result.

        Conditions are not evaluated. A join that does not wait for all takes the latest tokens that it needs.
        """
        latest = self._results.latest
        arcs: dict[str, int] = {}
        for arc in self.playbook.arcs:
            if arc.target == step.name and arc.source in latest:
                arcs.setdefault(arc.source, arc.ordinal)
        arrivals = [self._first(source, step) for source in sorted(arcs, key=lambda source: latest[source].name)]
        if not arrivals:
            return Arrival(TO_START, step.name, {})
        return merge_arrivals(arrivals[-step.need :] if step.join in {"any", "each"} else arrivals)

    def _first(self, source: str, step: Step) -> Arrival:
        taken = self._results.latest[source]
        target = [
            *_transitions(self.playbook, source, step.name, catch=taken.status == FAILED),
            *_transitions(self.playbook, source, step.name, catch=taken.status != FAILED),
        ][0]
        name: ResultRef = taken.name
        if taken.inline:
            found = self._draft.known.ask(want_step(source))
            name = InlineResult(found.result.data) if isinstance(found, Found) else None
        given = self._render(target, (source, taken.visit), name)
        return Arrival(target.arc, step.name, given.values, name, (source,))

    def _again(self, step: Step, source: Visit | None, arrival: Arrival) -> Arrival:
        kept = self._kept(step, arrival)
        target = self._target(arrival.arc, step.name)
        if target is None:
            return kept._replace(arc=TO_START)
        # A token without a source came before the fork that this history is of: its visit's inputs are not known.
        visit = source or (self._source(arrival.arc), 0)
        given = self._render(target, visit, arrival.result)
        return kept._replace(arc=target.arc, inputs=given.values)

    def _kept(self, step: Step, arrival: Arrival) -> Arrival:
        """The arrival without the steps that this playbook does not have."""
        steps = self.playbook.steps
        sources = tuple(name for name in arrival.sources if name in steps)
        spent = frozenset(name for name in arrival.spent if name in steps)
        return arrival._replace(step=step.name, sources=sources, spent=spent)

    def _render(self, target: Target, visit: Visit, result: ResultRef) -> RenderedInputs:
        """The inputs of a transition that leaves this visit; `result` is the result that its token carried."""
        step = self.playbook.steps[visit[0]]
        given = NO_INPUTS
        incoming = self._timeline.incoming.get(visit)
        if step.has_action:
            left = self._timeline.left.get(visit)
            given = left.given if left is not None else NO_INPUTS
        elif incoming:
            arrival = self._arrival_again(step, incoming)
            given, result = visit_inputs(self._draft, step, arrival), arrival.result
        if self.playbook.arcs[target.arc].branch == "catch":
            error = None if result is None else self._draft.templates.turn_result(result).error
            scope = condition_scope(self._draft, given, result, {ERROR: error})
        else:
            scope = self._draft.templates.scope(given.values, result)
        return render_inputs(self._draft, target.inputs, scope)

    def _source(self, arc: int) -> str:
        """The step that an arc of the source's playbook leads from; `""` where there is none."""
        if isinstance(self._source_playbook, str) or not 0 <= arc < len(self._source_playbook.arcs):
            return ""
        return self._source_playbook.arcs[arc].source

    def _target(self, arc: int, step: str) -> Target | None:
        """The transition that was taken, in the fork's playbook: by its place among those between the two steps."""
        if isinstance(self._source_playbook, str):
            return None
        source = self._source(arc)
        if not source:
            return None
        catch = self._source_playbook.arcs[arc].branch == "catch"
        before = [target.arc for target in _transitions(self._source_playbook, source, step, catch=catch)]
        now = _transitions(self.playbook, source, step, catch=catch)
        return now[min(before.index(arc), len(now) - 1)] if arc in before and now else None


def _transitions(playbook: Playbook, source: str, target: str, *, catch: bool) -> list[Target]:
    """The transitions from one step to another, in document order; `catch`: the transitions of its `catch`."""
    step = playbook.steps.get(source)
    entries = () if step is None else step.catch if catch else step.next
    return [one for entry in entries for one in (*entry.then, *entry.otherwise) if one.step == target]

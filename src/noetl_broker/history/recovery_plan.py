"""Plans what a retry takes over: the state of a failed execution at its failure.

The plan has the failed visit, the other open visits, and the tokens on arcs and at joins. A retry continues on another
version of the playbook only if that version decides the same up to the failure.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.arrivals.forks import Fork
from noetl_broker.broker.arrivals.steps import NEED_NOT_MET
from noetl_broker.broker.draft.known import ItemState
from noetl_broker.broker.draft.wants import want_all_items, want_item_status
from noetl_broker.broker.initial import TO_START
from noetl_broker.broker.model.effects import ItemEnded
from noetl_broker.broker.model.event_types import EXECUTION_SIGNAL
from noetl_broker.broker.state.state import COMPENSATING, FAILED, Arrival, TakenItems
from noetl_broker.errors import BrokerError, HistoryFault
from noetl_broker.history.compare import Comparison
from noetl_broker.history.fork_plan import (
    EntryRenderer,
    ForkPlan,
    MissingTransition,
    TakenResults,
    dues_of,
    plan_of,
    playbook_of,
    remove_visit,
)
from noetl_broker.history.timeline import IncomingToken, Timeline, trace_turns
from noetl_broker.template import NotLoaded, TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.draft.known import Known
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import EndReached, Token
    from noetl_broker.broker.state.trail import CancelledAtEnd
    from noetl_broker.history.record import History
    from noetl_broker.playbook.model import Playbook


ENDS = frozenset({FAILED, COMPENSATING})  # statuses after the turn that failed


class OtherWay(BrokerError):
    """On another version, an execution would have gone another way before its failure, or cannot go on from there.

    `turn` is the first that differs; `step` is where, and `what` says how.
    """

    def __init__(self, turn: int, step: str, what: str) -> None:
        super().__init__(f"turn {turn}, step {step}: {what}" if step else f"turn {turn}: {what}")
        self.turn, self.step, self.what = turn, step, what


class _Failure(NamedTuple):
    """An execution at its failure: the turn's draft, what it cancelled, the tokens before it, and due moments."""

    timeline: Timeline
    draft: Draft
    lost: CancelledAtEnd
    before: dict[Visit, Token]
    dues: dict[Visit, str]
    known: Known


def plan_recovery(history: History, *, onto: Playbook | None = None) -> ForkPlan:
    """A fork that continues a failed execution from its failure, perhaps `onto` another version of its playbook.

    An execution that failed before its workload was made starts again. Raises BrokerError if it cannot be replayed,
    OtherWay where the other version decides differently before the failure.
    """
    if history.broken is not None:
        raise HistoryFault(history.execution_id, history.broken)
    if history.ended is None or history.ended.status != FAILED:
        raise BrokerError(f"execution {history.execution_id} has not failed: there is nothing to retry")
    if history.workload is None:
        return plan_restart(history, onto)
    if history.undone:
        return plan_restart(history, onto)._replace(anew="it has undone what its actions did")
    playbook = playbook_of(history)
    onto = None if onto is playbook else onto
    failure = _until_failure(history)
    timeline, draft, lost = failure.timeline, failure.draft, failure.lost
    failed = _failed_visit(draft)
    if onto is not None:
        _compare_ways(history, onto, failure, failed)
    if failed is not None:
        remove_visit(timeline, failed)
    if failed is not None and (history.ended.error or {}).get("type") == NEED_NOT_MET:
        failed, timeline.total = None, timeline.total - 1  # its tokens wait again, and are still too few
    results = TakenResults(timeline.results, {}, {}, steps=(onto or playbook).steps)
    enter = _entered(failure, failed)
    repeats = [arrival for arrival in lost.arrivals if arrival.visit]  # of a fork that was queued: not entered yet
    enter += [(arrival.visit, arrival._replace(visit=0)) for arrival in repeats]
    if not enter and not lost.arrivals and not lost.waiting:
        enter.append((1, Arrival(TO_START, (onto or playbook).start.name, {})))
    end = draft.state.end if failed is None or failed[0] != "end" else None
    arrive, waiting, ends = [one for one in lost.arrivals if not one.visit], lost.waiting, tuple(draft.state.ends)
    if onto is not None:
        mover = _Mover(history, failure, onto, results)
        enter = mover.entered(enter)
        arrive = [mover.arrived(one) for one in arrive]
        waiting = {step: tuple(map(mover.arrived, found)) for step, found in waiting.items()}
        end, ends = mover.end(end), tuple(step for step in ends if step in onto.steps)
    enter = [(visit, _with_items(failure, visit, arrival, playbook, onto)) for visit, arrival in enter]
    results.add_latest()
    fork = Fork(
        history.execution_id,
        draft.turn.number,
        visits={step: number for step in (onto or playbook).steps if (number := timeline.latest(step))},
        total=max(timeline.total - len(enter) + len(repeats), 0),
        enter=tuple((visit, results.renamed(arrival)) for visit, arrival in enter),
        arrive=tuple(map(results.renamed, arrive)),
        waiting={step: tuple(map(results.renamed, arrivals)) for step, arrivals in waiting.items()},
        ends=ends,
        end=results.renamed_end(end),
    )
    left_out = tuple(step for step in results.latest if step not in (onto or playbook).steps)
    return plan_of(fork, results, left_out, signals=_signals_at_failure(playbook, draft, failed))


def plan_restart(history: History, playbook: Playbook | None = None) -> ForkPlan:
    """A fork that begins anew with the payload, and takes nothing over: its workload is made again."""
    used = playbook or history.playbook
    start = "start" if isinstance(used, str) else used.start.name
    fork = Fork(history.execution_id, len(history.turns), enter=((1, Arrival(TO_START, start, {})),))
    plan = plan_of(fork, TakenResults({}, {}, {}, steps=()))
    return plan._replace(document={**plan.document, "anew": True})


def _entered(failure: _Failure, failed: Visit | None) -> list[tuple[int, Arrival]]:
    """The visits that were open at the failure, and the failed visit, with their arrivals."""
    entered = failure.timeline.entered
    enter = [
        (visit, entered[step, visit]._replace(spent=token.spent, due=failure.dues.get((step, visit))))
        for (step, visit), token in failure.lost.tokens.items()
        if (step, visit) != failed
    ]
    if failed is not None:
        token = failure.before.get(failed)
        enter.append((failed[1], entered[failed] if token is None else entered[failed]._replace(spent=token.spent)))
    return enter


def _with_items(failure: _Failure, visit: int, arrival: Arrival, playbook: Playbook, onto: Playbook | None) -> Arrival:
    """The arrival of a visit that is repeated; one of an iterator takes over its items and results."""
    name, known = arrival.step, failure.known
    values = known.answers.get(want_all_items(name, visit))
    steps = [one.steps.get(name) for one in (playbook, onto) if one is not None]
    if not isinstance(values, list) or any(step is None or step.waits_for != "items" for step in steps):
        return arrival._replace(items=None)
    ended = {(end.step, end.visit, end.item_index): end.status for end in failure.draft.writes.added(ItemEnded)}
    entered = failure.timeline.entered.get((name, visit))
    before = entered.items if entered is not None else None
    done = set(range(len(values))).difference(before.indexes) if before is not None else set()
    for index in range(len(values)):
        stands = known.answers.get(want_item_status(name, visit, index))
        status = ended.get((name, visit, index), stands.status if isinstance(stands, ItemState) else "")
        if status == "COMPLETED":
            done.add(index)
    again = sum(1 << index for index in range(len(values)) if index not in done)
    return arrival._replace(items=TakenItems(len(values), f"{again:x}") if done else None)


def _compare_ways(history: History, onto: Playbook, failure: _Failure, failed: Visit | None) -> None:
    """Raises OtherWay if the other version decides a turn before the failure differently.

    In the turn that failed it must come to what a retry enters; there it may end the failed visit in another way.
    """
    comparison = Comparison(history, onto, ways_only=True)
    timeline, last = failure.timeline, failure.draft.turn.number
    for recorded in history.turns:
        number = recorded.turn.number
        if number < last:
            found = comparison.apply(recorded)
        else:
            open_visits = [*failure.lost.tokens, *([failed] if failed is not None else [])]
            reached = [visit[0] for visit in open_visits if timeline.entered_in.get(visit) == last]
            found = comparison.apply_failure(recorded, [*reached, *(one.step for one in failure.lost.arrivals)])
        if found is not None:
            because = f", because {found.because}" if found.because else ""
            raise OtherWay(number, found.step, f"{found.was} → {found.instead}{because}")
        if number == last:
            return


class _Mover:
    """Puts the tokens of an execution onto another version of its playbook, with inputs that are rendered again."""

    def __init__(self, history: History, failure: _Failure, onto: Playbook, results: TakenResults) -> None:
        """Raises OtherWay if the other version cannot make the workload."""
        self._failure, self._onto = failure, onto
        self._steps = history.playbook.steps if not isinstance(history.playbook, str) else {}
        self._turn = failure.draft.turn.number
        with self._explaining(""):
            self._renderer = EntryRenderer(history, failure.timeline, failure.known, onto, results)

    def entered(self, enter: list[tuple[int, Arrival]]) -> list[tuple[int, Arrival]]:
        """The visits to enter. A wait that both versions write in the same way keeps its moment."""
        moved = []
        for visit, arrival in enter:
            incoming = self._failure.timeline.incoming.get((arrival.step, visit), [IncomingToken(None, arrival)])
            with self._explaining(arrival.step):
                again = self._renderer.moved(incoming)
            was, edited = self._steps.get(arrival.step), self._onto.steps[arrival.step]
            due = arrival.due if was is not None and was.wait == edited.wait else None
            spent = frozenset(name for name in arrival.spent if name in self._onto.steps)
            moved.append((visit, again._replace(spent=spent, due=due)))
        return moved

    def arrived(self, arrival: Arrival) -> Arrival:
        """A token on an arc, or at a join."""
        token = self._failure.timeline.take(arrival)
        with self._explaining(arrival.step):
            return self._renderer.moved([IncomingToken(token.source if token is not None else None, arrival)])

    def end(self, end: EndReached | None) -> EndReached | None:
        """The last visit of `end`, with its inputs."""
        with self._explaining("end"):
            return None if end is None else self._renderer.end_again(end)

    @contextmanager
    def _explaining(self, step: str) -> Iterator[None]:
        try:
            yield
        except MissingTransition as fault:
            source, target = fault.args
            missing = f"no transition from {source} to {target}" if source else f"no step {target}"
            raise OtherWay(self._turn, step, f"the other version has {missing}") from fault
        except (TemplateError, NotLoaded) as fault:
            raise OtherWay(self._turn, step, f"its inputs cannot be rendered: {fault}") from fault


def _signals_at_failure(playbook: Playbook, draft: Draft, failed: Visit | None) -> tuple[int, ...]:
    """The turns whose signals were kept, with the turn that completed the failed wait."""
    took = failed is not None and draft.event.kind == EXECUTION_SIGNAL and playbook.steps[failed[0]].wait is not None
    return (*(kept.turn for kept in draft.state.signals), *([draft.turn.number] if took else ()))


def _until_failure(history: History) -> _Failure:
    """The execution at its failure. Raises BrokerError if this version of the program decides a turn differently."""
    timeline, number = Timeline(), 0
    dues: dict[Visit, str] = {}
    before: dict[Visit, Token] = {}
    for turn in trace_turns(history):
        number = turn.recorded.turn.number
        if not turn.agrees:
            break
        timeline.add(turn)
        dues |= dues_of(turn)
        draft = turn.draft
        if draft is not None and draft.cancelled_at_end is not None and draft.state.status in ENDS:
            return _Failure(timeline, draft, draft.cancelled_at_end, before, dues, turn.known)
        before = turn.state.tokens
    raise BrokerError(
        f"execution {history.execution_id} cannot be replayed up to its failure: this version decides turn {number}"
        f" differently (see noetl-broker replay {history.execution_id});"
        f" noetl-broker fork {history.execution_id} --from STEP continues it"
    )


def _failed_visit(draft: Draft) -> Visit | None:
    """The visit whose failure ended the execution; None if none did (a deadline, a limit).

    A visit that failed in the same turn and continued by its `on_error` has another error than the execution.
    """
    error = draft.writes.ended.error if draft.writes.ended is not None else None
    if draft.state.compensation is not None:
        error = draft.state.compensation.error
    failed = [event for event in draft.writes.events if event.type == "step_failed" and event.error == error]
    return (failed[-1].step or "", failed[-1].visit) if failed else None

"""What a fork takes over, found out from the history of the execution that it comes from.

A fork enters the step that is asked for, once, with the results from before. A retry of a failed execution takes over
all that lived when it failed: the failed visit, the visits beside it, and what waited at joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.again import World
from noetl_broker.broker.context import Known
from noetl_broker.broker.forks import Fork, encode_fork
from noetl_broker.broker.initial import TO_START
from noetl_broker.broker.journey import Component, Journey, last_entry, walk
from noetl_broker.broker.model import JSON
from noetl_broker.broker.shelf import Shelf, Wanted
from noetl_broker.broker.state import FAILED, Arrival, Reached
from noetl_broker.errors import BrokerError, HistoryFault, OperatorFault
from noetl_broker.playbook.suggestions import did_you_mean
from noetl_broker.template import NotLoaded, TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.history import History
    from noetl_broker.broker.state import Token, Visit
    from noetl_broker.broker.trail import Lost
    from noetl_broker.playbook.model import Playbook, Step


class Before(NamedTuple):
    """What was before a step was entered last: the way, the results, the ends of branches, the last visit of `end`."""

    journey: Journey
    known: Known
    ends: tuple[str, ...]
    end: Reached | None  # None too where it is the step itself


class Plan(NamedTuple):
    """What a fork takes over; `document` is what its start event says, with the results as the store finds them."""

    document: dict[str, JSON]
    steps: tuple[str, ...]  # that are entered
    taken: tuple[Wanted, ...]
    left_out: tuple[str, ...] = ()  # steps with a result that the fork's playbook does not have


def plan_fork(
    history: History, name: str, *, playbook: Playbook | None = None, values: Mapping[str, JSON] | None = None
) -> Plan:
    """A fork that goes on from the step, on another playbook if one is given, with `values` as results of steps.

    It takes over the results of the steps that were done before the step was entered last (all of them, where it never
    was). Raises OperatorFault for a step that is not there, BrokerError where the history cannot be followed.
    """
    values = values or {}
    chosen = playbook or _playbook(history)
    for asked in (name, *values):
        _step(chosen, asked)
    before, entered = _until(history, name)
    journey = before.journey
    visit = entered or (name, journey.latest(name) + 1)
    _forget(journey, visit)
    latest = {each: journey.latest(each) for each in chosen.steps}
    shelf = Shelf(journey.results, values, latest, steps=chosen.steps)
    arrival, end = journey.entered.get(visit), before.end
    is_other = chosen is not history.playbook or bool(values)
    if arrival is None or is_other:
        with _refused(name):
            world = World(history, journey, before.known, chosen, shelf)
            arrival = world.arrive(visit)
        with _refused("end"):
            end = world.reach_again(end) if end is not None and is_other else end
    arrival = _unspent(arrival, journey.components.get(visit, ()))
    shelf.take_latest(chosen.steps)
    fork = Fork(
        history.execution_id,
        history.turns[-1].turn.number if entered is None else journey.entered_in[visit],
        visits={each: max(number, 1) for each, number in latest.items() if number or each in values},
        total=journey.total - (entered is not None),
        enter=((visit[1], shelf.placed(arrival)),),
        ends=tuple(each for each in before.ends if each in chosen.steps and each not in arrival.sources),
        end=_placed(end, shelf),
    )
    left_out = tuple(each for each in shelf.of_step if each not in chosen.steps)
    return _plan(fork, shelf, left_out)


def plan_retry(history: History) -> Plan:
    """A fork that brings a failed execution back from where it failed; raises BrokerError where it cannot be followed.

    One that failed at its start, before its workload was made, starts again.
    """
    if history.broken is not None:
        raise HistoryFault(history.execution_id, history.broken)
    if history.ended is None or history.ended.status != FAILED:
        raise BrokerError(f"execution {history.execution_id} has not failed: there is nothing to retry")
    if history.workload is None:
        playbook = history.playbook
        start = playbook.start.name if not isinstance(playbook, str) else "start"
        fork = Fork(history.execution_id, len(history.turns), enter=((1, Arrival(TO_START, start, {})),))
        return _plan(fork, Shelf({}, {}, {}, steps=()))
    playbook = _playbook(history)
    journey, draft, lost, before = _to_the_failure(history)
    failed = _failed_visit(draft)
    if failed is not None:
        _forget(journey, failed)
    shelf = Shelf(journey.results, {}, {}, steps=playbook.steps)
    enter = [
        (visit, journey.entered[step, visit]._replace(spent=token.spent))
        for (step, visit), token in lost.tokens.items()
        if (step, visit) != failed
    ]
    if failed is not None:
        entered, token = journey.entered[failed], before.get(failed)
        enter.append((failed[1], entered if token is None else entered._replace(spent=token.spent)))
    if not enter and not lost.arrivals and not lost.waiting:
        enter.append((1, Arrival(TO_START, playbook.start.name, {})))
    end = draft.end if failed is None or failed[0] != "end" else None
    shelf.take_latest(playbook.steps)
    fork = Fork(
        history.execution_id,
        draft.turn.number,
        visits={step: number for step in playbook.steps if (number := journey.latest(step))},
        total=max(journey.total - len(enter), 0),
        enter=tuple((visit, shelf.placed(arrival)) for visit, arrival in enter),
        arrive=tuple(map(shelf.placed, lost.arrivals)),
        waiting={step: tuple(map(shelf.placed, arrivals)) for step, arrivals in lost.waiting.items()},
        ends=tuple(draft.ends),
        end=_placed(end, shelf),
    )
    return _plan(fork, shelf)


def _placed(end: Reached | None, shelf: Shelf) -> Reached | None:
    return None if end is None else end._replace(result=shelf.place(end.result))


def _plan(fork: Fork, shelf: Shelf, left_out: tuple[str, ...] = ()) -> Plan:
    document = {**encode_fork(fork), "results": shelf.documents()}
    steps = tuple(dict.fromkeys(arrival.step for _, arrival in fork.enter))
    return Plan(document, steps, tuple(shelf.taken()), left_out)


def _playbook(history: History) -> Playbook:
    if history.broken is not None:
        raise HistoryFault(history.execution_id, history.broken)
    if isinstance(history.playbook, str):
        raise BrokerError(f"execution {history.execution_id} cannot be followed: {history.playbook}")
    return history.playbook


def _step(playbook: Playbook, name: str) -> Step:
    step = playbook.steps.get(name)
    if step is None:
        hint = did_you_mean(name, [*playbook.steps])
        raise OperatorFault(f"playbook {playbook.path} has no step {name}{'; ' if hint else ''}{hint}")
    return step


def _until(history: History, name: str) -> tuple[Before, Visit | None]:
    """What was before the step was entered last, and that visit; None where it never was."""
    _playbook(history)
    found = last_entry(history, name)
    last = found[0] if found is not None else history.turns[-1].turn.number
    journey, known = Journey(), Known(history.rules, history.taken, complete=True)
    ends: tuple[str, ...] = ()
    reached: dict[int, Reached | None] = {}  # by turn: the state forgets the inputs where the execution ended
    for walked in walk(history):
        number = walked.recorded.turn.number
        if not walked.agrees:
            break
        journey.follow(walked, found[1] if found is not None and number == last else None)
        known, ends = walked.known, walked.state.ends
        if walked.draft is not None:
            reached[number] = walked.draft.end
        if number == last:
            break  # what the turns after it make known is not known yet
    end = reached.get(journey.left_in.get(("end", journey.latest("end")), 0)) if name != "end" else None
    return Before(journey, known, ends, end), found[1] if found is not None else None


def _to_the_failure(history: History) -> tuple[Journey, Draft, Lost, dict[Visit, Token]]:
    """The way up to the turn that failed the execution, that turn's draft, what it ended, and the tokens before it."""
    journey, turn = Journey(), 0
    before: dict[Visit, Token] = {}
    for walked in walk(history):
        turn = walked.recorded.turn.number
        if not walked.agrees:
            break
        journey.follow(walked)
        draft = walked.draft
        if draft is not None and draft.lost is not None and draft.status == FAILED:
            return journey, draft, draft.lost, before
        before = walked.state.tokens
    raise BrokerError(
        f"execution {history.execution_id} cannot be followed to its failure: by the rules of this program its turn"
        f" {turn} would go otherwise (noetl-broker replay {history.execution_id} shows how);"
        f" noetl-broker fork {history.execution_id} --from STEP brings it back"
    )


def _failed_visit(draft: Draft) -> Visit | None:
    """The visit whose failure ended the execution; None where none did (a deadline, a turn that was too wide).

    One that failed in the same turn and was let go by its `on_error` has another error than the execution.
    """
    error = draft.ended.error if draft.ended is not None else None
    failed = [event for event in draft.events if event.type == "step_failed" and event.error == error]
    return (failed[-1].step or "", failed[-1].visit) if failed else None


def _forget(journey: Journey, visit: Visit) -> None:
    """The visit is made again: what it gave counts no more."""
    journey.results.pop(visit, None)
    journey.left_in.pop(visit, None)


def _unspent(arrival: Arrival, came: Iterable[Component]) -> Arrival:
    """It is the fork's only token: there is no race that it could have lost."""
    if not arrival.spent:
        return arrival
    left = dict.fromkeys(name for component in came for name in component.arrival.sources)
    return arrival._replace(spent=frozenset(), sources=arrival.sources or tuple(left))


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Raise OperatorFault where a transition into the step cannot be rendered in another world."""
    try:
        yield
    except TemplateError as fault:
        raise OperatorFault(f"step {name} cannot be entered with these results: {fault}") from fault
    except NotLoaded as missing:
        raise OperatorFault(
            f"step {name} cannot be entered: a transition into it reads what is not known any more: {missing}"
        ) from missing

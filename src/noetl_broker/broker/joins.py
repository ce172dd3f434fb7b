"""Arrivals and joins: when tokens that come together wait for each other (spec section 2).

`all` waits until no other live token can still reach it by the graph; `any` runs at the first arrival and spends the
others; `each` runs for every arrival; `end` without a `join` of its own waits until nothing else lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.entering import enter_step
from noetl_broker.broker.given import Given, lay_over
from noetl_broker.broker.state import Arrival, Token, Visit
from noetl_broker.broker.trail import Absorbed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from noetl_broker.broker.draft import Draft
    from noetl_broker.playbook.graph import Graph
    from noetl_broker.playbook.model import Playbook, Step


def deliver(draft: Draft, arrival: Arrival) -> None:
    """A token comes to the end of its arc: it enters the step, waits before it, or ends silently if it was spent."""
    step = draft.playbook.steps[arrival.step]
    if step.name in arrival.spent:
        draft.trail.append(Absorbed(arrival))
        return
    if step.join == "all" or (step is draft.playbook.end and step.join is None):
        draft.waiting[step.name] = (*draft.waiting.get(step.name, ()), arrival)
        return
    if step.join == "any":
        _spend_others(draft, step)
    enter_step(draft, step, arrival)


def release_join(draft: Draft) -> bool:
    """Release the one join that is next, if any is ready: its arrivals become one visit."""
    if not draft.waiting:
        return False
    order = draft.playbook.steps
    waiting = sorted((order[name] for name in draft.waiting), key=lambda step: step.index)
    for step in waiting:
        if _is_ready(draft, step):
            arrival = merge_arrivals(draft.waiting.pop(step.name))
            enter_step(draft, step, arrival)
            return True
    return False


def _is_ready(draft: Draft, step: Step) -> bool:
    tokens, joins = holding(draft.playbook, step, draft.tokens, draft.waiting)
    return next(joins, None) is None and next(tokens, None) is None


def holding(
    playbook: Playbook, step: Step, tokens: Mapping[Visit, Token], waiting: Mapping[str, tuple[Arrival, ...]]
) -> tuple[Iterator[Visit], Iterator[str]]:
    """Running tokens and other waiting joins that can still come to a waiting join, or to its group."""
    if step is playbook.end and step.join is None:
        return iter(tokens), (name for name in waiting if name != step.name)
    graph, reach = playbook.graph, reach_of(playbook.graph, waiting)
    group = {step.name} | {other for other in reach[step.name] if step.name in reach[other]}
    visits = (
        visit
        for visit, token in tokens.items()
        if any(graph.can_reach(token.step, member, avoiding=token.spent) for member in group)
    )
    return visits, (other for other in reach if other not in group and step.name in reach[other])


def reach_of(graph: Graph, waiting: Mapping[str, tuple[Arrival, ...]]) -> dict[str, set[str]]:
    """Which waiting joins each waiting join can reach, by way of other waiting ones too.

    With spent tokens "reaches" does not carry over by itself; closed, no joins keep each other waiting in a ring.
    """
    spent = {name: _spent(arrivals) for name, arrivals in waiting.items()}
    reach = {name: {other for other in spent if graph.can_reach(name, other, avoiding=spent[name])} for name in spent}
    for via in spent:
        for reached in reach.values():
            if via in reached:
                reached.update(reach[via])
    return reach


def merge_arrivals(arrivals: Sequence[Arrival]) -> Arrival:
    """One arrival of several: inputs in the order of their arcs, the result of the last, spent only if all were."""
    ordered = sorted(arrivals, key=lambda arrival: arrival.arc)
    last = ordered[-1]
    if len(ordered) == 1:
        return last
    given = Given({})
    for arrival in ordered:
        given = lay_over(given, Given(arrival.inputs, arrival.left))
    sources = tuple(dict.fromkeys(source for arrival in ordered for source in arrival.sources))
    passed = frozenset().union(*(arrival.passed for arrival in ordered))
    return Arrival(last.arc, last.step, given.values, last.result, sources, _spent(ordered), passed, given.left)


def _spent(arrivals: Iterable[Arrival]) -> frozenset[str]:
    """For which joins a token merged of these is spent: those for which all of them are."""
    return frozenset.intersection(*(arrival.spent for arrival in arrivals))


def _spend_others(draft: Draft, join: Step) -> None:
    """Every other live token that can still reach the join is spent for it: running, waiting, or on an arc.

    What waits before one step will be one token, and is judged as that one: all of it is spent, or nothing.
    """
    graph, name = draft.playbook.graph, join.name
    for visit, token in draft.tokens.items():
        if graph.can_reach(token.step, name, avoiding=token.spent):
            draft.tokens[visit] = token._replace(spent=token.spent | {name})
    for step, arrivals in draft.waiting.items():
        if graph.can_reach(step, name, avoiding=_spent(arrivals)):
            draft.waiting[step] = tuple(_spent_for(arrival, name) for arrival in arrivals)
    on_arcs = [_spend(draft, arrival, name) for arrival in draft.arrivals]
    draft.arrivals.clear()
    draft.arrivals.extend(on_arcs)


def _spend(draft: Draft, arrival: Arrival, join: str) -> Arrival:
    reaches = arrival.step == join or draft.playbook.graph.can_reach(arrival.step, join, avoiding=arrival.spent)
    return _spent_for(arrival, join) if reaches else arrival


def _spent_for(arrival: Arrival, join: str) -> Arrival:
    """The arrival, spent for the join: what it stands for is no part of the result any more."""
    return arrival._replace(spent=arrival.spent | {join}, sources=())

"""Joins: when a step runs to which several transitions lead.

| join | the step runs |
|---|---|
| `all` | once, when no other token can still reach it in the graph |
| `any`, or `need: 1` | at the first arrival; the other tokens that can reach it are spent for it |
| `need: N` | at the Nth arrival, as above; it fails when no more can come |
| `each` | at each arrival |
| none, of `end` | once, when nothing else is running or waiting |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.arrivals.steps import are_all_ways_spent, enter_step, fail_short_join
from noetl_broker.broker.flow.cancel import cancel_arrivals, cancel_visit
from noetl_broker.broker.flow.failures import spent_joins
from noetl_broker.broker.model.values import Visit
from noetl_broker.broker.state.state import Arrival, Token
from noetl_broker.broker.state.trail import SpentAtJoin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.values import JSON
    from noetl_broker.playbook.graph import Graph
    from noetl_broker.playbook.model import Playbook, Step


def deliver(draft: Draft, arrival: Arrival) -> None:
    """Deliver a token to a step: it enters, waits for others, or ends because it is spent for this join."""
    step = draft.playbook.steps[arrival.step]
    if arrival.visit:
        enter_step(draft, step, arrival, arrival.visit)
        return
    if step.name in arrival.spent:
        draft.trail.append(SpentAtJoin(arrival))
        return
    if step.join == "all" or (step is draft.playbook.end and step.join is None):
        draft.state.waiting[step.name] = (*draft.state.waiting.get(step.name, ()), arrival)
    elif step.join == "any":
        _count_arrival(draft, step, arrival)
    else:
        enter_step(draft, step, arrival)


def _count_arrival(draft: Draft, step: Step, arrival: Arrival) -> None:
    """Let the arrival wait, or release the join if it needs no more."""
    gathered = (*draft.state.waiting.get(step.name, ()), arrival)
    if len(gathered) < step.need:
        draft.state.waiting[step.name] = gathered
        return
    draft.state.waiting.pop(step.name, None)
    if step.losers == "cancel":
        _cancel_losers(draft, step)
    else:
        _mark_other_tokens_spent(draft, step)
    enter_step(draft, step, merge_arrivals(gathered), gathered=gathered)


def release_join(draft: Draft) -> bool:
    """Release the first join that is ready: its arrivals become one visit. False if none is ready.

    A join that counts its arrivals fails then, because no more can come. Other joins are released first: one of them
    may lead to it.
    """
    if not draft.state.waiting:
        return False
    order = draft.playbook.steps
    waiting = sorted((order[name] for name in draft.state.waiting), key=lambda step: (step.join == "any", step.index))
    for step in waiting:
        if _is_ready(draft, step):
            gathered = draft.state.waiting[step.name]
            if step.join == "any":
                fail_short_join(draft, step, merge_arrivals(gathered), gathered)
                draft.state.waiting.pop(step.name, None)  # unless the execution failed, which keeps it for a retry
            else:
                del draft.state.waiting[step.name]
                enter_step(draft, step, merge_arrivals(gathered), gathered=gathered)
            return True
    return False


def _is_ready(draft: Draft, step: Step) -> bool:
    tokens, joins = waits_for(draft.playbook, step, draft.state.tokens, draft.state.waiting)
    return next(joins, None) is None and next(tokens, None) is None


def waits_for(
    playbook: Playbook, step: Step, tokens: Mapping[Visit, Token], waiting: Mapping[str, tuple[Arrival, ...]]
) -> tuple[Iterator[Visit], Iterator[str]]:
    """The open visits and the other waiting joins for which a waiting join, or its group, still waits."""
    if step is playbook.end and step.join is None:
        return (visit for visit, token in tokens.items() if not token.draining), (
            name for name in waiting if name != step.name
        )
    graph, reach = playbook.graph, reachable_joins(playbook.graph, waiting)
    group = {step.name} | {other for other in reach[step.name] if step.name in reach[other]}
    visits = (
        visit
        for visit, token in tokens.items()
        if not token.draining and any(_may_arrive(graph, token.step, member, token.spent) for member in group)
    )
    return visits, (other for other in reach if other not in group and step.name in reach[other])


def reachable_joins(graph: Graph, waiting: Mapping[str, tuple[Arrival, ...]]) -> dict[str, set[str]]:
    """The waiting joins that each waiting join can reach, also through other waiting joins.

    Spent tokens break transitivity, so the closure is computed. Joins that reach each other form one group: else they
    would wait for each other for ever.
    """
    spent = {name: _joins_spent_for_all(arrivals) for name, arrivals in waiting.items()}
    reach = {name: {other for other in spent if _may_arrive(graph, name, other, spent[name])} for name in spent}
    for via in spent:
        for reached in reach.values():
            if via in reached:
                reached.update(reach[via])
    return reach


def _may_arrive(graph: Graph, source: str, join: str, spent: frozenset[str]) -> bool:
    """Whether a token at `source` that is spent for these joins can still arrive at a join and count there."""
    return join not in spent and graph.can_reach(source, join, avoiding=spent)


def merge_arrivals(arrivals: Sequence[Arrival]) -> Arrival:
    """Merge arrivals: inputs in the order of the arcs, the result of the last arc, spent if all are spent."""
    ordered = sorted(arrivals, key=lambda arrival: arrival.arc)
    last = ordered[-1]
    if len(ordered) == 1:
        return last
    inputs: dict[str, JSON] = {}
    for arrival in ordered:
        inputs |= arrival.inputs
    sources = tuple(dict.fromkeys(source for arrival in ordered for source in arrival.sources))
    passed = frozenset().union(*(arrival.passed for arrival in ordered))
    return Arrival(last.arc, last.step, inputs, last.result, sources, _joins_spent_for_all(ordered), passed)


def _joins_spent_for_all(arrivals: Iterable[Arrival]) -> frozenset[str]:
    """The joins for which all of these arrivals are spent."""
    return frozenset.intersection(*(arrival.spent for arrival in arrivals))


def _mark_other_tokens_spent(draft: Draft, join: Step) -> None:
    """Mark every other token that can reach the join as spent for it: open visits, waiting tokens, tokens on arcs.

    The tokens that wait at one step will be one token, so either all of them are spent or none. A visit that waits for
    something outside is cancelled if its result can have no effect any more.
    """
    graph, name = draft.playbook.graph, join.name
    for visit, token in [*draft.state.tokens.items()]:
        if not token.draining and graph.can_reach(token.step, name, avoiding=token.spent):
            marked = draft.state.tokens[visit] = token._replace(spent=token.spent | {name})
            if are_all_ways_spent(draft.playbook, token.step, marked.spent):
                cancel_visit(draft, visit, spent_joins(draft, draft.playbook.steps[token.step], marked.spent))
    for step, arrivals in draft.state.waiting.items():
        if graph.can_reach(step, name, avoiding=_joins_spent_for_all(arrivals)):
            draft.state.waiting[step] = tuple(_mark_spent(arrival, name) for arrival in arrivals)
    on_arcs = [_mark_spent_if_it_reaches(draft, arrival, name) for arrival in draft.arrivals]
    draft.arrivals.clear()
    draft.arrivals.extend(on_arcs)


def _cancel_losers(draft: Draft, join: Step) -> None:
    """Cancel every other token that can reach the join; if it is `end`, all other tokens."""
    graph, name = draft.playbook.graph, join.name

    def loses(step: str, spent: frozenset[str]) -> bool:
        return join is draft.playbook.end or graph.can_reach(step, name, avoiding=spent)

    for visit, token in [*draft.state.tokens.items()]:
        if not token.draining and loses(token.step, token.spent):
            cancel_visit(draft, visit, [name])
    for step, arrivals in [*draft.state.waiting.items()]:
        if loses(step, _joins_spent_for_all(arrivals)):
            cancel_arrivals(draft, draft.state.waiting.pop(step), name)
    on_arcs = [*draft.arrivals]
    draft.arrivals.clear()
    for arrival in on_arcs:
        if arrival.step == name or loses(arrival.step, arrival.spent):
            cancel_arrivals(draft, (arrival,), name)
        else:
            draft.arrivals.append(arrival)


def _mark_spent_if_it_reaches(draft: Draft, arrival: Arrival, join: str) -> Arrival:
    reaches = arrival.step == join or draft.playbook.graph.can_reach(arrival.step, join, avoiding=arrival.spent)
    return _mark_spent(arrival, join) if reaches else arrival


def _mark_spent(arrival: Arrival, join: str) -> Arrival:
    """The arrival, spent for the join: its data is no part of the result."""
    return arrival._replace(spent=arrival.spent | {join}, sources=())

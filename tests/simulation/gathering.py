"""How tokens come together, naively: who can still reach what, and which waiting join runs next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.simulation.tokens import Arc, Token


def merged(tokens: Sequence[Token]) -> Token:
    """Merge what a step gathered: inputs in the order of the arcs, the result of the last; spent only if all were."""
    in_order = sorted(tokens, key=lambda token: token.arc)
    whole = Token(step=tokens[0].step, result=in_order[-1].result)
    whole.origins = frozenset().union(*(token.origins for token in tokens))
    whole.passed = frozenset().union(*(token.passed for token in tokens))
    whole.spent = frozenset.intersection(*(token.spent for token in tokens))
    for token in in_order:
        whole.given |= token.given
    whole.inputs = whole.given
    return whole


def reach(arcs: Sequence[Arc], token: Token) -> set[str]:
    """Return the steps that a token can come to by an arc or more; it ends at the joins that it is spent for."""
    found: set[str] = set()
    edge = [token.step]
    while edge:
        source = edge.pop()
        for arc in arcs:
            if arc.source == source and arc.target not in found and arc.target not in token.spent:
                found.add(arc.target)
                edge.append(arc.target)
    return found


def ready(arcs: Sequence[Arc], joins: Sequence[str], waiting: Sequence[Token], running: Sequence[Token]) -> str | None:
    """Return the join to run next: of a group that nothing outside it can reach, the first in the document.

    `joins` are those that wait, in the order of the document.
    """
    by_join = {name: merged([token for token in waiting if token.step == name]) for name in joins}
    reached = {name: reach(arcs, token) for name, token in by_join.items()}
    by_running = set().union(*(reach(arcs, token) for token in running))
    for name in joins:
        group = _group(name, joins, reached)
        by_others = set().union(*(reached[other] for other in joins if other not in group))
        if not group & (by_running | by_others):
            return name
    return None


def _group(name: str, joins: Sequence[str], reached: Mapping[str, set[str]]) -> set[str]:
    """Return the joins that a join can reach, over joins that wait, and that can reach it."""
    closure = {one: {one} | (reached[one] & set(joins)) for one in joins}
    for _ in joins:
        closure = {one: set().union(*(closure[other] for other in found)) for one, found in closure.items()}
    return {other for other in closure[name] if name in closure[other]}

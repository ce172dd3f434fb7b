"""Joins of the reference: which steps a token can reach, and which waiting join runs next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.simulation.reference_model import Arc, Token


def merge(tokens: Sequence[Token]) -> Token:
    """Merge the tokens at a join: inputs in the order of the arcs, the result of the last; spent if all are."""
    by_arc = sorted(tokens, key=lambda token: token.arc)
    result_token = Token(step=tokens[0].step, result=by_arc[-1].result)
    result_token.origins = frozenset().union(*(token.origins for token in tokens))
    result_token.passed = frozenset().union(*(token.passed for token in tokens))
    result_token.spent = frozenset.intersection(*(token.spent for token in tokens))
    for token in by_arc:
        result_token.arc_inputs |= token.arc_inputs
    result_token.inputs = result_token.arc_inputs
    return result_token


def reachable_steps(arcs: Sequence[Arc], token: Token) -> set[str]:
    """Return the steps that a token can reach by one or more arcs; it stops at joins for which it is spent."""
    found: set[str] = set()
    frontier = [token.step]
    while frontier:
        source = frontier.pop()
        for arc in arcs:
            if arc.source == source and arc.target not in found and arc.target not in token.spent:
                found.add(arc.target)
                frontier.append(arc.target)
    return found


def next_ready_join(
    arcs: Sequence[Arc], joins: Sequence[str], waiting: Sequence[Token], running: Sequence[Token]
) -> str | None:
    """Return the join to run next: the first in the document, of a group that no other token can reach.

    `joins` are the waiting ones, in document order.
    """
    by_join = {name: merge([token for token in waiting if token.step == name]) for name in joins}
    reached = {name: reachable_steps(arcs, token) for name, token in by_join.items()}
    by_running = set().union(*(reachable_steps(arcs, token) for token in running))
    for name in joins:
        group = _group(name, joins, reached)
        by_others = set().union(*(reached[other] for other in joins if other not in group))
        if not group & (by_running | by_others):
            return name
    return None


def _group(name: str, joins: Sequence[str], reached: Mapping[str, set[str]]) -> set[str]:
    """Return the waiting joins that a join can reach and that can reach it."""
    closure = {join: {join} | (reached[join] & set(joins)) for join in joins}
    for _ in joins:
        closure = {join: set().union(*(closure[other] for other in found)) for join, found in closure.items()}
    return {other for other in closure[name] if name in closure[other]}

"""Explains what a step waits for that the broker itself runs: a moment, a signal, or a person's decision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from noetl_broker.explain.reason import Reason
from noetl_broker.node_ids import visit_name
from noetl_broker.template.durations import moment_text
from noetl_broker.text import join_names, span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from noetl_broker.broker.model.values import JSON
    from noetl_broker.broker.state.state import Token
    from noetl_broker.explain.facts import Facts, WaitFact


def explain_wait(token: Token, about: dict[str, JSON], facts: Facts) -> Reason:
    """The reason of an open wait: what it waits for, since when, and until when."""
    name = visit_name(token.step, token.visit)
    wait = facts.waits.get((token.step, token.visit, None))
    if wait is None:
        return Reason("no_wait", f"{name} waits but has no row (noetl-broker verify shows what is wrong)", about)
    about = {**about, "since": wait.since, "due_at": wait.due_at}
    reason = EXPLAIN[wait.kind](name, about, wait, facts)
    return replace(reason, because=(*reason.because, *_explain_end(wait, facts)))


def _explain_end(wait: WaitFact, facts: Facts) -> tuple[Reason, ...]:
    """When the wait ends by itself."""
    if wait.due_at is None:
        return () if wait.kind == "timer" else (Reason("due", "it has no timeout"),)
    seconds = (wait.due_at - facts.read_at).total_seconds()
    at = moment_text(wait.due_at)
    word = "ends" if wait.kind == "timer" else "times out"
    if seconds <= 0:
        return (Reason("due", f"it was due {span(-seconds)} ago, at {at}: no broker has fired its timer yet"),)
    return (Reason("due", f"it {word} in {span(seconds)}, at {at}"),)


def _explain_timer(name: str, about: dict[str, JSON], wait: WaitFact, facts: Facts) -> Reason:
    return Reason("timer", f"{name} has been waiting for its moment for {_ago(wait, facts)}", about)


def _explain_signal(name: str, about: dict[str, JSON], wait: WaitFact, facts: Facts) -> Reason:
    names = join_names(wait.names)
    of = "of this execution" if wait.key in {None, str(facts.execution_id)} else f"of {wait.key}"
    says = f"{name} has been waiting for signal {names} {of} for {_ago(wait, facts)}"
    return Reason("signal", says, {**about, "names": [*wait.names], "key": wait.key}, _explain_missed(names, wait))


def _explain_missed(names: str, wait: WaitFact) -> tuple[Reason, ...]:
    """The signals of its names that cannot reach the wait: they have another key, or they are too old."""
    found = []
    if wait.to_execution:
        were, they = ("signal {} was", "it") if wait.to_execution == 1 else ("signals {} were", "they")
        says = (
            f"{wait.to_execution} {were.format(names)} sent to this execution, and {they} cannot reach this wait,"
            f" which has the key {wait.key}; send it by the key: noetl-broker signal {wait.names[0]} --key {wait.key}"
        )
        found.append(Reason("other_key", says, {"count": wait.to_execution, "key": wait.key}))
    if wait.too_old is not None:
        says = f"a signal of this name and key was sent {span(wait.too_old)} before the start; `since` would include it"
        found.append(Reason("too_old", says, {"seconds_before_start": wait.too_old}))
    return tuple(found)


def _explain_approval(name: str, about: dict[str, JSON], wait: WaitFact, facts: Facts) -> Reason:
    says = f"{name} has been waiting for a person's decision for {_ago(wait, facts)}: {wait.title}"
    because = []
    if wait.approvers:
        because.append(Reason("approvers", f"only {join_names(wait.approvers)} may decide"))
    remedy = f"noetl-broker approve {facts.execution_id} {name}, or noetl-broker reject {facts.execution_id} {name}"
    because.append(Reason("remedy", remedy))
    return Reason("approval", says, {**about, "title": wait.title, "approvers": [*wait.approvers]}, tuple(because))


def _ago(wait: WaitFact, facts: Facts) -> str:
    return span(max((facts.read_at - wait.since).total_seconds(), 0.0))


EXPLAIN: Mapping[str, Callable[[str, dict[str, JSON], WaitFact, Facts], Reason]] = {
    "timer": _explain_timer,
    "signal": _explain_signal,
    "approval": _explain_approval,
}

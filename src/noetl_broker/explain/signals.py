"""Explains which signals came to an execution and did not fit its waits."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.state.state import decode
from noetl_broker.broker.state.trail import SignalTried
from noetl_broker.errors import HistoryFault
from noetl_broker.explain.conditions import read_text, reads_within
from noetl_broker.explain.reason import Reason
from noetl_broker.history.timeline import trace_turns
from noetl_broker.template import NotLoaded
from noetl_broker.template.breakdown import parts_of
from noetl_broker.text import join_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from noetl_broker.broker.model.values import JSON
    from noetl_broker.broker.state.state import ExecutionState, Token
    from noetl_broker.history.record import History
    from noetl_broker.playbook.model import Playbook
    from noetl_broker.template import Template

MOST_SHOWN = 3  # of the signals that did not fit: the last ones


class Unfit(NamedTuple):
    """A signal for which the condition of a wait was false, or failed; `why` has the values that it read."""

    turn: int
    name: str
    why: str


def explain_unfit(history: History, playbook: Playbook, token: Token) -> tuple[Reason, ...]:
    """The signals that an open wait has tried, and what its condition read."""
    wait = playbook.steps[token.step].wait
    if wait is None or wait.when is None:
        return ()
    found = [*_unfit(history, token, wait.when)]
    if not found:
        return ()
    count = "a signal came that does" if len(found) == 1 else f"{len(found)} signals came that do"
    details: list[JSON] = [one._asdict() for one in found[-MOST_SHOWN:]]
    because = tuple(Reason("tried", f"turn {one.turn}: {one.name}: {one.why}") for one in found[-MOST_SHOWN:])
    kept = {(signal.turn, signal.name) for signal in decode(history.state).signals} if history.state else set()
    number = sum((one.turn, one.name) in kept for one in found)
    says = f"{count} not fit {wait.when.source}{_kept_text(number, len(found))}"
    return (Reason("unfit", says, {"count": len(found), "kept": number, "signals": details}, because),)


def _kept_text(kept: int, count: int) -> str:
    """How many of the signals that did not fit are still kept."""
    if not kept:
        return ""
    who = "it is" if count == 1 else "they are" if kept == count else f"{kept} of them are"
    return f"; {who} kept for a later wait"


def _unfit(history: History, token: Token, when: Template) -> Iterator[Unfit]:
    with suppress(HistoryFault):
        for turn in trace_turns(history):
            for trace in turn.draft.trail if turn.draft is not None else ():
                if isinstance(trace, SignalTried) and trace.visit == token[:2] and not trace.holds:
                    yield Unfit(trace.kept.turn, trace.kept.name, trace.fault or _values(trace, when))


def _values(trace: SignalTried, when: Template) -> str:
    """The values that the condition read."""
    try:
        reads = dict.fromkeys(read_text(read) for read in reads_within(parts_of(when, trace.scope)))
    except NotLoaded:
        return "its values are no longer known"
    return ", ".join(reads) or "the condition was false"


def explain_kept(state: ExecutionState, visits: Sequence[Reason]) -> list[Reason]:
    """The signals that an execution keeps for a later wait; `visits` may name some that do not fit now."""
    if not state.signals:
        return []
    counts = Counter(kept.name for kept in state.signals)
    names = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
    verb = "signal is" if len(state.signals) == 1 else "signals are"
    says = f"{len(state.signals)} {verb} kept for a later wait: {join_names(names)}"
    if any(reason.kind == "unfit" and reason.facts["kept"] for visit in visits for reason in visit.because):
        says = f"{says}; those that did not fit are among them"
    return [Reason("kept", says, {"signals": dict(counts)})]

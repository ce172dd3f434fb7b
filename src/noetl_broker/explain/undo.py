"""Explains what an execution undoes, what is draining before that, and what is left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import Counts
from noetl_broker.broker.undo.rows import LATE
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.undo_text import DRAINING, undo_lines
from noetl_broker.explain.waiting import explain_job, explain_open_visit
from noetl_broker.node_ids import UNDO_SUFFIX, visit_name

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import ExecutionState, Token
    from noetl_broker.explain.facts import Facts
    from noetl_broker.history.record import History
    from noetl_broker.playbook.model import Playbook

UNDONE = "compensation_completed"
UNDO_ENDS = {
    UNDONE: "that was undone in turn {}",
    "compensation_failed": "its undo failed in turn {}",
}


def explain_compensation(playbook: Playbook, state: ExecutionState, history: History, facts: Facts) -> list[Reason]:
    """The reasons why a compensating execution waits."""
    compensation = state.compensation
    if compensation is None:
        return []
    reasons = [explain_token(token, playbook, history, facts) for token in state.tokens.values()]
    if compensation.current is not None:
        step, visit, index = compensation.current[:3]
        name, job = visit_name(step, visit, index), facts.jobs.get((step + UNDO_SUFFIX, visit, index))
        about: dict[str, JSON] = {"step": step, "visit": visit, "index": index}
        asked = compensation.current.children
        children = [child for child in facts.children if child.node[:2] == (step + UNDO_SUFFIX, visit)]
        if compensation.current.child:
            running = "".join(f", by execution {child.execution_id} ({child.path})" for child in children)
            if asked:
                running = f", by execution {asked[-1 - compensation.current.answered]} itself"
            reasons.append(Reason("undo", f"the undo of {name} is running{running}", about))
        elif job is not None:
            reasons.append(
                Reason("undo", f"it undoes {name}", about, (explain_job(name + UNDO_SUFFIX, {}, job, facts),))
            )
    return reasons + explain_undone(facts)


def explain_token(token: Token, playbook: Playbook, history: History, facts: Facts) -> Reason:
    """The reason why an open visit waits, or why a visit that is over is draining."""
    if not token.draining:
        return explain_open_visit(token, playbook, history, facts)
    visit, counts = (token.step, token.visit), token.items or Counts(0)
    job, name = facts.jobs.get((*visit, None)), visit_name(*visit)
    about: dict[str, JSON] = {"step": token.step, "visit": token.visit}
    says = f"{name} is over, but draining: {DRAINING}"
    if counts.started > counts.ended:
        says = f"{name} is over, but {counts.started - counts.ended} of its items are draining: {DRAINING}"
    because = (explain_job(name, {}, job, facts),) if job is not None and job.status == "leased" else ()
    return Reason("draining", says, about, because)


def late_success(visit: Visit, history: History, *, live: bool) -> str | None:
    """The late success of a visit that was over, and whether it was undone; None if there was none."""
    turns = [turn for turn in history.turns if turn.outcome == LATE]
    late = next(
        (turn for turn in turns if (turn.event.step, turn.event.visit, turn.event.item_index) == (*visit, None)), None
    )
    if late is None:
        return None
    ends = _undo_ends(visit, history)
    became = (
        UNDO_ENDS[ends[-1][0]].format(ends[-1][1]) if ends else "that is to be undone" if live else "that is not undone"
    )
    return f"succeeded late, in turn {late.turn.number}, after it was over; {became}"


def _undo_ends(visit: Visit, history: History) -> list[tuple[str, int]]:
    """The events that ended an undo of the visit itself, with their turns."""
    return [
        (event.type, turn.turn.number)
        for turn in history.turns
        for event in turn.events
        if event.type in UNDO_ENDS and (event.step, event.visit) == visit and event.context is None
    ]


def undone_visits(name: str, history: History, facts: Facts) -> list[Visit]:
    """The visits of a step that were undone, or are to be undone."""
    events = [event for turn in history.turns for event in turn.events if event.type in UNDO_ENDS]
    left = facts.undo["left"] if facts.undo is not None else []
    found = {(name, event.visit) for event in events if event.step == name}
    return sorted(found | {(name, row["visit"]) for row in left if row["step"] == name})


def explain_undo_of(visit: Visit, history: History, facts: Facts) -> list[Reason]:
    """The state of the undo of a visit, or of its items, with the remedy."""
    if facts.undo is None:
        return []
    rows = [row for row in facts.undo["left"] if (row["step"], row["visit"]) == visit]
    if rows:
        counts = Counter(row["status"] for row in rows)
        lines = undo_lines(facts.execution_id, facts.status, {**facts.undo, "counts": counts, "left": rows})
        return [_reason(line) for line in lines]
    ends = _undo_ends(visit, history)
    if ends and ends[-1][0] == UNDONE:
        turn = ends[-1][1]
        return [Reason("undo", f"it was undone in turn {turn}", {"turn": turn})]
    return []


def explain_undone(facts: Facts) -> list[Reason]:
    """The undone actions and those left to undo, with the remedy."""
    if facts.undo is None:
        return []
    lines = undo_lines(facts.execution_id, facts.status, facts.undo)
    return [_reason(line) for line in lines]


def _reason(line: str) -> Reason:
    if line.startswith(("noetl-broker ", "mend ")):
        return Reason("remedy", line)
    return Reason("undo_failed", line) if line.startswith("the undo of ") else Reason("undo", line)

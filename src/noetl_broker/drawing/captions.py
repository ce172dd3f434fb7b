"""What a picture says about itself, and in full about each step and arc for whoever points at them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from noetl_broker.drawing.picture import Line, Node, Picture, Run, State
from noetl_broker.drawing.words import GAP, STATES, printable, shortened, texts_of, times_of, traits_of
from noetl_broker.times import moment, span

LONGEST_TITLE = 100  # characters
RUNS: dict[str, State] = {
    "RUNNING": "running",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}


def message_of(run: Run) -> str:
    """Why an execution did not complete; empty where there is nothing to say."""
    step = f"in step {run.failed_step}: " if run.failed_step else ""
    return f"{step}{run.message}" if run.message else ""


def title_of(picture: Picture) -> str:
    """Which playbook it is."""
    version = "" if picture.version is None else f" version {picture.version}"
    return shortened(f"{picture.path}{version}", LONGEST_TITLE)


def headline_of(picture: Picture) -> str:
    """Title and standing on one line."""
    run = picture.run
    return title_of(picture) if run is None else f"{title_of(picture)}, {standing_of(run)}, {beginning_of(run)}"


def standing_of(run: Run) -> str:
    """Which execution, and how it stands."""
    state = STATES[RUNS.get(run.status, "running")]
    manner = "for" if run.ended_at is None else "after"
    return f"execution {run.execution_id}: {state.symbol} {state.words} {manner} {span(run.seconds)}"


def beginning_of(run: Run) -> str:
    """Since when it runs, and for whom."""
    child = "" if run.parent_execution_id is None else f", child of {run.parent_execution_id}"
    return f"started {moment(run.started_at)} UTC{child}"


def full_text_of(node: Node) -> str:
    """Everything about a step, for whoever points at its box."""
    facts = [printable(node.step), GAP.join(part for part in (node.type, printable(node.task), node.each) if part)]
    facts += [printable(node.description)] if node.description else []
    facts += traits_of(node)
    if node.exclusive:
        facts.append("of its conditions, the first that holds counts")
    stay = node.stay
    if stay is not None:
        facts.append(f"{STATES[stay.state].symbol} {texts_of(node).state}")
        facts += _full_times(stay.started_at, stay.ended_at)
        facts += times_of(node, replace(stay, started_at=None))
        facts += [f"error: {printable(stay.message)}"] if stay.message else []
    return "\n".join(facts)


def _full_times(started_at: datetime | None, ended_at: datetime | None) -> list[str]:
    moments = (("started", started_at), ("ended", ended_at))
    return [f"{word} {moment(at)} UTC" for word, at in moments if at is not None]


def full_text_of_line(line: Line, names: dict[str, str]) -> str:
    """Everything about an arc, for whoever points at it."""
    facts = [f"{printable(names[line.source])} → {printable(names[line.target])}"]
    if line.condition is not None:
        facts.append(f"{line.manner} {printable(line.condition)}")
    elif line.manner != "plain":
        facts.append(line.manner)
    if line.order is not None:
        facts.append(f"read as number {line.order}, if none before it held")
    if line.outcomes is not None:
        facts.append(
            f"the condition was true {_times_over(line.outcomes.true)}, false {_times_over(line.outcomes.false)}"
        )
    if line.unsure:
        facts.append("not known whether it was taken")
    elif line.taken is not None:
        facts.append(f"taken {_times_over(line.taken)}" if line.taken else "not taken")
    return "\n".join(facts)


def _times_over(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def summary_of(picture: Picture) -> str:
    """The picture in a sentence or two, for whoever cannot see it."""
    counts = f"{len(picture.nodes)} steps, {len(picture.lines)} transitions"
    run = picture.run
    if run is None:
        return f"{title_of(picture)}: {counts}."
    by_state: dict[str, list[str]] = {}
    for node in picture.nodes:
        if node.stay is not None:
            by_state.setdefault(STATES[node.stay.state].words, []).append(printable(node.step))
    told = "; ".join(f"{words}: {', '.join(steps)}" for words, steps in by_state.items())
    failed = f" {printable(message_of(run))}." if run.message else ""
    return f"{headline_of(picture)}: {counts}.{failed} {told}."

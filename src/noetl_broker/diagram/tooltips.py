"""Headlines and descriptions of a diagram, and the tooltips of its nodes and edges."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from noetl_broker.diagram.labels import (
    GAP,
    STATES,
    StateLabel,
    printable,
    shortened,
    step_texts,
    step_times,
    step_traits,
)
from noetl_broker.diagram.model import DiagramNode, Edge, Picture
from noetl_broker.history.path import ExecutionPath
from noetl_broker.playbook.blocks import MARK
from noetl_broker.text import moment, span

LONGEST_TITLE = 100  # characters
RUNS: dict[str, StateLabel] = {
    "QUEUED": StateLabel("◔", "queued"),
    "RUNNING": STATES["running"],
    "PAUSED": StateLabel("‖", "paused"),
    "COMPENSATING": StateLabel("↶", "undoing"),
    "COMPLETED": STATES["completed"],
    "FAILED": STATES["failed"],
    "CANCELLED": STATES["cancelled"],
}


def error_line(execution: ExecutionPath) -> str:
    """The error of an execution; empty where there is none."""
    step = f"in step {execution.failed_step}: " if execution.failed_step else ""
    return f"{step}{execution.message}" if execution.message else ""


def title(picture: Picture) -> str:
    """The path and version of the playbook; of a block `path → step`, which Mermaid can write."""
    version = "" if picture.version is None else f" version {picture.version}"
    return shortened(f"{picture.path.replace(MARK, ' → ')}{version}", LONGEST_TITLE)


def headline(picture: Picture) -> str:
    """Title, status and start on one edge."""
    execution = picture.execution
    lines = [] if execution is None else [status_line(execution), start_line(execution)]
    return ", ".join((title(picture), *lines))


def status_line(execution: ExecutionPath) -> str:
    """The execution and its status."""
    style = RUNS.get(execution.status, STATES["running"])
    took = ""  # the time since the start is not that of a pause
    if execution.ended_at is not None:
        took = f" after {span(execution.seconds)}"
    elif execution.status == "RUNNING":
        took = f" for {span(execution.seconds)}"
    return f"execution {execution.execution_id}: {style.symbol} {style.words}{took}"


def start_line(execution: ExecutionPath) -> str:
    """When the execution started, and its parent."""
    child = "" if execution.parent_execution_id is None else f", child of {execution.parent_execution_id}"
    return f"started {moment(execution.started_at)}{child}"


def step_tooltip(node: DiagramNode) -> str:
    """The tooltip of a step: everything about it."""
    facts = [printable(node.step), GAP.join(part for part in (node.type, printable(node.task), node.each) if part)]
    facts += [printable(node.description)] if node.description else []
    facts += step_traits(node)
    if node.exclusive:
        facts.append("takes the first condition that is true")
    progress = node.progress
    if progress is not None:
        facts.append(f"{STATES[progress.state].symbol} {step_texts(node).state}")
        facts += _full_times(progress.step.started_at, progress.step.ended_at)
        facts += step_times(node, replace(progress, step=replace(progress.step, started_at=None)))
        facts += [f"error: {printable(progress.message)}"] if progress.message else []
    return "\n".join(facts)


def _full_times(started_at: datetime | None, ended_at: datetime | None) -> list[str]:
    moments = (("started", started_at), ("ended", ended_at))
    return [f"{word} {moment(at)}" for word, at in moments if at is not None]


def edge_tooltip(edge: Edge, names: dict[str, str]) -> str:
    """The tooltip of an edge: everything about it."""
    facts = [f"{printable(names[edge.source])} → {printable(names[edge.target])}"]
    if edge.condition is not None:
        facts.append(f"{edge.manner} {printable(edge.condition)}")
    elif edge.manner != "plain":
        facts.append(edge.manner)
    if edge.order is not None:
        facts.append(f"condition {edge.order}, evaluated if no earlier one was true")
    if edge.outcomes is not None:
        facts.append(
            f"the condition was true {_times_over(edge.outcomes.true)}, false {_times_over(edge.outcomes.false)}"
        )
    if edge.unknown:
        facts.append("not known whether it was taken")
    elif edge.taken is not None:
        facts.append(f"taken {_times_over(edge.taken)}" if edge.taken else "not taken")
    return "\n".join(facts)


def _times_over(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def description(picture: Picture) -> str:
    """The diagram in a sentence or two, for screen readers."""
    counts = f"{len(picture.nodes)} steps, {len(picture.edges)} transitions"
    execution = picture.execution
    if execution is None:
        return f"{title(picture)}: {counts}."
    by_state: dict[str, list[str]] = {}
    for node in picture.nodes:
        if node.progress is not None:
            by_state.setdefault(STATES[node.progress.state].words, []).append(printable(node.step))
    states = "; ".join(f"{words}: {', '.join(steps)}" for words, steps in by_state.items())
    failed = f" {printable(error_line(execution))}." if execution.message else ""
    return f"{headline(picture)}: {counts}.{failed} {states}."

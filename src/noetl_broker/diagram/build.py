"""Builds the diagram of a playbook, and of an execution of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from noetl_broker.broker.state.state import is_live
from noetl_broker.diagram.model import Block, DiagramNode, Edge, Manner, Picture, Shape, State, StepProgress
from noetl_broker.history.path import ExecutionPath, StepJob, StepStatus, entry_key, error_message
from noetl_broker.playbook.model import Arc, Iteration, Playbook, Step

RUNNING = "RUNNING"
# The state of a step by the status of its row.
STATES: dict[str, State] = {
    "PENDING": "pending",
    RUNNING: "running",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}
# The state of a running step by the status of its job.
JOB_STATES: dict[str, State] = {"queued": "queued", "retry": "retrying", "held": "held"}


class WaitStyle(NamedTuple):
    """How a step that waits for an event is shown: its state, who ends it, and the keys that say more."""

    state: State
    who: str = ""
    keys: tuple[str, ...] = ()


WAITS: Mapping[Shape, WaitStyle] = {
    "wait": WaitStyle("due_later", keys=("for", "until", "signal")),
    "approval": WaitStyle("asking", who="a person"),
}


def picture_of_playbook(playbook: Playbook, version: int | None = None) -> Picture:
    """The diagram of a playbook: its steps in document order, and its transitions."""
    ids = {name: f"n{step.index}" for name, step in playbook.steps.items()}
    nodes = {name: _node(playbook, step, ids[name]) for name, step in playbook.steps.items()}
    return Picture(
        path=playbook.path,
        version=version,
        nodes=tuple(nodes.values()),
        blocks=tuple(
            Block(node=nodes[name], picture=picture_of_playbook(block, version))
            for name, block in playbook.blocks.items()
        ),
        edges=tuple(_edge(playbook.steps[arc.source], arc, ids) for arc in playbook.arcs),
    )


def picture_of_execution(playbook: Playbook, path: ExecutionPath) -> Picture:
    """The diagram of a playbook with the path of an execution."""
    picture = picture_of_playbook(playbook, path.version)
    return replace(
        picture,
        nodes=tuple(replace(node, progress=_progress(node, path)) for node in picture.nodes),
        edges=tuple(_with_outcomes(playbook, edge, path) for edge in picture.edges),
        execution=path,
    )


def _node(playbook: Playbook, step: Step, id_: str) -> DiagramNode:
    return DiagramNode(
        id=id_,
        step=step.name,
        shape=_shape(playbook, step),
        type=step.type if step.iteration is None else step.iteration.task.type,
        task=_task(step if step.iteration is None else step.iteration.task),
        each="" if step.iteration is None else _each(step.iteration),
        description=step.description,
        join=step.join,
        need=step.need,
        cancels=step.losers == "cancel",
        exclusive=step.exclusive,
        continues=step.on_error == "continue",
        attempts=step.retry.max_attempts if step.retry is not None and step.retry.max_attempts > 1 else None,
        undo=_undo(step),
    )


def _undo(step: Step) -> str:
    """What undoes a step, or its items: a type, or `playbook` with its path; empty where nothing does."""
    task = None if step.iteration is None else step.iteration.task.compensate
    undo = step.compensate or task
    return "" if undo is None else " ".join(part for part in (undo.type, _task(undo)) if part)


def _undone(node: DiagramNode, path: ExecutionPath) -> str:
    """How far the undo of a step is; empty where none began."""
    counts = path.trace.undos.get(node.step)
    if counts is None:
        return ""
    running = counts["started"] - counts["completed"] - counts["failed"]
    done = "undone" if counts["completed"] == 1 else f"{counts['completed']} undone"
    words = [done if counts["completed"] else "", "undo failed" if counts["failed"] else ""]
    return ", ".join(word for word in (*words, "undo runs" if running else "") if word)


def _shape(playbook: Playbook, step: Step) -> Shape:
    if step is playbook.start:
        return "start"
    if step is playbook.end:
        return "end"
    return "iterator" if step.iteration is not None else step.kind


def _task(step: Step) -> str:
    """What a step calls, or waits for."""
    if step.kind in WAITS:
        return _waited_for(step, WAITS[step.kind])
    if step.call is not None and step.call.block is not None:
        return "block"
    if step.call is not None:
        return str(step.raw.get("path") or "")
    return "" if step.task_name is None else f"workbook {step.task_name}"


def _waited_for(step: Step, wait: WaitStyle) -> str:
    """What a step waits for, as written: `for 3d`, `a person, within 24h`."""
    words = [wait.who] if wait.who else []
    for key in wait.keys:
        value = step.raw.get(key)
        if value is not None:
            words.append(f"{key} {' or '.join(map(str, value)) if isinstance(value, list) else value}")
    if step.raw.get("timeout") is not None:
        words.append(f"within {step.raw['timeout']}")
    return ", ".join(words)


def _each(iteration: Iteration) -> str:
    """The element and the concurrency of an iterator."""
    many = f"{iteration.concurrency} at a time" if iteration.mode == "async" else "one by one"
    return f"each {iteration.element}, {many}"


def _edge(source: Step, arc: Arc, ids: dict[str, str]) -> Edge:
    manner = _manner(source, arc)
    entries = source.catch if manner == "catch" else source.next
    conditions = [index for index, entry in enumerate(entries) if entry.condition is not None]
    ordered = source.exclusive and len(conditions) > 1 and manner in {"when", "unless"}
    if manner == "catch" and len(entries) > 1:
        ordered, conditions = arc.condition is not None, [*range(len(entries))]
    return Edge(
        ordinal=arc.ordinal,
        source=ids[arc.source],
        target=ids[arc.target],
        manner=manner,
        condition=arc.condition,
        order=conditions.index(arc.entry) + 1 if ordered else None,
    )


def _manner(source: Step, arc: Arc) -> Manner:
    if arc.branch == "catch":
        return "catch"
    if arc.condition is not None:
        return "when" if arc.branch == "then" else "unless"
    if arc.branch == "else":
        return "else"
    after_condition = any(entry.condition is not None for entry in source.next[: arc.entry])
    return "otherwise" if after_condition else "plain"


def _with_outcomes(playbook: Playbook, edge: Edge, path: ExecutionPath) -> Edge:
    arc = playbook.arcs[edge.ordinal]
    unknown = edge.ordinal in path.trace.unknown
    return replace(
        edge,
        taken=None if unknown else path.trace.taken.get(edge.ordinal, 0),
        unknown=unknown,
        outcomes=path.trace.outcomes.get(entry_key(arc)) if arc.condition is not None else None,
    )


def _progress(node: DiagramNode, path: ExecutionPath) -> StepProgress:
    status = path.steps.get(node.step, StepStatus())
    trace, job = path.trace, status.job
    until = status.ended_at or (path.read_at if status.status == RUNNING else None)
    began = status.started_at
    state = _state(node, status, path)
    return StepProgress(
        state=state,
        step=status,
        seconds=None if began is None or until is None else max((until - began).total_seconds(), 0.0),
        retries=trace.retries.get(node.step, 0),
        again_at=job.available_at if job is not None and state == "retrying" else None,
        worker=job.worker_id if job is not None and state == "running" else None,
        message=error_message(trace.errors.get(node.step)) if state in {"failed", "went_on"} else None,
        undo=_undone(node, path),
    )


def _state(node: DiagramNode, status: StepStatus, path: ExecutionPath) -> State:
    if status.status == "PENDING":
        if status.arrived:
            return "waiting"
        return "pending" if is_live(path.status) else "unreached"
    if status.status == "FAILED" and node.step in path.trace.went_on:
        return "went_on"
    if status.status == RUNNING:
        return WAITS[node.shape].state if node.shape in WAITS else _state_of_job(status.job)
    return STATES.get(status.status, "pending")


def _state_of_job(job: StepJob | None) -> State:
    return "running" if job is None else JOB_STATES.get(job.status, "running")

"""Makes the picture of a playbook, and of an execution of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from noetl_broker.broker.course import Course, OpenJob, Standing
from noetl_broker.drawing.picture import Line, Manner, Node, Picture, Run, Shape, State, Stay
from noetl_broker.playbook.model import Arc, Iteration, Playbook, Step

RUNNING = "RUNNING"
# What the status of a step's row means for a step that nothing more is known of.
STATES: dict[str, State] = {
    "PENDING": "pending",
    RUNNING: "running",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}
# What the status of a running step's job means for it.
JOB_STATES: dict[str, State] = {"queued": "queued", "retry": "retrying"}


def picture_of_playbook(playbook: Playbook, version: int | None = None) -> Picture:
    """The steps of a playbook in document order, and its arcs."""
    ids = {name: f"n{step.index}" for name, step in playbook.steps.items()}
    return Picture(
        path=playbook.path,
        version=version,
        nodes=tuple(_node(playbook, step, ids[name]) for name, step in playbook.steps.items()),
        lines=tuple(_line(playbook.steps[arc.source], arc, ids) for arc in playbook.arcs),
    )


def picture_of_execution(playbook: Playbook, course: Course) -> Picture:
    """The same with what the execution has made of it."""
    picture = picture_of_playbook(playbook, course.version)
    until = course.ended_at or course.read_at
    return replace(
        picture,
        nodes=tuple(replace(node, stay=_stay(node, course)) for node in picture.nodes),
        lines=tuple(_followed(playbook, line, course) for line in picture.lines),
        run=Run(
            course.execution_id,
            course.status,
            course.started_at,
            course.ended_at,
            course.read_at,
            (until - course.started_at).total_seconds(),
            course.parent_execution_id,
            course.error.get("step") if isinstance(course.error, dict) else None,
            _message(course.error),
        ),
    )


def _node(playbook: Playbook, step: Step, id_: str) -> Node:
    return Node(
        id=id_,
        step=step.name,
        shape=_shape(playbook, step),
        type=step.type if step.iteration is None else step.iteration.task.type,
        task=_task(step if step.iteration is None else step.iteration.task),
        each="" if step.iteration is None else _each(step.iteration),
        description=step.description,
        join=step.join,
        exclusive=step.exclusive,
        continues=step.on_error == "continue",
        attempts=step.retry.max_attempts if step.retry is not None and step.retry.max_attempts > 1 else None,
    )


def _shape(playbook: Playbook, step: Step) -> Shape:
    if step is playbook.start:
        return "start"
    if step is playbook.end:
        return "end"
    return "router" if step.kind == "control" else step.kind


def _task(step: Step) -> str:
    """What a step calls beside its type."""
    if step.call is not None:
        return str(step.raw.get("path") or "")
    return "" if step.task_name is None else f"workbook {step.task_name}"


def _each(iteration: Iteration) -> str:
    """For what an iterator does its task, and for how many at a time."""
    many = f"{iteration.concurrency} at a time" if iteration.mode == "async" else "one by one"
    return f"each {iteration.element}, {many}"


def _line(source: Step, arc: Arc, ids: dict[str, str]) -> Line:
    manner = _manner(source, arc)
    conditions = [place for place, entry in enumerate(source.next) if entry.condition is not None]
    ordered = source.exclusive and len(conditions) > 1 and manner in {"when", "unless"}
    return Line(
        ordinal=arc.ordinal,
        source=ids[arc.source],
        target=ids[arc.target],
        manner=manner,
        condition=arc.condition,
        order=conditions.index(arc.entry) + 1 if ordered else None,
    )


def _manner(source: Step, arc: Arc) -> Manner:
    if arc.condition is not None:
        return "when" if arc.branch == "then" else "unless"
    if arc.branch == "else":
        return "else"
    after_condition = any(entry.condition is not None for entry in source.next[: arc.entry])
    return "otherwise" if after_condition else "plain"


def _followed(playbook: Playbook, line: Line, course: Course) -> Line:
    arc = playbook.arcs[line.ordinal]
    unsure = line.ordinal in course.trace.unsure
    return replace(
        line,
        taken=None if unsure else course.trace.taken.get(line.ordinal, 0),
        unsure=unsure,
        outcomes=course.trace.outcomes.get((arc.source, arc.entry)) if arc.condition is not None else None,
    )


def _stay(node: Node, course: Course) -> Stay:
    standing = course.steps.get(node.step, Standing())
    trace, job = course.trace, standing.job
    until = standing.ended_at or (course.read_at if standing.status == RUNNING else None)
    began = standing.started_at
    state = _state(node, standing, course)
    return Stay(
        state=state,
        status=standing.status,
        visits=standing.visits,
        started_at=began,
        ended_at=standing.ended_at,
        seconds=None if began is None or until is None else max((until - began).total_seconds(), 0.0),
        retries=trace.retries.get(node.step, 0),
        arrived=standing.arrived,
        again_at=job.available_at if job is not None and state == "retrying" else None,
        worker=job.worker_id if job is not None and state == "running" else None,
        items=standing.items,
        children=standing.children,
        message=_message(trace.errors.get(node.step)) if state in {"failed", "went_on"} else None,
    )


def _state(node: Node, standing: Standing, course: Course) -> State:
    if standing.status == "PENDING":
        if standing.arrived:
            return "waiting"
        return "pending" if course.status == RUNNING else "unreached"
    if standing.status == "FAILED" and node.step in course.trace.went_on:
        return "went_on"
    if standing.status == RUNNING:
        return _state_of_job(standing.job)
    return STATES.get(standing.status, "pending")


def _state_of_job(job: OpenJob | None) -> State:
    return "running" if job is None else JOB_STATES.get(job.status, "running")


def _message(error: Any) -> str | None:
    if error is None:
        return None
    message = error.get("message") or error.get("reason") if isinstance(error, dict) else error
    return str(message) if message else None

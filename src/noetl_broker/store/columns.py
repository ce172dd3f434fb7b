"""Decisions as columns: what a batch of turns writes, gathered for statements that take whole arrays."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from noetl_broker.broker.model import Child, Decision, Emitted, Ended, Job, Row, Turn
from noetl_broker.broker.state import ExecutionState, encode
from noetl_broker.store.codec import dump_json
from noetl_broker.store.rows import MICROSECOND, Case, Execution, Mail, Outcome, ParentVisit, node_id, parse_node

if TYPE_CHECKING:
    from noetl_broker.broker.model import JSON
    from noetl_broker.playbook.model import Playbook


def shape_of(playbook: Playbook) -> tuple[str, str, str]:
    """The steps, arcs and workbook actions of a playbook as JSON, for the tracking tables."""
    steps = [
        {"ordinal": step.index, "name": step.name, "type": step.type, "description": step.description,
         "raw": dump_json(step.raw)}
        for step in playbook.steps.values()
    ]  # fmt: skip
    arcs = [
        {"ordinal": arc.ordinal, "source": arc.source, "target": arc.target, "condition": arc.condition,
         "inputs": dump_json(arc.inputs) if arc.inputs else None}
        for arc in playbook.arcs
    ]  # fmt: skip
    tasks = [{"name": task.name, "type": task.type, "raw": dump_json(task.raw)} for task in playbook.workbook]
    return dump_json(steps), dump_json(arcs), dump_json(tasks)


class Columns:
    """The columns of `begin_executions` and `write_turns`, filled turn by turn."""

    def __init__(self) -> None:
        """Empty: nothing to write yet."""
        self.begun: list[tuple[object, ...]] = []
        self.shapes: dict[int, tuple[str, str, str]] = {}
        self.turns: list[tuple[object, ...]] = []
        self.events: list[tuple[object, ...]] = []
        self.jobs: dict[int, list[object]] = {}  # by the place of the event that queues it
        self.changes: list[tuple[object, ...]] = []
        self.withdrawn: list[int] = []
        self.rows: dict[tuple[int, str], list[Any]] = {}
        self.ended: list[tuple[object, ...]] = []
        self.states: list[tuple[object, ...]] = []
        self.read: list[int] = []
        self.children: list[tuple[object, ...]] = []
        self.letters: list[tuple[object, ...]] = []
        self.abandoned: list[tuple[object, ...]] = []
        self.items: list[tuple[object, ...]] = []
        self.item_changes: list[tuple[object, ...]] = []
        self.posts: list[tuple[object, ...]] = []
        self.adoptions: list[tuple[object, ...]] = []
        self._placed: dict[tuple[int, str], list[object]] = {}  # jobs of this batch, by their node

    def add(self, case: Case, outcome: Outcome) -> None:
        """Everything that the turns of one execution decided."""
        execution, playbook, taken, state = case.execution, case.playbook, outcome.taken, outcome.state
        last_at, deadline = execution.last_at, None
        for mail, turn, decision in taken:
            self.read.append(mail.mail_id)
            self.turns.append((
                turn.execution_id, turn.number, mail.event_id, decision.outcome, decision.note, turn.at,
                dump_json(mail.facts) if mail.facts else None,
            ))  # fmt: skip
            if decision.begun is not None and not isinstance(playbook, str) and execution.catalog_id is not None:
                deadline = decision.begun.deadline
                self.shapes.setdefault(execution.catalog_id, shape_of(playbook))
                self.begun.append((
                    turn.execution_id, execution.catalog_id, dump_json(decision.begun.workload),
                    dump_json(asdict(case.rules)),
                ))  # fmt: skip
            first = len(self.events)
            self._add_decision(execution, mail, turn, decision)
            self._add_family(execution, mail, decision, first)
            if decision.ended is not None and execution.parent is not None:
                self.letters.append(_letter(execution, state, decision.ended))
            last_at = turn.at + max(len(decision.events) - 1, 0) * MICROSECOND
        self.states.append((
            execution.execution_id, execution.turn, execution.turn + len(taken), last_at,
            dump_json(encode(state)), deadline,
        ))  # fmt: skip

    def _add_decision(self, execution: Execution, mail: Mail, turn: Turn, decision: Decision) -> None:
        first = len(self.events)
        parents = {child.ordinal for child in decision.children if child.ordinal is not None}
        for ordinal, event in enumerate(decision.events):
            self.events.append((*_event_row(execution, mail, turn, ordinal, event), ordinal in parents))
        for job in decision.jobs:
            self._add_job(execution.execution_id, first, job)
        for step, visit, status, delay, place in decision.changes:
            node = node_id(execution.execution_id, step, visit, place)
            placed = self._placed.get((execution.execution_id, node))
            if placed is None:
                self.changes.append((execution.execution_id, node, status, delay))
            else:
                placed[2], placed[6] = status, delay
        for row in decision.rows:
            self._add_row(execution.execution_id, mail, turn, row)
        if decision.withdraw:
            self.withdrawn.append(execution.execution_id)
            for (owner, _), placed in self._placed.items():
                if owner == execution.execution_id and placed[2] in {"queued", "retry", "delegated"}:
                    placed[2] = "cancelled"
        if decision.ended is not None:
            ended = decision.ended
            self.ended.append((
                execution.execution_id, ended.status, _json_or_null(ended.result), _json_or_null(ended.error),
                turn.at + (len(decision.events) - 1) * MICROSECOND,
                execution.parent.node_id if execution.parent is not None else None,
            ))  # fmt: skip

    def _add_family(self, execution: Execution, mail: Mail, decision: Decision, first: int) -> None:
        """Children and items, in the order of the turns: what an end in this batch makes of them counts too."""
        owner = execution.execution_id
        for child in decision.children:
            ordinal = None if child.ordinal is None else first + child.ordinal + 1
            self.children.append((*_child_row(execution, child), ordinal))
        for step, visit, values in decision.items:
            self.items.append((owner, node_id(owner, step, visit), dump_json(values)))
        for job in decision.jobs:
            if job.place is not None:
                node = node_id(owner, job.step, job.visit)
                self.item_changes.append((owner, node, job.place, "RUNNING", None))
        for step, visit, place, child_id in decision.adoptions:
            self.adoptions.append((owner, node_id(owner, step, visit), place, child_id))
        for step, visit, place, status in decision.item_ends:
            self.item_changes.append((owner, node_id(owner, step, visit), place, status, mail.event_id))
        for event_type, step, visit in decision.posts:
            self.posts.append((owner, node_id(owner, step, visit), event_type))
        abandoned = {(owner, node_id(owner, step, visit)) for step, visit in decision.abandoned}
        self.abandoned.extend(abandoned)
        if decision.withdraw or abandoned:
            self._drop_children(owner, None if decision.withdraw else abandoned)

    def _drop_children(self, owner: int, nodes: set[tuple[int, str]] | None) -> None:
        """Children that are given up (`nodes`; None: all of the execution's) in the batch that would start them."""
        kept: list[tuple[object, ...]] = []
        for row in self.children:
            dropped = row[0] == owner if nodes is None else row[:2] in nodes
            if not dropped:
                kept.append(row)
            elif isinstance(ordinal := row[-1], int):  # of an item: its iteration_started names no child then
                self.events[ordinal - 1] = (*self.events[ordinal - 1][:-1], False)
                self.item_changes.append((*row[:3], "CANCELLED", None))
        self.children = kept

    @property
    def has_family(self) -> bool:
        """Whether other executions are to hear of these turns."""
        return bool(self.children or self.letters or self.abandoned or self.withdrawn)

    def family_arguments(self, child_ids: dict[int, int]) -> list[list[Any]]:
        """The arguments of `write_family`; `child_ids` by the ordinal of the iteration_started that names them."""
        *children, ordinals = _columns(self.children, 8)
        ids = [None if ordinal is None else child_ids[int(str(ordinal))] for ordinal in ordinals]
        return [
            *children, *_columns(self.letters, 9), self.withdrawn, *_columns(self.abandoned, 2), ids,
        ]  # fmt: skip

    def item_arguments(self) -> list[list[Any]]:
        """The arguments of `write_items`."""
        return _columns(self.items, 3)

    def item_change_arguments(self) -> list[list[Any]]:
        """The arguments of `change_items`."""
        return _columns(self.item_changes, 5)

    def adoption_arguments(self) -> list[list[Any]]:
        """The arguments of `adopt_children`."""
        return _columns(self.adoptions, 4)

    def post_arguments(self) -> list[list[Any]]:
        """The arguments of `write_posts`."""
        return _columns(self.posts, 3)

    def _add_job(self, execution_id: int, first: int, job: Job) -> None:
        row: list[object] = [
            dump_json(job.action), dump_json(job.context), "delegated" if job.delegated else "queued",
            job.priority, job.max_attempts, job.timeout, 0.0,
            None if job.place is None else node_id(execution_id, job.step, job.visit, job.place), job.node_type,
        ]  # fmt: skip
        self.jobs[first + job.ordinal] = row
        self._placed[execution_id, node_id(execution_id, job.step, job.visit, job.place)] = row

    def _add_row(self, execution_id: int, mail: Mail, turn: Turn, row: Row) -> None:
        """One row a step, even where several turns of the batch touched it: an update sees each row once."""
        started = None if row.started is None else turn.at + row.started * MICROSECOND
        ended = None if row.ended is None else turn.at + row.ended * MICROSECOND
        before = self.rows.get((execution_id, row.step))
        result_visit = row.result_visit
        result_event = None if row.result_visit is None or row.taken else mail.event_id
        if before is not None:
            started = started or before[4]
            if before[6] is not None and (result_visit is None or before[6] > result_visit):
                result_visit, result_event = before[6], before[7]
        self.rows[execution_id, row.step] = [
            execution_id, row.step, row.status, row.visits, started, ended, result_visit, result_event,
        ]  # fmt: skip

    def begin_arguments(self) -> list[list[object]]:
        """The arguments of `begin_executions`."""
        shapes = [(catalog_id, *shape) for catalog_id, shape in self.shapes.items()]
        return [*_columns(self.begun, 4), *_columns(shapes, 4)]

    def write_arguments(self) -> list[list[Any]]:
        """The arguments of `write_turns`."""
        return [
            *_columns(self.turns, 7), *_columns(self.events, 14), *self._job_columns(), *_columns(self.changes, 4),
            self.withdrawn, *_columns(list(self.rows.values()), 8), *_columns(self.ended, 6),
            *_columns(self.states, 6), self.read,
        ]  # fmt: skip

    def _job_columns(self) -> list[list[object]]:
        """The columns of the jobs, as long as those of the events: null where an event queues none."""
        columns: list[list[object]] = [[None] * len(self.events) for _ in range(9)]
        for place, row in self.jobs.items():
            for column, value in zip(columns, row, strict=True):
                column[place] = value
        return columns


def _child_row(execution: Execution, child: Child) -> tuple[object, ...]:
    node = node_id(execution.execution_id, child.step, child.visit)
    meta = {**child.meta, "parent_execution_id": execution.execution_id, "parent_step": child.step}
    return (
        execution.execution_id, node, child.place, child.path, child.version, dump_json(child.payload), dump_json(meta),
    )  # fmt: skip


def _letter_type(parent: ParentVisit, *, completed: bool) -> str:
    """A step's only child answers as its action; one of many, as itself."""
    if parent.place is None:
        return "action_completed" if completed else "action_failed"
    return "execution_complete" if completed else "execution_failed"


def _letter(execution: Execution, state: ExecutionState, ended: Ended) -> tuple[object, ...]:
    """The answer of a child: its end as the end of the action that its parent's step is waiting for."""
    parent = execution.parent
    if parent is None:
        raise ValueError(f"execution {execution.execution_id} has no parent")
    completed = ended.status == "COMPLETED"
    error: dict[str, JSON] | None = None
    if not completed:
        told = ended.error or {}
        error = {**told, "message": told.get("message") or "the child failed", "type": f"child_{ended.status.lower()}"}
        error["child_step"] = error.pop("step", None)
        if "at" in error:  # a place in the child's playbook
            error["child_at"] = error.pop("at")
        error["child_execution_id"] = execution.execution_id
    meta: dict[str, JSON] = {
        "child_execution_id": execution.execution_id,
        "attempt": state.parent.attempt if state.parent is not None else 1,
        # a child that somebody cancelled is not wanted; one that failed may do better next time
        "retryable": ended.status != "CANCELLED",
    }
    if parent.place is not None:
        meta["index"] = parent.place
    return (
        parent.execution_id, parent.event_id, _letter_type(parent, completed=completed), parent.node_id,
        parse_node(parent.node_id, None).step, "COMPLETED" if completed else "FAILED", _json_or_null(ended.answer),
        _json_or_null(error), dump_json(meta),
    )  # fmt: skip


def _event_row(execution: Execution, mail: Mail, turn: Turn, ordinal: int, event: Emitted) -> tuple[object, ...]:
    if event.step is None:
        node, name = str(execution.execution_id), execution.name
    else:
        node, name = node_id(execution.execution_id, event.step, event.visit), event.step
    return (
        execution.execution_id, execution.catalog_id, mail.event_id, turn.at + ordinal * MICROSECOND, event.type,
        node, name, event.node_type, event.status, dump_json(event.meta), _json_or_null(event.result),
        _json_or_null(event.error), _json_or_null(event.context),
    )  # fmt: skip


def _json_or_null(value: JSON) -> str | None:
    return None if value is None else dump_json(value)


def _columns(rows: list[Any], width: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]

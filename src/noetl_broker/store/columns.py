"""Decisions as rows: what a batch of turns writes, gathered for statements that take all of it at once.

What every turn writes (turns with states, events with their jobs, tracking rows) goes as JSON documents, one for each
kind of row. A row is a list, its columns by their place, as `write_turns` reads them: objects take Postgres half as
long again, and arrays of columns or of rows take the driver more than they save the server. A number in a row takes it
half as long again as a text, a moment longer: so the ids and moments of the turns, their sources, go once, as arrays,
and a row names its source and how many microseconds it is later. What few turns write goes as arrays of columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from noetl_broker.broker.model import Decision, Emitted, Job, Row, Turn
from noetl_broker.broker.state import encode
from noetl_broker.errors import OversizeFault
from noetl_broker.store.codec import dump_json
from noetl_broker.store.family import child_row, json_or_null, letter
from noetl_broker.store.rows import MICROSECOND, Case, Execution, Mail, Outcome, node_id
from noetl_broker.store.shapes import shape_of

Document = list[Any]  # one row
# In one statement; Postgres hangs up on a gigabyte, and a character may take four bytes. Where a jsonb has no room for
# fewer characters (of many bytes, or many numbers), the server says so: see `unit.write`.
MOST_CHARS = 200_000_000
# Places in the rows of events. What few of them have comes last, by its name.
NODE, JOB, JOB_STATUS, RARE = 3, 8, 10, 14
NO_JOB = [None] * (RARE - JOB)
# Places in the rows of steps: of when it started, and of its result, with what belongs to each.
STARTED, RESULT_VISIT = 5, 7
NOT_HELD = frozenset({"queued", "retry", "delegated"})  # statuses of jobs that no worker holds


class Columns:
    """What `begin_executions`, `write_turns` and those after them write, filled turn by turn."""

    def __init__(self) -> None:
        """Empty: nothing to write yet."""
        self.begun: list[tuple[object, ...]] = []
        self.shapes: dict[int, tuple[str, str, str]] = {}
        # Of each turn: execution, playbook, event, moment, mail. Rows name them by their place, from 1.
        self.sources: list[tuple[object, ...]] = []
        self.turns: list[Document] = []  # with the state after the last one of each execution
        self.executions = 0
        self.events: list[Document] = []  # with the job that an event queues
        self.changes: dict[tuple[int, str], list[object]] = {}  # by node: the last turn's word counts
        self.withdrawn: list[int] = []
        self.rows: dict[tuple[int, str], Document] = {}
        self.ended: list[tuple[object, ...]] = []
        self.children: list[tuple[object, ...]] = []
        self.letters: list[tuple[object, ...]] = []
        self.abandoned: list[tuple[object, ...]] = []
        self.items: list[tuple[object, ...]] = []
        self.item_changes: list[tuple[object, ...]] = []
        self.posts: list[tuple[object, ...]] = []
        self.adoptions: list[tuple[object, ...]] = []
        self._placed: dict[tuple[int, str], Document] = {}  # the events that queue jobs, by the job's node

    def add(self, case: Case, outcome: Outcome) -> None:
        """Everything that the turns of one execution decided."""
        execution, playbook, taken, state = case.execution, case.playbook, outcome.taken, outcome.state
        deadline, ends = None, False
        for mail, turn, decision in taken:
            first = len(self.events)
            failed = None if decision.failed is None else first + decision.failed + 1
            self.sources.append((turn.execution_id, execution.catalog_id, mail.event_id, turn.at, mail.mail_id))
            facts = None if mail.facts is None else dump_json(mail.facts)
            self.turns.append([turn.number, decision.outcome, decision.note, facts, failed])
            if decision.begun is not None and not isinstance(playbook, str) and execution.catalog_id is not None:
                deadline = decision.begun.deadline
                self.shapes.setdefault(execution.catalog_id, shape_of(playbook))
                self.begun.append((
                    turn.execution_id, execution.catalog_id, dump_json(decision.begun.workload),
                    dump_json(case.rules.pinned()),
                ))  # fmt: skip
            ends |= decision.ended is not None
            self._add_decision(execution, turn, decision)
            for row in decision.rows:
                self._add_row(execution.execution_id, row, failed)
            self._add_family(execution, mail, decision, first)
            if decision.ended is not None and execution.parent is not None:
                self.letters.append(letter(execution, state, decision.ended))
        last = max(len(taken[-1].decision.events) - 1, 0)
        self.turns[-1] += [execution.turn, last, dump_json(encode(state)), deadline, ends]
        self.executions += 1

    def _add_decision(self, execution: Execution, turn: Turn, decision: Decision) -> None:
        first, source = len(self.events), len(self.sources)
        parents = {child.ordinal for child in decision.children if child.ordinal is not None}
        for ordinal, event in enumerate(decision.events):
            self.events.append(_event_row(execution, source, ordinal, event))
            if ordinal in parents:
                _rare(self.events[-1])["starts_child"] = True
        for job in decision.jobs:
            self._add_job(execution, first, job)
        for step, visit, status, delay, place in decision.changes:
            node = node_id(execution.execution_id, step, visit, place)
            placed = self._placed.get((execution.execution_id, node))
            if placed is None:
                self.changes[execution.execution_id, node] = [execution.execution_id, node, status, delay]
            else:
                placed[JOB_STATUS], _rare(placed)["delay"] = status, delay
        if decision.withdraw:
            self._withdraw(execution.execution_id)
        if decision.ended is not None:
            ended = decision.ended
            self.ended.append((
                execution.execution_id, ended.status, json_or_null(ended.result), json_or_null(ended.error),
                turn.at + (len(decision.events) - 1) * MICROSECOND,
                execution.parent.node_id if execution.parent is not None else None,
            ))  # fmt: skip

    def _withdraw(self, execution_id: int) -> None:
        """Jobs that no worker holds: those in the table, and those that turns before it in the batch queue again."""
        self.withdrawn.append(execution_id)
        for (owner, _), placed in self._placed.items():
            if owner == execution_id and placed[JOB_STATUS] in NOT_HELD:
                placed[JOB_STATUS] = "cancelled"
        for (owner, _), change in self.changes.items():
            if owner == execution_id and change[2] in NOT_HELD:
                change[2] = "cancelled"

    def _add_family(self, execution: Execution, mail: Mail, decision: Decision, first: int) -> None:
        """Children and items, in the order of the turns: what an end in this batch makes of them counts too."""
        owner = execution.execution_id
        for child in decision.children:
            ordinal = None if child.ordinal is None else first + child.ordinal + 1
            self.children.append((*child_row(execution, child), ordinal))
        for step, visit, values in decision.items:
            self.items.append((owner, node_id(owner, step, visit), dump_json(values)))
        for job in decision.jobs:
            if job.place is not None:
                node = node_id(owner, job.step, job.visit)
                self.item_changes.append((owner, node, job.place, "RUNNING", None, None))
        for step, visit, place, child_id in decision.adoptions:
            self.adoptions.append((owner, node_id(owner, step, visit), place, child_id))
        for step, visit, place, status, error in decision.item_ends:
            told = json_or_null(error)
            self.item_changes.append((owner, node_id(owner, step, visit), place, status, mail.event_id, told))
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
                del _rare(self.events[ordinal - 1])["starts_child"]
                self.item_changes.append((*row[:3], "CANCELLED", None, None))
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
        return _columns(self.item_changes, 6)

    def adoption_arguments(self) -> Iterator[list[list[Any]]]:
        """The arguments of `adopt_children`, one execution after another: each sees whom those before adopted."""
        for _, of_one in groupby(self.adoptions, itemgetter(0)):
            yield _columns(list(of_one), 4)

    def post_arguments(self) -> list[list[Any]]:
        """The arguments of `write_posts`."""
        return _columns(self.posts, 3)

    def _add_job(self, execution: Execution, first: int, job: Job) -> None:
        owner = execution.execution_id
        row = self.events[first + job.ordinal]
        node = row[NODE] if job.place is None else node_id(owner, job.step, job.visit, job.place)
        context = {
            **job.context, "path": execution.path, "version": execution.version, "catalog_id": execution.catalog_id,
            "execution_id": owner,
        }  # fmt: skip
        if execution.workload is not None:
            context["workload"] = execution.workload
        else:
            _rare(row)["lacks_workload"] = True
        row[JOB:RARE] = [
            dump_json(job.action), context, "delegated" if job.delegated else "queued", job.priority, job.max_attempts,
            job.node_type,
        ]  # fmt: skip
        if job.timeout is not None:
            _rare(row)["timeout"] = job.timeout
        if job.place is not None:
            _rare(row)["node_id"] = node
        self._placed[owner, node] = row

    def _add_row(self, execution_id: int, row: Row, failed: int | None) -> None:
        """One row a step, even where several turns of the batch touched it: an update sees each row once.

        `failed`: the ordinal, in the batch, of the event with the turn's result (None: the one that it read has it).
        """
        source = len(self.sources)
        own = row.result_visit is not None and not row.taken
        document: Document = [
            source, row.step, row.status, row.visits, row.ended, None if row.started is None else source, row.started,
            row.result_visit, source if own else None, failed if own else None,
        ]  # fmt: skip
        before = self.rows.get((execution_id, row.step))
        if before is not None:
            _lay_over(before, document)
        self.rows[execution_id, row.step] = document

    def begin_arguments(self) -> list[list[object]]:
        """The arguments of `begin_executions`."""
        shapes = [(catalog_id, *shape) for catalog_id, shape in self.shapes.items()]
        return [*_columns(self.begun, 4), *_columns(shapes, 4)]

    def write_arguments(self) -> list[object]:
        """The arguments of `write_turns`; raises OversizeFault where they are more than the server takes."""
        texts = [dump_json(rows) for rows in (self.turns, self.events, [*self.rows.values()])]
        chars = sum(map(len, texts))
        if chars > MOST_CHARS:
            message = f"{chars:,} characters of {len(self.turns)} turn(s) would be written at once"
            raise OversizeFault(f"{message}, more than {MOST_CHARS:,}: start fewer jobs in one turn, or give each less")
        return [*texts, *_columns(self.sources, 5), *_columns(self.ended, 6)]

    def job_change_arguments(self) -> list[list[Any]]:
        """The arguments of `change_jobs`."""
        return _columns([*self.changes.values()], 4)

    def withdrawal_arguments(self) -> list[list[Any]]:
        """The arguments of `withdraw_jobs`."""
        return [self.withdrawn, *_columns([*self.changes], 2)]


def _rare(event: Document) -> dict[str, Any]:
    """What few rows of events have: of the event itself, and of its job."""
    if len(event) == RARE:
        event.append({})
    rare: dict[str, Any] = event[RARE]
    return rare


def _event_row(execution: Execution, source: int, ordinal: int, event: Emitted) -> Document:
    if event.step is None:
        node, name = str(execution.execution_id), execution.name
    else:
        node, name = node_id(execution.execution_id, event.step, event.visit), event.step
    row: Document = [
        source, ordinal, event.type, node, name, event.node_type, event.status, event.meta, *NO_JOB,
    ]  # fmt: skip
    if event.result is not None:
        _rare(row)["result"] = event.result
    if event.error is not None:
        _rare(row)["error"] = event.error
    if event.context is not None:
        _rare(row)["context"] = event.context
    return row


def _lay_over(before: Document, row: Document) -> None:
    """What earlier turns of the batch said of a step, where this one says nothing, or of a lower visit's result."""
    if row[STARTED] is None:
        row[STARTED:RESULT_VISIT] = before[STARTED:RESULT_VISIT]
    if (before[RESULT_VISIT] or 0) > (row[RESULT_VISIT] or 0):
        row[RESULT_VISIT:] = before[RESULT_VISIT:]


def _columns(rows: list[Any], width: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]

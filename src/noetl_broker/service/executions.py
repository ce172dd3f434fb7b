"""Executions: lists, what one execution holds, and what is derived from it: reasons, graph, snapshot, replay."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from operator import add
from typing import Any

from noetl_broker.diagram.build import picture_of_execution
from noetl_broker.diagram.model import Picture
from noetl_broker.diagram.time_chart import TimeChart
from noetl_broker.errors import OperatorFault
from noetl_broker.node_ids import read_item_name, read_node, read_visit
from noetl_broker.service import paging
from noetl_broker.service.action import Caller, Cost, Role, action
from noetl_broker.service.explanations import explain_part
from noetl_broker.service.histories import find_differences, state_after
from noetl_broker.service.images import SVG, Image, image_of
from noetl_broker.service.models import executions as models
from noetl_broker.service.models.actions import VerifyRequest, Which
from noetl_broker.service.models.base import Listed, OneExecution, PageOfOne
from noetl_broker.service.payload_check import payload_check
from noetl_broker.service.spans import parse_since, parse_until
from noetl_broker.service.typed_json import json_text
from noetl_broker.service.typed_values import read_tags
from noetl_broker.service.where import Do, Row, by_id, collected, grouped, merged, routed
from noetl_broker.store.admin import executions, list_pages, logs
from noetl_broker.store.admin.execution_path import load_execution_path
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.progress import has_step, load_item, no_step_fault
from noetl_broker.store.admin.verify import VerifyScope, verify
from noetl_broker.store.admin.visit_spans import load_spans
from noetl_broker.store.connect.bucket_connections import BucketConnections
from noetl_broker.store.connect.connection import Connection
from noetl_broker.text import ids_as_text

SEARCHED = list_pages.SEARCHED  # the newest executions, in which a text is searched
LARGEST_INT = 2**31 - 1
MOST_EXAMPLES = 10  # of an invariant that does not hold


def filter_of(given: Any) -> Filter:
    """The filter of a request that has the fields of a filter."""
    values = {each.name: getattr(given, each.name) for each in fields(Filter) if each.name != "tags"}
    values["tags"] = _tags_of(given.tag)
    for name, parse in (("since", parse_since), ("until", parse_until)):
        values[name] = None if values[name] is None else parse(values[name])
    return Filter(**values)


def _tags_of(written: Sequence[str] | None) -> dict[str, str] | None:
    """Tags of a filter. Raises OperatorFault for one with two values, which no execution has."""
    try:
        return read_tags(written or ()) or None
    except ValueError as fault:
        raise OperatorFault(f"the filter: {fault}") from None


async def at_home(buckets: BucketConnections, do: Do, given: models.StartRequest) -> Any:
    """In the bucket in which the start lives; in one that can be reached, if it says nothing."""

    async def ask(connection: Connection) -> int | None:
        return await executions.bucket_of(connection, given.path, given.bucket_key, given.idempotency_key)

    home = await buckets.in_installation(ask)
    work = lambda connection: do(connection, given)  # noqa: E731 - of one line
    return await (buckets.in_one(work) if home is None else buckets.in_bucket(home, work))


async def of_verify(buckets: BucketConnections, do: Do, given: VerifyRequest) -> Any:
    """In the bucket of the execution, or in all at once."""
    place = collected(_merge_reports) if given.execution_id is None else by_id
    return await place(buckets, do, given)


def _merge_reports(reports: Sequence[Row], given: VerifyRequest) -> dict[str, Any]:
    counts = {name: sum(report[name] for report in reports) for name in ("executions", "running", "broken")}
    every = [invariant for report in reports for invariant in report["invariants"]]
    invariants = grouped(every, "invariant", "sentence", broken=add, examples=add)
    for invariant in invariants:
        invariant["examples"] = invariant["examples"][: given.examples]
    return counts | {"invariants": invariants}


@action(Role.VIEWER, Listed[models.ExecutionView], where=merged("execution_id", newest_first=True))
async def list_executions(connection: Connection, caller: Caller, given: models.ListExecutions) -> Any:
    """List executions, newest first. `path` and `error` may hold `*`; `step` is where it failed.

    `since` and `until` are moments or time spans before now. A page may hold few executions, or none, while `next`
    leads to more: it reads 25,000 at most. `error` and `text` search the newest 10,000. For an operator, `text` looks
    into idempotency keys, messages and short workloads, too; `error` and `key` are for operators alone. `tag` and `key`
    find executions of any age.
    """
    caller.refuse_hidden("errors", given.error)
    caller.refuse_hidden("keys", given.key)
    found = await list_pages.page_executions(
        connection, filter_of(given), text=given.text, with_values=caller.sees_values, **paging.place(given, int)
    )
    return paging.listed(found)


@action(Role.VIEWER, models.ExecutionDetails)
async def show_execution(connection: Connection, _caller: Caller, given: OneExecution) -> Any:
    """Show the state of an execution, step by step."""
    return await executions.load_execution_details(connection, given.execution_id)


@action(Role.PRODUCER, models.Started, where=at_home)
async def start_execution(connection: Connection, caller: Caller, given: models.StartRequest) -> Any:
    """Start an execution of a playbook. A payload that breaks the playbook's `workload_schema` starts nothing."""
    check = await payload_check(connection, given.path, given.version, caller.rules)
    check(given.payload, "")
    return await start_unchecked(connection, caller, given)


@action(Role.PRODUCER, models.Started, where=routed)
async def start_unchecked(connection: Connection, caller: Caller, given: models.StartRequest) -> Any:
    """Start an execution of a playbook. The broker checks the payload."""
    payload, key = json_text(given.payload), given.idempotency_key
    started = await executions.start_execution(
        connection, given.path, payload, version=given.version, idempotency_key=key, options=_options_of(given, caller)
    )
    return {"execution_id": started}


def _options_of(given: models.StartRequest | models.StartManyRequest, caller: Caller) -> dict[str, Any]:
    named = ("bucket_key", "tags", "start_at", "start_after", "priority")
    options = {name: None if value in ("", {}) else value for name in named for value in [getattr(given, name)]}
    return options | {"by": caller.by}


@action(Role.PRODUCER, models.OutcomeView)
async def show_outcome(connection: Connection, caller: Caller, given: OneExecution) -> Any:
    """Show the status, result and error of an execution that the caller started, or whose start it repeated."""
    return await executions.find_outcome(connection, given.execution_id, caller.asks_as)


@action(Role.OPERATOR, dict[str, Any])
async def find_execution(connection: Connection, _caller: Caller, given: OneExecution) -> Any:
    """Find the row of an execution."""
    return await executions.find_execution(connection, given.execution_id)


@action(Role.PRODUCER, dict[str, list[int]], where=routed)
async def start_executions(connection: Connection, caller: Caller, given: models.StartManyRequest) -> Any:
    """Start an execution for each payload, all or none. The broker checks the payloads."""
    count = len(given.payloads)
    texts = [json_text(payload, f"payload {n} of {count}") for n, payload in enumerate(given.payloads, 1)]
    started = await executions.start_executions(
        connection, given.path, texts, version=given.version, idempotency_keys=given.idempotency_keys,
        options=_options_of(given, caller),
    )  # fmt: skip
    return {"execution_ids": started}


@action(Role.VIEWER, Listed[models.EventView])
async def list_events(connection: Connection, _caller: Caller, given: PageOfOne) -> Any:
    """List the events of an execution by id, which is nearly the order of its turns."""
    found = await list_pages.page_events(connection, given.execution_id, **paging.place(given, int))
    return await _listed(connection, given, found)


@action(Role.VIEWER, Listed[models.JobView])
async def list_jobs(connection: Connection, _caller: Caller, given: PageOfOne) -> Any:
    """List the jobs of an execution, also finished jobs."""
    found = await list_pages.page_jobs(connection, given.execution_id, **paging.place(given, str))
    return await _listed(connection, given, found)


@action(Role.VIEWER, Listed[models.ItemView])
async def list_items(connection: Connection, _caller: Caller, given: models.ListItems) -> Any:
    """List the iterator items that the broker runs, with their child executions."""
    begin = paging.place(given, str, int)
    found = await list_pages.page_items(connection, given.execution_id, status=given.status, **begin)
    return await _listed(connection, given, found)


@action(Role.VIEWER, Listed[models.ListedUndo])
async def list_undos(connection: Connection, _caller: Caller, given: PageOfOne) -> Any:
    """List what an execution has to undo: the last success first, as it is undone."""
    found = await list_pages.page_undos(connection, given.execution_id, **paging.place(given, int, int, str))
    return await _listed(connection, given, found)


async def _listed(connection: Connection, given: PageOfOne, found: list_pages.Page) -> dict[str, Any]:
    """The answer with a page of what an execution has. Raises NotFoundFault if there is no such execution."""
    if not found.items:  # its row takes longer to find than the page
        await executions.find_execution(connection, given.execution_id)
    return paging.listed(found)


@action(Role.OPERATOR, Listed[models.LogEntry])
async def list_log(connection: Connection, _caller: Caller, given: models.ListLog) -> Any:
    """List what the steps of an execution printed and logged, by time."""
    rows = await logs.list_log(
        connection, log_subject(given.execution_id, given.step), after=_log_key(given), limit=given.limit + 1
    )
    return paging.cut(
        given, rows, lambda row: (row["created_at"].isoformat(), row["node_id"], row["attempt"], row["ordinal"])
    )


def log_subject(execution_id: int, step: str | None) -> logs.LogSubject:
    """The part of a log that a name chooses: a step, `load#2` for its second visit, `load[7]` for an item."""
    name, visit, index = (None, None, None) if step is None else read_node(step)
    return logs.LogSubject(execution_id=execution_id, step=name, visit=visit, item_index=index)


def _log_key(given: models.ListLog) -> logs.LogKey | None:
    key = paging.after(given, str, str, int, int)
    if key is None:
        return None
    moment, node_id, attempt, ordinal = key
    with contextlib.suppress(ValueError):
        at = datetime.fromisoformat(moment)
        if at.tzinfo is not None and 0 <= attempt <= LARGEST_INT and 0 <= ordinal <= LARGEST_INT:
            return logs.LogKey(at, node_id, attempt, ordinal)
    raise OperatorFault("the cursor is not one of this list; take `next` of the page before")


@action(Role.VIEWER, models.ReasonView, cost=Cost.SHORT)
async def explain(connection: Connection, caller: Caller, given: models.StepRequest) -> Any:
    """Say why a step ran or not, or what the execution waits for and how it ended. A viewer gets no values."""
    why = await explain_part(connection, given.execution_id, given.step, caller.rules, shows_values=caller.sees_values)
    return why.as_json()


@action(Role.VIEWER, Image, cost=Cost.SHORT)
async def draw_execution(connection: Connection, caller: Caller, given: models.GraphRequest) -> Image:
    """Draw an execution with the path that it took. A viewer gets no conditions and no messages of errors."""
    picture = await picture_execution(connection, caller, given)
    return image_of(picture, given.format, with_values=caller.sees_values)


@action(Role.VIEWER, Picture, cost=Cost.SHORT)
async def picture_execution(connection: Connection, caller: Caller, given: OneExecution) -> Picture:
    """Make the diagram of an execution with the path that it took."""
    return picture_of_execution(*await load_execution_path(connection, given.execution_id, caller.rules))


@action(Role.OPERATOR, dict[str, Any])
async def show_item(connection: Connection, _caller: Caller, given: models.StepRequest) -> Any:
    """Show one item of an iterator, `fetch[3]`, or `fetch#2[3]` of the second visit."""
    execution_id, step = given.execution_id, given.step or ""
    name = read_item_name(step)
    if name is not None:
        return await load_item(connection, execution_id, name)
    await executions.find_execution(connection, execution_id)
    if not await has_step(connection, execution_id, read_visit(step)[0]):
        raise no_step_fault(execution_id, step)
    raise OperatorFault(
        f"{step} is a step: noetl-broker explain {execution_id} {step} shows it. An item of an iterator is for example"
        f" {step}[3]"
    )


@action(Role.OPERATOR, list[dict[str, Any]])
async def read_events(connection: Connection, _caller: Caller, given: models.StepRequest) -> Any:
    """Read the events of an execution, or of a part of it, in the order of its turns."""
    return await executions.list_events(connection, given.execution_id, events_of(given.step))


def events_of(step: str | None) -> executions.EventsOf | None:
    """The events that a name chooses: of a step, of `load#2`, or of `load[3]`."""
    if step is None:
        return None
    item = read_item_name(step)
    return executions.EventsOf(*(read_visit(step) if item is None else item))


@action(Role.VIEWER, Image, cost=Cost.SHORT)
async def draw_timeline(connection: Connection, _caller: Caller, given: OneExecution) -> Image:
    """Draw the visits of an execution along the time: when each waited, was tried and ended, and its children."""
    row = await executions.find_execution(connection, given.execution_id)
    return Image(SVG, TimeChart(await load_spans(connection, row)).svg())


@action(Role.OPERATOR, dict[str, Any], cost=Cost.LONG)
async def show_snapshot(connection: Connection, caller: Caller, given: models.SnapshotRequest) -> Any:
    """Show the state after a turn: open visits, waiting joins, results. The turns up to it are decided again."""
    state = await state_after(connection, given.execution_id, f"turn:{given.turn}", caller.rules)
    return dict(ids_as_text(state))


@action(Role.OPERATOR, models.Replayed, cost=Cost.LONG)
async def replay_execution(connection: Connection, caller: Caller, given: OneExecution) -> Any:
    """Decide each recorded turn again and report what differs from what was written."""
    found = await find_differences(connection, given.execution_id, caller.rules)
    return {
        "execution_id": given.execution_id,
        "turns": found.turns,
        "running": found.is_running,
        "count": found.count,
        "differences": found.as_documents(),
    }


@action(Role.OPERATOR, models.Verified, cost=Cost.LONG)
async def verify_execution(connection: Connection, caller: Caller, given: OneExecution) -> Any:
    """Check the invariants of an execution and its children in one snapshot."""
    asked = VerifyRequest(execution_id=given.execution_id, which=Which(), examples=MOST_EXAMPLES)
    return await verify_executions(connection, caller, asked)


@action(Role.OPERATOR, models.Verified, cost=Cost.LONG, where=of_verify)
async def verify_executions(connection: Connection, caller: Caller, given: VerifyRequest) -> Any:
    """Check the invariants of executions in one snapshot."""
    scope = VerifyScope(given.execution_id, filter_of(given.which))
    deep = caller.rules if given.deep else None
    report = await verify(connection, scope, examples=given.examples, deep=deep)
    invariants = [
        {
            "invariant": verdict.check.invariant,
            "sentence": verdict.check.sentence,
            "broken": verdict.broken,
            "examples": [fault._asdict() for fault in verdict.examples],
        }
        for verdict in report.verdicts
    ]
    counts = {"executions": report.executions, "running": report.running, "broken": report.broken}
    return counts | {"invariants": invariants}

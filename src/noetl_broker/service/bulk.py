"""One action on many executions: which it is for, a preview in groups, and the action on each at a limited rate."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast, get_args

from noetl_broker.broker.state.state import COMPENSATING, FAILED, is_live
from noetl_broker.errors import BrokerError, DatabaseFault, OperatorFault
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service import recoveries
from noetl_broker.service.action import Caller, Cost, Role, action
from noetl_broker.service.execution_actions import STATUSES_OF, on_version
from noetl_broker.service.executions import filter_of
from noetl_broker.service.models import actions as models
from noetl_broker.service.models.actions import GroupView
from noetl_broker.service.models.executions import ListExecutions
from noetl_broker.service.playbooks import named_filter
from noetl_broker.service.recoveries import OtherPlaybook, Outlook
from noetl_broker.service.where import Do, do_with, whole, with_unanswered
from noetl_broker.store.admin import catalog, executions, list_pages, recovery
from noetl_broker.store.admin.erasures import erase_some
from noetl_broker.store.admin.executions import Entry, Filter
from noetl_broker.store.connect.bucket_connections import BucketConnections, Place
from noetl_broker.store.connect.buckets import bucket_of_id, last_id_of
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.store.connect.places import in_their_buckets
from noetl_broker.store.connect.session import translate_faults

Name = TypeVar("Name", int, str)
REASON_SHOWN = 80  # characters
MOST_COUNTED = 10_000  # executions of a preview
MOST_GROUPS = 100
MOST_PLANNED = 200  # executions that a preview looks at one by one
MOST_COMPARED = 8  # of these, for a page
MOST_EXAMPLES = 3  # groups of a page whose example is planned
MOST_SHOWN = 20  # groups of a page
ERASED_AT_ONCE = 50
RATE = 10_000.0  # a second: the number of executions bounds a request

# A UUID; a word of 6 characters or more with a digit; a number.
_VARYING = re.compile(
    r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|\b(?=\w*\d)\w{6,}\b"
    r"|\d+(?:[.,:]\d+)*"
)


class Acted(NamedTuple):
    """The answer for each execution, and the message of each failure."""

    done: list[dict[str, Any]]
    failed: list[dict[str, Any]]


def actions_for(status: str) -> list[models.BulkOrErase]:
    """The actions on executions in a status, without a status all."""
    actions = (each for each, statuses in STATUSES_OF.items() if not status or status in statuses)
    return [cast("models.BulkOrErase", each) for each in actions if each in get_args(models.BulkOrErase)]


async def find_executions(
    connection: Connection, action: models.BulkOrErase, which: Filter, *, limit: int, after: int = 0
) -> list[Entry]:
    """The executions that an action is for, the oldest first, with `path`, `step` and `reason`.

    `retry` and `fork` are for executions without a parent that nothing recovered before. A `fork` without a status
    is for failed executions only: repeated, it must not fork its own forks. `reevaluate` is for executions with dead
    letters.
    """
    if action == "retry" or (action == "fork" and which.status is None):
        return await recovery.search_failed(connection, which, limit=limit, after=after)
    if action == "reevaluate":
        letters = await recovery.search_dead_letters(connection, which, limit=limit)
        return [*{letter["execution_id"]: letter for letter in reversed(letters)}.values()][::-1]
    return await executions.search_executions(
        connection, which, statuses=STATUSES_OF[action], limit=limit, new_only=action == "fork", after=after,
        unerased=action == "erase",
    )  # fmt: skip


async def find_left_out(
    connection: Connection, action: models.BulkOrErase, which: Filter, *, limit: int
) -> list[int] | None:
    """The executions that a retry or a fork leaves out: they were recovered already. None for other actions."""
    if action not in {"retry", "fork"}:
        return None
    return await recovery.list_recovered(connection, which, limit=limit)


def group_executions(
    found: Sequence[Entry],
    *,
    latest: Mapping[str, int] | None = None,
    outlooks: Mapping[int, Outlook] | None = None,
) -> list[GroupView]:
    """The groups of a preview, the largest first. `latest`: the latest versions, by path; `outlooks` by execution."""
    latest, outlooks = latest or {}, outlooks or {}
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in found:
        reason = without_numbers(entry["reason"] or "")
        key = (entry["path"], entry.get("version"), entry.get("step"), reason, outlooks.get(entry["execution_id"]))
        groups.setdefault(key, []).append(entry)
    made = []
    for (path, version, step, reason, outlook), entries in sorted(groups.items(), key=lambda item: -len(item[1])):
        reasons = {entry["reason"] or "" for entry in entries}
        shown = reasons.pop() if len(reasons) == 1 else reason
        newest = latest.get(path)
        is_newer = newest is not None and version is not None and newest > version
        made.append(GroupView(
            path=path, version=version, step=step, reason=shown[:REASON_SHOWN], executions=len(entries),
            example=entries[-1]["execution_id"], latest=newest if is_newer else None,
            outlook=outlook and outlook.says, goes_on=outlook and outlook.goes_on,
        ))  # fmt: skip
    return made


def without_numbers(reason: str) -> str:
    """A reason with `…` in place of numbers and of words of six characters or more that have a digit."""
    return _VARYING.sub("…", reason)


async def act_at_rate(
    key: str,
    names: Iterable[Name],
    action: Callable[[Name], Awaitable[dict[str, Any]]],
    rate: float,
    on_each: Callable[[Name, BrokerError | None], None] = lambda _name, _fault: None,
) -> Acted:
    """Act on each of these names, at most `rate` a second; each answer has the name under the `key`.

    A failure is reported, and the others go on. `on_each` is called after each, with its name and its fault. Raises
    DatabaseFault: the others would fail too.
    """
    acted = Acted([], [])
    began = time.monotonic()
    for number, name in enumerate(names):
        await asyncio.sleep(max(0.0, number / rate - (time.monotonic() - began)))
        fault = None
        try:
            with translate_faults():
                acted.done.append({key: name, **await action(name)})
        except DatabaseFault:
            raise
        except BrokerError as error:
            fault = error
            acted.failed.append({key: name, "message": str(fault)})
        on_each(name, fault)
    return acted


async def act_on_executions(
    connection: Connection,
    request: BulkAction,
    ids: Sequence[int],
    rate: float,
    on_each: Callable[[int, BrokerError | None], None] = lambda _id, _fault: None,
) -> Acted:
    """Act on each of these executions, at most `rate` a second; an erasure takes ERASED_AT_ONCE in a transaction."""
    if request.action != "erase":
        return await act_at_rate("execution_id", ids, partial(request.act, connection), rate, on_each)
    acted = Acted([], [])
    began = time.monotonic()
    for first in range(0, len(ids), ERASED_AT_ONCE):
        await asyncio.sleep(max(0.0, first / rate - (time.monotonic() - began)))
        some = ids[first : first + ERASED_AT_ONCE]
        try:
            with translate_faults():
                answers = await erase_some(connection, some, request.by)
        except DatabaseFault:
            raise
        except BrokerError as error:  # of all of them
            answers = dict.fromkeys(some, (0, str(error)))
        for execution_id, (count, refused) in answers.items():
            fault = None if refused is None else BrokerError(refused)
            if fault is None:
                acted.done.append({"execution_id": execution_id, "executions": count})
            else:
                acted.failed.append({"execution_id": execution_id, "message": str(fault)})
            on_each(execution_id, fault)
    return acted


class BulkAction:
    """An action on many executions, as a request says it. A fork may have an `other` playbook, and `values` by step.

    Raises OperatorFault for a field that is of another action.
    """

    def __init__(
        self,
        given: models.Treatment,
        rules: PlaybookRules,
        by: str | None = None,
        *,
        other: OtherPlaybook | None = None,
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if given.from_step is None and given.action == "fork":
            raise OperatorFault("`from` is missing: the step to fork from")
        if given.from_step is not None and given.action != "fork":
            raise OperatorFault("`from` is the step to fork from: leave it out")
        if given.version is not None and given.action not in {"retry", "fork"}:
            raise OperatorFault("`version` is that on which a retry or a fork goes on: give it with these only")
        self.action, self.reason, self.rules, self.by = given.action, given.reason, rules, by
        self.on = on_version(given.version, rules, or_from_start=given.or_from_start)
        self.fork = recoveries.ForkFrom(given.from_step or "", values, self.on, other)

    async def act(self, connection: Connection, execution_id: int) -> dict[str, Any]:
        """Act on one execution; gives a report."""
        if self.action == "retry":
            return await recoveries.recover_failed(connection, execution_id, self.rules, self.on, self.by)
        if self.action == "fork":
            key = f"fork of {execution_id} from {self.fork.step}"  # a second fork returns the same execution
            made = await recoveries.fork_execution(connection, execution_id, self.fork, self.rules, key, self.by)
            return {"recovered_as": made.execution_id, "taken": [*made.plan.taken]}
        if self.action == "reevaluate":
            return {"put_back": await call(connection, "put_back", execution_id)}
        arguments = (self.by,) if self.action == "resume" else (self.reason, self.by)
        return {"requested": await call(connection, f"{self.action}_execution", execution_id, *arguments)}

    async def outlook(self, connection: Connection, execution_id: int) -> Outlook:
        """What a fork, a retry or an erasure of an execution would do."""
        if self.action == "erase":
            found = await call(connection, "erase_execution", execution_id, True)  # noqa: FBT003 - of the SQL function
            others = found["executions"] - 1
            says = f"erases it and {others} more" if others else "erases it"
            return Outlook(found["refused"] is None, without_numbers(found["refused"] or says))
        if self.action == "fork":
            return await recoveries.preview_fork(connection, execution_id, self.fork, self.rules)
        return await recoveries.preview_retry(connection, execution_id, self.rules, self.on)

    @property
    def is_planned(self) -> bool:
        """Whether a preview looks at executions one by one: not of a retry on the same version, nor of most others."""
        return self.action in {"fork", "erase"} or (self.action == "retry" and self.on is not None)


async def preview_groups(
    connection: Connection,
    request: BulkAction,
    found: Sequence[Entry],
    *,
    most_planned: int,
    examples: int = 0,
    on_each: Callable[[], object] = lambda: None,
) -> list[GroupView]:
    """The groups of a preview, the largest first.

    For a fork, and for a retry on another version, the first `most_planned` executions are each planned: their groups
    have the outlook. `on_each` is called after each. For a retry on their own versions, groups have the latest
    version. The first `examples` of them have the outlook of their newest execution.
    """
    outlooks: dict[int, Outlook] = {}
    for entry in found[:most_planned] if request.is_planned else ():
        outlooks[entry["execution_id"]] = await request.outlook(connection, entry["execution_id"])
        on_each()
    if request.action != "retry" or request.is_planned:
        return group_executions(found, outlooks=outlooks)
    latest = await catalog.latest_versions(connection, {entry["path"] for entry in found} - {None})
    groups = group_executions(found, latest=latest)
    for index, group in enumerate(groups[:examples]):
        goes_on, says = await request.outlook(connection, group.example)
        groups[index] = group.model_copy(update={"outlook": says, "goes_on": goes_on})
    return groups


def why_left_out(action: models.BulkOrErase, row: Mapping[str, Any]) -> str | None:
    """Why an action is not for an execution, a row of `executions.list_chosen`; None: it is."""
    if action == "reevaluate":
        return None if row["dead_letters"] else "has no dead letters"
    if row.get("erased_at") is not None and action in {"retry", "fork", "erase"}:
        return "was erased"
    if row["status"] not in STATUSES_OF[action]:
        return _why_not_in(row["status"], action)
    if action in {"retry", "fork"} and row["recovered_as"] is not None:
        return "was recovered already"
    if action in {"retry", "fork"} and row["parent_execution_id"] is not None:
        return "is a child: retry or fork the execution that called it"
    return None


def _why_not_in(status: str, action: models.BulkOrErase) -> str:
    """Why an action is not for a status that it has no row for."""
    if action == "erase":
        return f"has not ended, it is {status}"
    if action == "retry":
        return f"has not failed, it is {status}"
    if status == COMPENSATING:
        return "is undoing what it did" if action == "fork" else "is undoing what it did: abandon ends it"
    if not is_live(status):
        return f"has ended, it is {status}"
    return f"is not paused, it is {status}" if action == "resume" else f"is {status.lower()} already"


async def in_bucket_order(buckets: BucketConnections, do: Do, given: models.OfMany) -> Any:
    """In one bucket after the other. The id where the next request goes on says its bucket."""
    done: dict[str, Any] = {"found": 0, "left_out": 0, "groups": [], "done": [], "failed": [], "next": None}
    left, after = given.limit, given.after
    for number in range(bucket_of_id(after or 0), buckets.count):
        part = given.model_copy(update={"after": after, "limit": max(left, 1)})
        answers = await buckets.in_all(partial(do_with, do, part), [number])
        done = with_unanswered(done, answers)
        for answer in answers.of.values():
            done |= {name: done[name] + answer[name] for name in done if name in answer and name != "next"}
            after = answer.get("next")
            left -= 0 if given.preview else answer["found"]
        if after is not None or (left <= 0 and number + 1 < buckets.count):
            return {**done, "next": last_id_of(number) if after is None else after}
    return done | {"groups": done["groups"][:MOST_GROUPS]}


@action(Role.OPERATOR, models.Treated, cost=Cost.LONG, where=in_bucket_order)
async def act_on_many(connection: Connection, caller: Caller, given: models.BulkRequest) -> Any:
    """Cancel, pause, resume, retry, fork or reevaluate many executions, or count them by a preview.

    `retry` takes failed executions that nothing recovered before and that have no parent; `fork` does so too, but
    `which` can have another status. `reevaluate` takes those with dead letters. A preview of a fork, or of a retry with
    `version`, plans each of the first 200.
    """
    return await _act_on_many(connection, given, BulkAction(given, caller.rules, caller.by))


@action(Role.OPERATOR, models.Treated, cost=Cost.LONG, where=in_bucket_order)
async def erase_many(connection: Connection, caller: Caller, given: models.EraseManyRequest) -> Any:
    """Erase the values of many executions that have ended, or count them by a preview.

    Each is erased with what it started, its forks and its retries. A preview says which are refused, of the first 200.
    """
    return await _act_on_many(connection, given, BulkAction(models.Treatment(action="erase"), caller.rules, caller.by))


async def _act_on_many(connection: Connection, given: models.OfMany, request: BulkAction) -> dict[str, Any]:
    which = named_filter(given.which)
    most = MOST_COUNTED if given.preview else given.limit
    found = await find_executions(connection, request.action, which, limit=most, after=given.after or 0)
    if given.preview:
        groups = await preview_groups(connection, request, found, most_planned=MOST_PLANNED)
        left_out = await find_left_out(connection, request.action, which, limit=MOST_COUNTED) or []
        return {
            "found": len(found),
            "left_out": len(left_out),
            "groups": groups[:MOST_GROUPS],
        }
    ids = [each["execution_id"] for each in found]
    acted = await act_on_executions(connection, request, ids, RATE)
    following = found[-1]["execution_id"] if len(found) == most else None
    return {"found": len(found), **acted._asdict(), "next": following}


class Preview(NamedTuple):
    """The executions of an action: `chosen` match, `batch` is acted on now, `left_out` has others with the reasons."""

    batch: list[Entry]
    chosen: int
    acted: int  # that the action is for, in this batch and later ones
    left_out: dict[str, list[int]]

    @property
    def after(self) -> int | None:
        """Where the next batch begins; None if this is the last."""
        return self.batch[-1]["execution_id"] if self.acted > len(self.batch) else None


async def _preview(connection: Place, caller: Caller, given: models.ChosenRequest, found: Preview) -> dict[str, Any]:
    """What the action would do; `steps` are those from which forks may begin. A fork without a step is not planned."""
    is_ready = given.action != "fork" or given.from_step is not None
    groups = group_executions(found.batch)
    if is_ready:
        request, rows = BulkAction(given, caller.rules, caller.by), {row["execution_id"]: row for row in found.batch}

        async def preview(one: Connection, ids: list[int]) -> list[GroupView]:
            some = [rows[each] for each in ids]
            return await preview_groups(one, request, some, most_planned=MOST_COMPARED, examples=MOST_EXAMPLES)

        parts = await in_their_buckets(connection, [*rows], preview)
        groups = [group for part in parts for group in part]
    steps = []
    if given.action == "fork" and found.batch:
        [details] = await in_their_buckets(connection, [found.batch[-1]["execution_id"]], _load_details)
        steps = [row["step"] for row in details["steps"]]
    return {"found": found, "groups": groups[:MOST_SHOWN], "steps": steps, "ready": is_ready}


async def _choose(place: Place, given: models.ChosenRequest) -> Preview:
    """The executions of a request, without those that the action is not for; with buckets, in the order of these."""
    if not isinstance(place, BucketConnections):
        return await _choose_on(place, given)
    parts = []
    for number in range(bucket_of_id(given.after), place.count):
        after = given.after if number == bucket_of_id(given.after) else 0
        ids = None if given.ids is None else [one for one in given.ids if bucket_of_id(one) == number]
        if ids == []:
            continue
        part = given.model_copy(update={"ids": ids, "after": after})
        parts.append(await place.in_bucket(number, partial(_do_choose, part)))
    lost = [one for one in given.ids or () if bucket_of_id(one) >= place.count]
    parts.append(Preview([], len(lost), 0, {"does not exist": lost} if lost else {}))
    left_out: dict[str, list[int]] = {}
    for found in parts:
        for why, some in found.left_out.items():
            left_out[why] = [*left_out.get(why, []), *some]
    batch = [entry for found in parts for entry in found.batch][: models.MOST_TREATED]
    return Preview(batch, sum(found.chosen for found in parts), sum(found.acted for found in parts), left_out)


async def _load_details(connection: Connection, ids: list[int]) -> dict[str, Any]:
    return await executions.load_execution_details(connection, ids[0])


async def _do_choose(given: models.ChosenRequest, connection: Connection) -> Preview:
    return await _choose_on(connection, given)


async def _choose_on(connection: Connection, given: models.ChosenRequest) -> Preview:
    """The executions of a request on one connection, without those that the action is not for."""
    action, ids = given.action, given.ids
    if ids is None:
        asked = given.which or ListExecutions()
        which = filter_of(asked)
        if asked.text is None:
            found = await find_executions(connection, action, which, limit=MOST_COUNTED, after=given.after)
            left = await find_left_out(connection, action, which, limit=MOST_COUNTED)
            reasons = {"was recovered already": left} if left else {}
            return Preview(found[: models.MOST_TREATED], len(found), len(found), reasons)
        if action == "fork" and which.status is None:
            which = replace(which, status=FAILED)
        page = await list_pages.page_executions(connection, which, text=asked.text, limit=MOST_COUNTED)
        ids = [row["execution_id"] for row in page.items if row["execution_id"] > given.after]
    rows = await executions.list_chosen(connection, ids)
    missing = set(ids) - {row["execution_id"] for row in rows}
    left_out: dict[str, list[int]] = {"does not exist": sorted(missing)} if missing else {}
    batch = []
    for row in rows:
        why = why_left_out(action, row)
        if why is None:
            batch.append(row)
        else:
            left_out.setdefault(why, []).append(row["execution_id"])
    return Preview(batch[: models.MOST_TREATED], len(set(ids)), len(batch), left_out)


@action(Role.OPERATOR, dict[str, Any], cost=Cost.LONG, where=whole)
async def act_on_chosen(connection: Place, caller: Caller, given: models.ChosenRequest) -> Any:
    """Act on chosen executions: `done` and `failed` with their paths, `left_out` with the reasons. Or preview it."""
    found = await _choose(connection, given)
    if given.preview:
        return await _preview(connection, caller, given, found)
    request = BulkAction(given, caller.rules, caller.by)
    paths = {row["execution_id"]: row["path"] for row in found.batch}

    async def act(one: Connection, ids: list[int]) -> Acted:
        return await act_on_executions(one, request, ids, RATE)

    answers: dict[str, list[dict[str, Any]]] = {"done": [], "failed": []}
    for acted in await in_their_buckets(connection, [*paths], act):
        for name, some in acted._asdict().items():
            answers[name] += [{**one, "path": paths[one["execution_id"]]} for one in some]
    return {**answers, "left_out": found.left_out}

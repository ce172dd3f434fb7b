"""Random playbooks in a real database: two daemons that are broken while they work, compared with the reference."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from noetl_broker.history.replay import replay_history, sentences
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.history import Versions, load_histories
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.turn import turn_rows
from noetl_broker.store.turn.undo_rows import UndoColumns
from tests.brokers import PATIENCE_SECONDS, broken_invariants, running
from tests.chaos.mutants import NO_SECOND_WALL, Function, Method, Patch
from tests.postgres import Database
from tests.sessions import session
from tests.simulation.compare import difference
from tests.simulation.effects import reference_event
from tests.simulation.expressions import Constant
from tests.simulation.outside import Outside
from tests.simulation.plans import Compensate, Entry, Failure, Iterate, Plan, Retry, Step, Target, document
from tests.simulation.reference import Reference
from tests.simulation.reference_model import Row
from tests.simulation.scenarios import KINDS, Scenario, scenario

LONG = os.environ.get("NOETL_CHAOS") == "long"
OF_EACH_KIND = 20  # seeds of a batch
PAGE = 50  # executions whose histories are loaded at once
OF_MUTANT = 20  # executions of a round
MOST_ROUNDS = 10
BATCHES = 25 if LONG else 1
pytestmark = pytest.mark.simulation

EVENTS = """
select t.execution_id, e.event_type, e.node_id, e.meta, e.context, e.result, e.error, e.parent_execution_id, t.facts
from noetl.turn t
join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = any($1)
order by t.execution_id, t.turn"""
PLACES = """
select execution_id, split_part(node_id, ':', 2) as node, pool, priority
from noetl.queue
where execution_id = any($1)"""


def renamed(plan: Plan, suffix: str) -> Plan:
    """Return a plan with other paths, because all seeds share a catalog."""

    def step(one: Step) -> Step:
        iterate, undo = one.iterate, one.compensate
        if undo is not None and undo.path is not None:
            undo = undo._replace(path=undo.path + suffix)
        if iterate is not None:
            of_item = iterate.compensate
            if of_item is not None and of_item.path is not None:
                of_item = of_item._replace(path=of_item.path + suffix)
            iterate = iterate._replace(path=iterate.path and iterate.path + suffix, compensate=of_item)
        return replace(one, path=one.path and one.path + suffix, iterate=iterate, compensate=undo)

    children = tuple(renamed(child, suffix) for child in plan.children)
    return replace(plan, path=plan.path + suffix, steps=tuple(map(step, plan.steps)), children=children)


async def begin(connection: Connection, scenarios: list[Scenario]) -> None:
    """Register all plans and start each scenario's executions."""
    playbooks = [(plan.path, dump_json(document(plan))) for one in scenarios for plan in one.plan.family()]
    insert = "insert into noetl.catalog (path, version, name, content) values ($1, 1, $1, $2)"
    await connection.executemany(insert, playbooks)
    starts = [(one.plan.path, dict(one.payload), one.options) for one in scenarios for _ in range(one.roots)]
    await connection.executemany("select noetl.start_execution($1, $2, options => $3)", starts)


async def differences(connection: Connection, scenarios: Mapping[str, Scenario]) -> list[str]:
    """Compare each execution of these scenarios, by path, with the reference and with its replay."""
    await connection.execute("analyze noetl.event, noetl.turn, noetl.execution, noetl.queue")
    of_paths = "select execution_id, path, status, tags, parent_execution_id from noetl.execution where path = any($1)"
    executions = await connection.fetch(f"{of_paths} order by 1", [*scenarios])
    ids = [row["execution_id"] for row in executions]
    events: dict[int, list[Row]] = {number: [] for number in ids}
    for row in await connection.fetch(EVENTS, ids):
        events[row["execution_id"]].append(dict(row))
    versions, histories = Versions(PlaybookRules()), {}
    for at in range(0, len(ids), PAGE):
        page = await load_histories(connection, ids[at : at + PAGE], versions)
        histories.update({one.execution_id: one for one in page})
    references: dict[int, Reference] = {}
    found: list[str] = []
    for row in executions:
        number, path = row["execution_id"], row["path"]
        turns, by_replay = replay_history(histories[number])
        parent, options = references.get(row["parent_execution_id"]), scenarios[path].options
        plan = scenarios[path].plan.by_path()[path]
        references[number] = Reference(plan, number, options={} if parent else options, parent=parent)
        found += [f"{path}: {text}" for text in sentences(by_replay)]
        found += [f"{path}: {text}" for text in _of_turns(turns, events[number], references[number])][:1]
        if row["status"] != references[number].status:
            found.append(f"{path}: it is {row['status']}, in the reference {references[number].status}")
        if (row["tags"] or {}) != references[number].tags:
            found.append(f"{path}: it has the tags {row['tags']}, in the reference {references[number].tags}")
    for row in await connection.fetch(PLACES, ids):
        node, place = re.sub(r"#1\b", "", row["node"]), (row["pool"], row["priority"])
        expected = references[row["execution_id"]].jobs.get(node, place)
        if place != expected:
            found.append(f"{row['execution_id']}: job {node} has {place}, in the reference {expected}")
    return found


def _of_turns(turns: list[Any], events: list[Row], reference: Reference) -> Iterator[str]:
    """Yield the turns that the reference decides otherwise."""
    for turn, event in zip(turns, events, strict=True):
        read, meta = turn.recorded.event, event["meta"] if isinstance(event["meta"], dict) else {}
        leases = (event["facts"] or {}).get("attempt") or meta.get("attempt") or 0
        known = reference_event(event, leases)
        if known is not None:
            known = known._replace(number=turn.recorded.turn.number)
        if known is not None and read.path_paused:
            known = known._replace(path_is_paused=True)
        if known is not None and known.kind == "signal" and read.stale:
            known = None  # it came by another event
        text = difference(reference, known, turn.decision)
        if text is not None:
            yield f"turn {turn.recorded.turn.number} on {event['event_type']} {event['node_id']}:{text}"


async def run_scenarios(database: Database, scenarios: list[Scenario]) -> list[str]:
    """Run scenarios on two daemons; return the differences and the broken invariants."""
    of_paths = {plan.path: one for one in scenarios for plan in one.plan.family()}
    async with session(database) as own:
        await begin(own, scenarios)
        outside = Outside(own, of_paths, f"outside {scenarios[0].seed}")
        async with running(database), running(database):
            await asyncio.wait_for(outside.act(), 6 * PATIENCE_SECONDS)
        found = await differences(own, of_paths)
    return [
        *outside.faults,
        *found,
        *(f"{check}: {rows}" for check, rows in (await broken_invariants(database)).items()),
    ]


# Two actions beside each other that fail, one is tried again; and an iterator that is undone as a whole.
RETRIED = Step(name="a", kind="action", retry=Retry(max_attempts=6, initial_delay=0))
FAILING = (
    Step(name="start", entries=(Entry(then=(Target("a"), Target("b"))),)),
    RETRIED,
    Step(name="b", kind="action"),
)
ONE_AGAIN = (Step(name="start", entries=(Entry(then=(Target("a"),)),)), RETRIED)
ITEMS = Iterate(Constant([1, 2, 3]), (), compensate=Compensate(), concurrency=3, pool=Constant("gpu"))
UNDONE = (
    Step(name="start", entries=(Entry(then=(Target("each"),)),)),
    Step(name="each", kind="iterator", iterate=ITEMS, compensate=Compensate(), entries=(Entry(then=(Target("no"),)),)),
    Step(name="no", kind="fail", failure=Failure(Constant("declined"), Constant("no"))),
)

STORE_MUTANTS: dict[str, tuple[tuple[Step, ...], float, tuple[Patch, ...]]] = {
    "a plain decision changes jobs": (
        ONE_AGAIN, 0.5, (Method(turn_rows, "add_turns", "if decision.effects:", "if begun is not None:"),)
    ),
    "retries survive the end": (FAILING, 1.0, (Method(turn_rows, "_stop_work", r"change\[2\] in NOT_HELD", "False"),)),
    "items are undone beside the whole": (
        UNDONE, 0.0, (Method(UndoColumns, "_supersede", r"self\.superseded\[owner, step, visit\] = None", "pass"),)
    ),
    "jobs have no pool": (
        UNDONE, 0.0, (Method(turn_rows, "_add_job", "job.pool is not None", "False"),)
    ),
    "an undo that is queued again has no pool": (
        UNDONE, 0.5, (Method(UndoColumns, "again_arguments", 'few.get."pool".', "None"),)
    ),
    "the tags of a playbook are not written": (
        ONE_AGAIN, 0.0, (Method(turn_rows, "_add_begun", r"json_or_null\(begun.tags\)", "None"),)
    ),
    "neither lock nor turn key": (
        FAILING, 0.5,
        (Function("noetl.lock_executions", r"pg_try_advisory_xact_lock\(u\.execution_id\)", "true"), *NO_SECOND_WALL),
    ),
}  # fmt: skip


@pytest.mark.chaos
@pytest.mark.parametrize("batch", range(BATCHES))
async def test_random_playbooks_on_two_daemons_equal_the_reference(database: Database, batch: int) -> None:
    """With killed sessions, duplicates and lost leases, each turn decides what the reference decides."""
    first = batch * OF_EACH_KIND
    made = [scenario(kind + at) for kind in KINDS for at in range(first, first + OF_EACH_KIND)]
    made += [
        Scenario(-at, Plan(path="own", steps=steps), failing=odds)
        for at, (steps, odds, _) in enumerate(STORE_MUTANTS.values(), 1)
    ]
    found = await run_scenarios(database, [one._replace(plan=renamed(one.plan, f"-{one.seed}")) for one in made])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", STORE_MUTANTS)
async def test_a_fault_of_the_store_is_found(database: Database, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A changed function of the database, or of what is written into it: chance shows it in one of a few rounds.

    A deadlock shows it, too: what two brokers write of one execution may wait for a worker, and the worker for them.
    """
    steps, failing, patches = STORE_MUTANTS[name]
    for patch in patches:
        await patch.apply(database, monkeypatch)
    for seed in range(MOST_ROUNDS):
        plan = Plan(path=f"main-{seed}", steps=steps, tags=(("team", Constant("a")),))
        try:
            found = await run_scenarios(database, [Scenario(seed, plan, roots=OF_MUTANT, failing=failing)])
        except asyncpg.DeadlockDetectedError:
            return
        if found:
            return
    pytest.fail(f"{MOST_ROUNDS} rounds do not show it")

"""Runs one scenario: the differences that it shows, and the features that it is an example of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.json_codec import dump_json
from tests.simulation.checks import Difference, differences, replayed_executions
from tests.simulation.plans import Plan, document
from tests.simulation.reference_model import arcs_of
from tests.simulation.scenarios import Scenario
from tests.simulation.signals import features
from tests.simulation.simulator import Simulator, Stuck
from tests.simulation.tables import Row

FEATURES_BY_EVENT = {
    "timer_due": "a wait that is over",
    "approval_decided": "a decided approval",
    "execution_signal": "a signal",
    "action_retry": "a retry",
    "iteration_failed": "a failed item",
    "iteration_started": "an iterator",
    "step_cancelled": "a closed visit",
    "execution_paused": "a paused execution",
    "execution_queued": "a queued execution",
}


class Trial(NamedTuple):
    """The outcome of a scenario: differences with the stories of executions, and counts of features."""

    scenario: Scenario
    differences: tuple[str, ...]
    stories: tuple[str, ...]
    counts: Counter[str]


def run_trial(scenario: Scenario, *, defects: frozenset[str] = frozenset()) -> Trial:
    """Run a scenario and compare it with the reference; `defects` as in `Server`."""
    simulator = Simulator(scenario, defects=defects)
    found: list[Difference] = []
    stories: list[str] = []
    seen: Counter[str] = Counter()
    try:
        simulator.run()
    except Stuck as stuck:
        found.append(Difference(str(stuck)))
    try:
        found += differences(simulator)
        seen = Counter(dict.fromkeys(_features(simulator), 1))
        if found:
            stories = [f"execution {owner}:\n{story}" for owner, story in _stories(simulator, found)]
    except Exception as error:  # noqa: BLE001 - a broken core may write rows that cannot be read
        found.append(Difference(f"the history cannot be read: {type(error).__name__}: {error}"))
    seen.update({f"times {name}": count for name, count in simulator.counts.items()})
    seen.update({"executions": len(simulator.tables.executions), "turns": len(simulator.tables.turns)})
    return Trial(scenario, tuple(difference.message for difference in found), tuple(stories), seen)


def _stories(simulator: Simulator, found: list[Difference]) -> Iterator[tuple[int, str]]:
    """Yield the story of the execution with the first difference; of all if it names none."""
    first = found[0].execution
    if first is not None:
        yield first.row["execution_id"], first.story()
        return
    for execution, _ in replayed_executions(simulator):
        yield execution.row["execution_id"], execution.story()


def is_valid(plan: Plan) -> bool:
    """Tell whether all playbooks of a plan can be registered."""
    try:
        for one in plan.family():
            compile_playbook(dump_json(document(one)), rules=PlaybookRules())
    except PlaybookFault:
        return False
    return True


def _features(simulator: Simulator) -> Iterator[str]:
    """Yield the features that the run is an example of."""
    tables = simulator.tables
    for event in tables.events.values():
        if event["event_type"] in FEATURES_BY_EVENT:
            yield FEATURES_BY_EVENT[event["event_type"]]
        if event["event_type"] == "execution_paused" and "parent_execution_id" in (event["context"] or {}):
            yield "a paused child"
        if event["event_type"] == "step_failed":
            yield from _features_of_failure(event)
        if (event["error"] or {}).get("type") == "need_not_met":
            yield "a join with too few arrivals"
        if event["event_type"] == "step_started" and event["execution_id"] in tables.executions:
            yield from _features_of_visit(simulator, event)
    yield from features(tables)
    for execution in tables.executions.values():
        yield f"an execution that is {execution['status']}"
        if execution["parent_execution_id"] is not None:
            yield "a child"
    yield from (f"an event that is {turn['outcome']}" for turn in tables.turns.values() if turn["outcome"] != "decided")
    yield "a stable plan" if simulator.scenario.stable else "an unstable plan"


def _features_of_failure(event: Row) -> Iterator[str]:
    meta = event["meta"] or {}
    if "spent" in meta:
        yield "a failure of a spent token"
    if "caught" in meta:
        yield "a caught failure" if event["result"] is None else "a caught failure with data"
    elif "catch" in meta:
        yield "a failure that no entry of catch fits"


def _features_of_visit(simulator: Simulator, event: Row) -> Iterator[str]:
    path, name = simulator.tables.executions[event["execution_id"]]["path"], event["node_name"]
    plan = simulator.scenario.plan.by_path()[path]
    step = next(step for step in plan.steps if step.name == name)
    if step.join or sum(arc.target == name for arc in arcs_of(plan)) > 1:
        yield f"a join of {step.join or 'all'}"
        if step.need > 1:
            yield "a join of several"
    if "#" in event["node_id"]:
        yield "a step visited again"
    if step.kind in {"router", "wait"}:
        yield f"a {step.kind}{' for a signal' if step.signal else ''}"
        if "#" in event["node_id"] and step.signal:
            yield "a wait for a signal again"
    if step.output is not None:
        yield "an output"
    if step.kind == "fail":
        yield "a step that fails"
    if step.kind == "signal":
        yield "a step that sends a signal"
    if step.kind == "approval":
        yield "an approval"

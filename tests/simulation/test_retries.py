"""A retry begins where its original was before the failure: the same open visits, tokens, counts and results.

Random executions fail. What `Session` has before the failed turn, on the own version or on another one, is compared
with what the retry has after its start. Then both get the same answers, and must decide the same.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import yaml

from noetl_broker.broker.arrivals import forks
from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.wants import want_turn
from noetl_broker.broker.flow import tags
from noetl_broker.broker.model.decision import Decision, ExecutionEnd
from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.state.state import EndReached, InlineResult, ResultRef
from noetl_broker.compiled_form import installed_form
from noetl_broker.history import fork_inputs, fork_plan, recovery_plan
from noetl_broker.history.record import History, RecordedTurn
from noetl_broker.history.recovery_plan import OtherWay, plan_recovery
from noetl_broker.history.story import STORY_START
from noetl_broker.playbook import Playbook, PlaybookRules, compile_playbook
from tests.forks import fork_history
from tests.simulation.life import RULES, Life
from tests.simulation.mutants import Mutant, applied
from tests.simulation.plans import Plan, document
from tests.simulation.random_plans import APPROVALS_FROM, NEEDS_FROM, WAITS_FROM
from tests.simulation.scenarios import CATCHES_FROM, ITEMS_FROM, scenario
from tests.simulation.world import Stuck, World

pytestmark = pytest.mark.simulation
FAILING = 0.4
SEEDS = 20
FAULTS = (
    Mutant("finished visits are not counted", 0, fork_plan.plan_of, "timeline.latest.step.", "1"),
    Mutant("open visits count twice", 0, fork_plan.plan_of, "- sum", "+ 0 * sum"),
    Mutant("no token waits at a join", 0, fork_plan.plan_of, "waiting=before.waiting", "waiting={}"),
    Mutant("no branch has ended", NEEDS_FROM, fork_plan.plan_of, "ends=.*\\n", "ends=(),\n"),
    Mutant("the end is not reached", NEEDS_FROM, fork_plan.plan_of, "end=before.end", "end=None"),
    Mutant("a visit is not spent any more", 20, recovery_plan._entered_again, "spent=.*", "spent=frozenset(),"),
    Mutant("a visit is begun anew", 0, recovery_plan._entered_again, "visit=visit.1.,", ""),
    Mutant("the failed visit is finished", 45, recovery_plan.plan_recovery, "timeline.remove.failed.", "pass"),
    Mutant("the first of two arcs is taken", CATCHES_FROM, forks.ArcNames.find, r"arcs\[min.*", "arcs[0]"),
    Mutant(
        "a token carries another result", 0, forks.decode_fork, "names.get.result.", "min(names.values(), default=0)"
    ),
    Mutant("latest results are left out", 20, fork_inputs.TakenResults.taken, r"\*latest, \*named", "*named,"),
    Mutant("a retry drops its tags", 0, tags.tags_of, r"_given\(draft.event\)", "({}, False)"),
    Mutant("arcs have no place", 0, forks.ArcNames.name, ".index.ordinal.", "[0]"),
)


def failed_lives(seed: int) -> list[Life]:
    """Run a seed whose actions fail often; return the executions whose open visit failed in their last turn."""
    world = World(scenario(seed)._replace(failing=FAILING, pauses=0, undos=0))
    try:
        world.run()
    except Stuck:
        return []
    return [life for life in world.lives.values() if life.status == "FAILED" and not life.undo_rows()]


def history_of(life: Life) -> History:
    """Return the turns of an execution up to the one in which it failed."""
    turns, workload, ended = [], None, None
    for one in life.turns:
        decision = one.decision
        turns.append(RecordedTurn(one.turn, one.event, decision.outcome, decision.note, decision.events, 0))
        for begun in decision.of(ExecutionBegun):
            workload = begun.workload
        if decision.ended is not None:
            ended = ExecutionEnd(*decision.ended[:3])
            break
    return History(
        execution_id=life.number, playbook=life.playbook, rules=RULES, turns=tuple(turns), taken={},
        workload=workload, ended=ended,
    )  # fmt: skip


def shuffled(plan: Plan) -> Playbook:
    """Return a plan with its steps in another order, and one more: all indexes and arcs have other numbers."""
    text = document(plan)
    start, *others = text["workflow"]
    Random(plan.path).shuffle(others)
    text["workflow"] = [start, {"step": "more", "type": "python", "code": "x"}, *others]
    return compile_playbook(
        yaml.safe_dump(text, sort_keys=False), file=plan.path, path=plan.path, rules=PlaybookRules()
    )


def seen_of(session: Session) -> dict[str, Any]:
    """Return what both executions must have: without attempts, and with the results in place of their names."""
    state, steps = session.state, session.playbook.steps  # type: ignore[union-attr] # it has a playbook

    def named(result: ResultRef) -> Any:
        return session.known.answers[want_turn(result)] if isinstance(result, int) else result

    return {
        "open": {visit: (token.spent, token.items and token.items.total) for visit, token in state.tokens.items()},
        "waiting": {
            step: [arrival._replace(result=InlineResult(named(arrival.result))) for arrival in arrivals]
            for step, arrivals in state.waiting.items()
        },
        "visits": {name: state.repeats.get(name, 1) for name, step in steps.items() if state.seen >> step.index & 1},
        "rest": (state.status, state.total, sorted(state.ends)),
        "end": None if state.end is None else EndReached(InlineResult(named(state.end.result)), state.end.inputs),
    }


def effects_of(decision: Decision) -> list[Any]:
    """Return what a decision writes, as far as both executions write the same."""
    events = [(event.type, event.step, event.visit, event.result) for event in decision.events]
    jobs = [(*job[:2], job.item_index, job.action.get("args"), job.pool, job.priority) for job in decision.jobs]
    return [events, jobs]


def differences(life: Life, onto: Playbook) -> list[Any] | None:
    """Compare a retry on a playbook with the original before its failure; None if there is nothing to compare."""
    history = history_of(life)
    failed = history.turns[-1]
    kinds = [event.type for event in failed.events]
    if kinds != ["step_failed", "execution_failed"] or not failed.event.type.startswith("action_"):
        return None
    original = Session(onto, RULES, execution_id=life.number)
    for turn in history.turns[:-1]:
        original.apply(turn.event, turn.turn.at)
    visit = failed.events[0].step or "", failed.events[0].visit
    if visit not in original.state.tokens:
        return None  # it was entered in the turn that failed
    try:
        plan = plan_recovery(history, onto=onto)
    except OtherWay:
        return None
    fork = fork_history(history, plan, playbook=onto)
    retry = Session(onto, RULES, execution_id=life.number, answers=fork.taken)
    start, kept = fork.turns[0].event, {"tags": life.tags, "priority": original.state.priority}  # by the store
    begun = retry.apply(start._replace(meta={**start.meta, **kept}), STORY_START).last(ExecutionBegun)
    found: list[tuple[Any, Any]] = [(seen_of(original), seen_of(retry))]
    found.append((life.tags, life.tags if begun is None or begun.tags is None else begun.tags))
    for number, ((step, visit_number), token) in enumerate([*original.state.tokens.items()]):
        if token.items is None and onto.steps[step].kind == "action":
            event = Event("action_completed", step, visit_number, result={"x": number, "flag": True, "items": [number]})
            one, other = (session.apply(event, STORY_START) for session in (original, retry))
            found += [(effects_of(one), effects_of(other)), (seen_of(original), seen_of(retry))]
    return [pair for pair in found if pair[0] != pair[1]]


@pytest.mark.parametrize("kind", [0, NEEDS_FROM, WAITS_FROM, APPROVALS_FROM, CATCHES_FROM, ITEMS_FROM])
@pytest.mark.parametrize("version", ["own", "shuffled"])
def test_a_retry_goes_on_like_its_original(kind: int, version: str) -> None:
    """On the own version, and on one whose steps and arcs have other numbers."""
    compared = 0
    for seed in range(kind, kind + SEEDS):
        for life in failed_lives(seed):
            found = differences(life, life.playbook if version == "own" else shuffled(life.plan))
            assert not found, f"seed {seed}, execution {life.number}: {found[0]}"
            compared += found is not None
    assert compared > 5


@pytest.mark.skipif(installed_form() == "compiled", reason="a compiled function cannot be changed")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_retries_is_found(fault: Mutant) -> None:
    """A changed function of the plan or of the start, within a few seeds."""
    lives = [life for seed in range(fault.seed, fault.seed + SEEDS) for life in failed_lives(seed)]
    with applied(fault):
        assert any(is_found(life, onto) for life in lives for onto in (life.playbook, shuffled(life.plan)))


def is_found(life: Life, onto: Playbook) -> bool:
    """Tell whether a fault shows: a difference, or a plan that cannot be made."""
    try:
        return bool(differences(life, onto))
    except Exception:  # noqa: BLE001 - what a fault raises
        return True

"""The reference of the simulation: rules that random executions rarely show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.compare import compare_turn
from tests.simulation.expressions import Constant, EvaluationError, FailedItems, Outcome
from tests.simulation.life import Life
from tests.simulation.plans import Compensate, Entry, Iterate, Plan, Retry, Step, Target
from tests.simulation.reference import Reference
from tests.simulation.reference_model import ReferenceEvent
from tests.simulation.scenarios import Scenario
from tests.simulation.undo_checks import broken_undos
from tests.simulation.world import World
from tests.simulation.writes import write_turn

ITEMS = Iterate(collection=Constant([1, 2]), inputs=())
EACH = Plan(
    path="main",
    steps=(
        Step(name="start", entries=(Entry(then=(Target("each"),)),)),
        Step(name="each", kind="iterator", iterate=ITEMS, on_error="continue"),
    ),
)

CHILD = Plan(
    path="child",
    steps=(
        Step(name="start", entries=(Entry(then=(Target("c"),)),)),
        Step(name="c", kind="action", compensate=Compensate()),
    ),
)
START = Step(name="start", entries=(Entry(then=(Target("a"), Target("b"))),))
CALL = Step(name="a", kind="playbook", path="child", timeout=1)
TO_JOIN = (Entry(then=(Target("j"),)),)
# An undo of `b` keeps the execution from its end; a join closes the visit of `a`.
CANCELLED = Plan(
    path="main", children=(CHILD,), steps=(START, CALL, Step(name="b", kind="action", compensate=Compensate()))
)
CLOSED = Plan(
    path="main",
    children=(CHILD,),
    steps=(
        START,
        replace(CALL, entries=TO_JOIN),
        Step(name="b", kind="action", entries=TO_JOIN),
        Step(name="j", kind="action", join="any", losers="cancel"),
    ),
)
RETRIED = Plan(
    path="main",
    children=(CHILD,),
    steps=(
        START,
        replace(CALL, retry=Retry(max_attempts=2, initial_delay=0)),
        Step(name="b", kind="action"),
    ),
)
OF_JOB = {"queue_id": 1, "attempt": 1}
TIMEOUT = {"message": "the action ran too long", "type": "timeout"}


def read_mail(world: World, life: Life) -> None:
    """Let an execution read its mail in order; raises Different if the reference decides otherwise."""
    for mail in [*life.mail]:
        [one] = life.decide([mail], set(), world.clock)
        life.mail.remove(mail)
        compare_turn(life, one)
        write_turn(world, life, one)
        life.store_state()


def with_child(plan: Plan) -> tuple[World, Life, Life]:
    """Start a plan; return its execution, whose step `b` has succeeded but is not read, and that of the child."""
    world = World(Scenario(1, plan))
    life = world.begin(plan, "0", root=0)
    world.send(life, "execution_start", str(life.number), context={"path": plan.path, "version": 1, "workload": {}})
    read_mail(world, life)
    [child] = life.children
    read_mail(world, child)
    world.send(life, "action_completed", life.node("b", 1), result=1, meta=OF_JOB)
    return world, life, child


@pytest.mark.parametrize(
    "lease, through_job, counts",
    [(1, True, True), (None, False, True), (2, False, True), (1, False, False), (0, False, False)],
)
def test_a_failure_of_an_item_beside_its_job_counts_unless_it_names_another_lease(
    lease: int | None, *, through_job: bool, counts: bool
) -> None:
    """The job had two leases. A worker that lost the first may still send an error."""
    reference = Reference(EACH)
    reference.apply(ReferenceEvent("start", value={}))
    failure = ReferenceEvent("item_failed", "each", 0, {}, lease=lease, leases=2, through_job=through_job)
    assert ("iteration_failed" in [effect.what for effect in reference.apply(failure)]) is counts


def test_a_key_of_the_data_hides_the_failed_items_of_an_iterator() -> None:
    """A child may return the places of its own failed items under that key."""
    failed = FailedItems("a")
    assert failed.evaluate(lambda _name: Outcome([None, 1], failed=(0,))) == [0]
    assert failed.evaluate(lambda _name: Outcome({"failed": []})) == []
    with pytest.raises(EvaluationError):
        failed.evaluate(lambda _name: Outcome({"failed": [0]}))


def test_a_child_that_completes_after_its_draining_visit_timed_out_is_undone() -> None:
    """The visit was draining before any event named it, and the child ended before it read that it is cancelled.

    An undo that has begun goes on. So the last success is not the first that is undone.
    """
    world, life, child = with_child(CANCELLED)
    world.send(life, "execution_cancel", str(life.number), context={})
    world.send(life, "action_failed", life.node("a", 1), error=TIMEOUT, meta={**OF_JOB, "retryable": True})
    world.send(child, "action_completed", child.node("c", 1), result=2, meta=OF_JOB)
    read_mail(world, child)
    read_mail(world, life)
    assert life.turns[-1].decision.outcome == "late"
    world.send(life, "action_completed", life.node("b", 1, undo=True), meta=OF_JOB)
    read_mail(world, life)
    undo = life.children[-1]
    read_mail(world, undo)
    world.send(undo, "action_completed", undo.node("c", 1, undo=True), meta=OF_JOB)
    read_mail(world, undo)
    read_mail(world, life)
    assert (life.status, undo.status) == ("CANCELLED", "COMPLETED")
    assert [*broken_undos(world)] == []


def test_a_child_that_completes_after_its_visit_was_cancelled_is_undone() -> None:
    """Also in an execution that has nothing to undo itself: it does not await the visit."""
    world, life, child = with_child(CLOSED)
    world.send(child, "action_completed", child.node("c", 1), result=2, meta=OF_JOB)
    read_mail(world, child)
    read_mail(world, life)
    assert life.turns[-1].decision.outcome == "late"


def test_two_children_of_a_visit_that_completed_are_both_undone() -> None:
    """The first timed out, but had completed. That is read after the success of the second, and only once."""
    world, life, first = with_child(RETRIED)
    world.send(first, "action_completed", first.node("c", 1), result=2, meta=OF_JOB)
    read_mail(world, first)
    *_, late = life.mail
    life.mail.clear()
    world.send(life, "action_failed", life.node("a", 1), error=TIMEOUT, meta={**OF_JOB, "retryable": True})
    world.send(life, "child_due", life.node("a", 1), meta={"attempt": 2})
    read_mail(world, life)
    second = life.children[-1]
    read_mail(world, second)
    world.send(second, "action_completed", second.node("c", 1), result=2, meta=OF_JOB)
    read_mail(world, second)
    life.mail += [late, late]
    read_mail(world, life)
    assert [turn.decision.outcome for turn in life.turns[-3:]] == ["decided", "late", "duplicate"]


def test_an_action_whose_first_lease_nobody_answered_may_have_happened() -> None:
    """An error beside its job, from before its first lease, does not stand for the answer of that lease."""
    action = Step(name="a", kind="action", retry=Retry(max_attempts=2), compensate=Compensate())
    reference = Reference(Plan(path="main", steps=(Step(name="start", entries=(Entry(then=(Target("a"),)),)), action)))
    reference.apply(ReferenceEvent("start", value={}))
    reference.apply(ReferenceEvent("failed", "a", value={}, through_job=False))
    effects = reference.apply(ReferenceEvent("failed", "a", value={}, lease=2, leases=2))
    assert [effect.detail for effect in effects if effect.what == "undo"] == [["unknown", None]]

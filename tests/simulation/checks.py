"""Checks of an ended world: the ends and the replays of all executions, and what must hold of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.simulation.compare import Different, plain
from tests.simulation.life import OPEN_JOBS, Life
from tests.simulation.reference_run import End, run_reference
from tests.simulation.signals import broken_rules
from tests.simulation.undo_checks import broken_undos
from tests.simulation.world import World

VISIT_ENDS = frozenset({"step_completed", "step_failed", "step_cancelled"})


def faults(world: World) -> Iterator[Different]:
    """Yield all faults, those that explain most first."""
    for life in world.lives.values():
        if life.status != life.reference.status:
            yield Different(f"it is {life.status}, in the reference {life.reference.status}", life)
        if life.tags != life.reference.tags:
            yield Different(f"it has the tags {life.tags}, in the reference {life.reference.tags}", life)
        try:
            life.replayed()
        except Exception as error:  # noqa: BLE001 - a broken core may raise anything
            yield Different(f"{type(error).__name__}: {error}", life)
        for text in (*_of_visits(life), *_of_jobs(life)):
            yield Different(text, life)
        expected = None if life.root is None or not world.scenario.stable else run_reference(world.scenario, life.root)
        found = End(life.status, life.result)
        if expected is not None and plain([*found]) != plain([*expected]):
            yield Different(f"it ended with {found}, in another order with {expected}", life)
    for text in (*broken_rules(world), *broken_undos(world)):
        yield Different(text)


def _of_visits(life: Life) -> Iterator[str]:
    """Yield visits and executions that ended twice, or too many visits; unread mail; waits and timers that are left."""
    events = [event for one in life.turns for event in one.decision.events]
    ends = Counter((event.step, event.visit) for event in events if event.type in VISIT_ENDS)
    yield from (f"visit {visit} ended {count} times" for visit, count in ends.items() if count > 1)
    ended = sum(one.decision.ended is not None for one in life.turns)
    if ended != 1:
        yield f"it ended {ended} times"
    visits = sum({row.step: row.visits for one in life.turns for row in one.decision.rows}.values())
    if visits > life.plan.max_visits:
        yield f"it has {visits} visits"
    if life.mail or life.timers:
        yield f"unread mail {life.mail} or timers {life.timers} are left"
    for visit, wait in life.waits.items():
        if wait.status in {"open", "signalled"} or (visit in ends and wait.status == "settled"):
            yield f"wait {wait.node} is left"


def _of_jobs(life: Life) -> Iterator[str]:
    """Yield jobs that are left, and those whose visit did not end."""
    events = [event for one in life.turns for event in one.decision.events]
    ended = {(event.step, event.visit): event.type for event in events if event.type in VISIT_ENDS}
    completed = life.status == "COMPLETED"
    for job in life.jobs.values():
        # After the end of its visit, an answer changes nothing: the job keeps the status that the worker wrote.
        visit = life.jobs.get(life.node(job.step, job.visit), job)
        is_closed = ended.get((job.step, job.visit)) == "step_cancelled"
        is_over = not completed or is_closed or (visit is not job and visit.status == "dead")
        if job.status in OPEN_JOBS - ({"failed"} if is_over else set()):
            yield f"job {job.node} of an execution that is {life.status} is {job.status}"
        if completed and job is visit and job.index is None and not job.undo and (job.step, job.visit) not in ended:
            yield f"visit {job.node} of a completed execution did not end"

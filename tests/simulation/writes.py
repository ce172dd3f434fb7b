"""What a committed turn changes in the world, as in the store: jobs, children, waits, timers, mail."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from noetl_broker.broker.model.decision import Decision, ExecutionEnd
from noetl_broker.broker.model.effects import (
    ChildStarted,
    ChildUndoAbandoned,
    ChildUndone,
    EventPosted,
    ExecutionBegun,
    JobChanged,
    LateTimerEnded,
    SignalSent,
    StatusChanged,
    TimerSet,
    UndoEnded,
    VisitCancelled,
    WaitEnded,
    WaitOpened,
    WaitReopened,
)
from noetl_broker.broker.model.stops import Stops, stops_of
from noetl_broker.store.json_codec import load_json
from noetl_broker.store.turn.child_rows import child_answer, child_meta, undo_answer
from noetl_broker.store.turn.claimed_rows import Execution, ParentVisit
from noetl_broker.template.durations import after
from noetl_broker.testing.pauses import event_for_children
from tests.simulation.life import OPEN_JOBS, Job, Life, OpenWait, Parent, TakenTurn, Timer
from tests.simulation.reference_model import Row

if TYPE_CHECKING:
    from tests.simulation.world import World

ENDED_JOBS = frozenset({"done", "dead", "cancelled"})
CANCELLED_JOB: Row = {"message": "the job was cancelled, because its execution ends", "type": "cancelled"}
Visits = set[tuple[str, int]]


def write_turn(world: World, life: Life, one: TakenTurn) -> None:
    """Write everything that a turn decided."""
    decision = one.decision
    before = [*life.children]
    life.keep(one)
    for job in decision.jobs:
        _queue_job(world, life, job)
    if decision.effects or decision.ended:
        stops = stops_of(decision)
        _change_jobs(world, life, decision)
        _cancel_children(world, life, stops, before)
        _start_children(world, life, decision, stops)
        _cancel_jobs(world, life, stops)
        _post(world, life, decision)
        _write_waits(world, life, one)
        _tell_children(world, life, one)
        _ask_children(world, life, decision)
        undone = decision.last(UndoEnded)
        if undone is not None and undone.answer and life.parent is not None:
            _send_answer(world, life, undo_answer(_execution(life, one), undone))
    if decision.ended is not None:
        _end(world, life, one, decision.ended)


# Jobs.


def _queue_job(world: World, life: Life, job: Any) -> None:
    node = life.node(job.step, job.visit, job.item_index, undo=job.undo)
    if job.again:
        _queue_again(world, life.jobs[node], delegated=job.delegated)
        world.open_jobs.append((life, life.jobs[node]))
        return
    if node in life.jobs:
        raise ValueError(f"there is a job of {node}")
    own = Job(
        node=node, step=job.step, visit=job.visit, index=job.item_index, undo=job.undo, timeout=job.timeout,
        status="delegated" if job.delegated else "queued", available_at=world.now,
        first_leased_at=world.now if job.delegated else None,
    )  # fmt: skip
    life.jobs[node] = own
    world.open_jobs.append((life, own))


def _queue_again(world: World, job: Job, *, delegated: bool) -> None:
    """Queue an undo that an earlier undo has queued. One that is leased yet is queued when that lease ends."""
    job.stop = job.draining = job.status == "leased"
    if not job.stop:
        job.status = "delegated" if delegated else "queued"
    job.available_at, job.first_leased_at, job.failures, job.lost = world.now, None, 0, 0


def _change_jobs(world: World, life: Life, decision: Decision) -> None:
    for change in decision.of(JobChanged):
        node = life.node(change.step, change.visit, change.item_index, undo=change.undo)
        job = life.jobs.get(node)
        if job is not None and job.status not in ENDED_JOBS:
            job.status, job.stop, job.lease_until = change.status, False, None
            job.available_at = world.now + timedelta(seconds=change.delay)
            job.attempts = max(job.attempts, change.attempt)
            if change.status in {"retry", "delegated"}:
                job.first_leased_at, job.failures = None, job.failures + 1
        if change.status == "delegated":
            life.timers.append(Timer(node, change.step, "child", after(world.now, change.delay)))


def _cancel_jobs(world: World, life: Life, stops: Stops) -> None:
    """Cancel the jobs of visits that are over; what is draining may still report a success."""
    if not (stops.all_work or stops.visits):
        return
    for job in life.jobs.values():
        visit = job.step, job.visit
        if job.status not in OPEN_JOBS or (job.undo and not stops.execution):
            continue
        if stops.all_work and not stops.draining:
            job.close()
        elif (stops.all_work or visit in stops.draining) and not job.undo:
            _drain(world, life, job, is_draining=visit in stops.draining)
        elif visit in stops.cancelled or (visit in stops.visits and job.index is not None):
            job.close()


def _drain(world: World, life: Life, job: Job, *, is_draining: bool) -> None:
    """Cancel a job while its execution awaits visits; one that no worker has reports that."""
    was = job.status
    if is_draining and was == "failed":
        return  # its event is on the way
    if was == "leased":
        job.stop, job.draining = not is_draining, is_draining
        return
    job.status, job.draining = "cancelled", is_draining
    if is_draining and was in {"queued", "retry"}:
        _report_cancel(world, life, job.node, job.attempts)


def _report_cancel(world: World, life: Life, node: str, attempts: int) -> None:
    meta = {"queue_id": 1, "attempt": attempts + 1, "retryable": False}
    world.send(life, "action_failed", node, error=dict(CANCELLED_JOB), meta=meta)


# Children.


def _start_children(world: World, life: Life, decision: Decision, stops: Stops) -> None:
    for child in decision.of(ChildStarted):
        node = life.node(child.step, child.visit, child.item_index, undo=child.undo)
        if stops.execution if child.undo else stops.visit(child.step, child.visit):
            if (child.step, child.visit) in stops.draining:
                _report_cancel(world, life, node, 0)
            continue
        index = None if child.undo else child.item_index
        visit = life.node(child.step, child.visit, child.item_index if child.undo else None, undo=child.undo)
        parent = Parent(life, visit, child.step, child.visit, index, child.undo)
        meta = child_meta(life.number, child)
        _start_child(world, child, parent, meta)
        job = life.jobs.get(node)
        if job is not None:
            job.attempts, job.first_leased_at = meta["parent"]["attempt"], world.now
            job.status = "delegated" if job.status == "failed" else job.status


def _start_child(world: World, child: ChildStarted, parent: Parent, meta: Any) -> None:
    place = f"{parent.node.partition(':')[2]}.{parent.item_index}@{meta['parent']['attempt']}"
    plan = world.plans[child.path]
    own = world.begin(plan, f"{parent.life.family}/{place}", parent=parent, tags=parent.life.tags)
    meta = {**meta, "tags": own.tags} if own.tags else meta
    context = {"path": plan.path, "version": 1, "workload": child.payload}
    world.send(own, "execution_start", str(own.number), context=context, meta=meta)


def _cancel_children(world: World, life: Life, stops: Stops, children: Iterable[Life]) -> None:
    """Cancel the children of visits and items that gave them up."""
    of_undos = {life.node(*item, undo=True) for item in stops.undos}
    for child in children:
        parent = child.parent
        if parent is None or not child.is_live:
            continue
        if parent.undo:
            is_over = stops.execution or parent.node in of_undos
        else:
            is_over = stops.child(parent.step, parent.visit, parent.item_index, undo=False)
        if is_over:
            world.stop(child, "its parent ended or cancelled it")


def _tell_children(world: World, life: Life, one: TakenTurn) -> None:
    """Pause or resume children; queue or admit the execution."""
    status = one.decision.last(StatusChanged)
    told = event_for_children(life.number, one.event, one.decision)
    for child in life.children if told is not None else ():
        if child.is_live and told is not None:
            world.send(child, told.type, str(child.number), context=told.context, meta={"number": one.turn.number})
    if status is not None and one.decision.ended is None:
        if status.status == "QUEUED" and not status.admitted:
            life.waits_for_path = True
        elif status.admitted:
            life.waits_for_path = False


def _ask_children(world: World, life: Life, decision: Decision) -> None:
    """Ask children to undo what they did, or to give it up. One that completed in vain is asked if no row names it."""
    named = {child for row, _ in life.undo_rows().values() for child in row.children}
    for asked in decision.of(ChildUndone):
        if "answer" in asked.context or asked.child_execution_id not in named:
            child = world.lives[asked.child_execution_id]
            world.send(child, "execution_undo", str(child.number), context=asked.context)
    for given_up in decision.of(ChildUndoAbandoned):
        child = world.lives[given_up.child_execution_id]
        world.send(child, "execution_abandon", str(child.number), context={})


# Mail to itself, waits and timers.


def _post(world: World, life: Life, decision: Decision) -> None:
    for post in decision.of(EventPosted):
        is_end = post.type == "iterator_completed"
        result = [*life.items[post.step, post.visit]] if is_end else None
        world.send(life, post.type, life.node(post.step, post.visit), result=result)


def _write_waits(world: World, life: Life, one: TakenTurn) -> None:
    decision = one.decision
    for wait in decision.of(WaitOpened):
        node = life.node(wait.step, wait.visit)
        since = life.started_at - timedelta(seconds=wait.since)
        life.waits[wait.step, wait.visit] = OpenWait(wait, node, since, world.next_id())
        world.may_match |= wait.kind == "signal"
    for timer in decision.of(TimerSet):
        life.timers.append(Timer(life.node(timer.step, timer.visit), timer.step, timer.purpose, timer.due))
    begins = decision.last(ExecutionBegun) or decision.last(StatusChanged)
    if begins is not None and begins.deadline is not None and decision.ended is None:
        life.timers.append(Timer(None, None, "deadline", after(one.turn.at, begins.deadline)))
    if begins is not None and begins.late_after is not None and decision.ended is None:
        life.timers.append(Timer(None, None, "late", after(one.turn.at, begins.late_after)))
    over = {life.node(end.step, end.visit) for end in decision.of(LateTimerEnded)}
    life.timers = [timer for timer in life.timers if timer.purpose != "late" or timer.node not in over]
    ends = [((end.step, end.visit), end.status) for end in decision.of(WaitEnded)]
    for visit, status in ends + [((one.step, one.visit), "cancelled") for one in decision.of(VisitCancelled)]:
        life.timers = [timer for timer in life.timers if timer.node != life.node(*visit)]
        if visit in life.waits:
            life.waits[visit].status = status
    for again in decision.of(WaitReopened):
        if life.waits[again.step, again.visit].status == "signalled":
            life.waits[again.step, again.visit].status, world.may_match = "open", True
    for sent in decision.of(SignalSent):
        world.signals.add(sent.name, sent.key, sent.payload, sender=f"execution {life.number}")


# The end.


def _end(world: World, life: Life, one: TakenTurn, ended: ExecutionEnd) -> None:
    life.result, life.error = ended.result, ended.error
    life.timers.clear()
    for wait in life.waits.values():
        if wait.status in {"open", "signalled"}:
            wait.status = "settled"
    if life.parent is not None:
        _send_answer(world, life, child_answer(_execution(life, one), life.decided_state, ended))


def _execution(life: Life, one: TakenTurn) -> Execution:
    """Return a child as the store has it."""
    parent = life.parent
    above = None if parent is None else ParentVisit(parent.life.number, None, parent.node, parent.item_index)
    return Execution(life.number, None, life.plan.path, 1, life.plan.path, None, one.turn.number, None, above, None)


def _send_answer(world: World, life: Life, answer: tuple[Any, ...]) -> None:
    """Send an answer to the parent."""
    _, _, kind, node, name, _, result, error, meta = answer
    texts = {"result": result, "error": error, "meta": meta}
    values: Row = {key: None if text is None else load_json(text) for key, text in texts.items()}
    if life.parent is not None:
        world.send(life.parent.life, kind, node, node_name=name, **values)

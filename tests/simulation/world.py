"""A world for the core: one clock, and a seeded choice of what happens next, with faults.

Executions are decided by `Session`s. Workers, timers, people, senders of signals and other executions send them events.
Events may come twice, late, in another order, or beside their job. A batch of turns may be lost before its commit. Each
committed turn is compared with the reference. Everything depends only on the scenario.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, NamedTuple

from noetl_broker.broker.model.values import as_stored
from noetl_broker.playbook import Playbook, PlaybookRules, compile_playbook
from noetl_broker.store.json_codec import dump_json
from noetl_broker.template.durations import moment_text
from tests.simulation.compare import Different, compare_turn
from tests.simulation.life import Job, Life, Mail, Parent, TakenTurn, Timer
from tests.simulation.plans import Plan, document
from tests.simulation.reference_model import Row, tag_text
from tests.simulation.scenarios import Answer, Scenario, answer
from tests.simulation.signals import Signals
from tests.simulation.undo_requests import settle_undo, undo_execution
from tests.simulation.writes import write_turn

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LEASE = timedelta(seconds=10)
MOST_STEPS = 300_000
JOBS_OF_WORKER = 3
EVENT: Row = dict.fromkeys(
    ("event_type", "node_id", "node_name", "context", "result", "error", "meta", "parent_execution_id")
)
Action = Callable[[], object]


class Stuck(Exception):
    """No action is possible before all executions have ended, or there are too many."""


class Batch(NamedTuple):
    """Turns of one execution that are decided and not yet written."""

    life: Life
    taken: list[TakenTurn]


class World:
    """Runs a scenario; afterwards `lives` has all executions."""

    def __init__(self, scenario: Scenario) -> None:
        """Nothing has happened."""
        self.scenario = scenario
        self.random = Random(f"world {scenario.seed} {scenario.variant}")
        self.now = BEGINNING
        self.plans = scenario.plan.by_path()
        self.playbooks = {path: compiled(plan) for path, plan in self.plans.items()}
        self.lives: dict[int, Life] = {}
        self.open_jobs: list[tuple[Life, Job]] = []
        self.sent: list[tuple[int, Row]] = []  # all mail, with its number
        self.owners: dict[int, Life] = {}  # of mail
        self.paused_paths: set[str] = set()
        self.batches: list[Batch | None] = [None] * scenario.brokers
        self.may_match = False
        self.signals = Signals(self)
        self.counts = Counter[str]()
        self._deliveries: list[tuple[datetime, int, Action]] = []
        self._left = scenario.faults._asdict()
        self._odds = self.random.choice((0.005, 0.01, 0.03))
        self._pauses, self._undos = scenario.pauses, scenario.undos
        self._weight = self.random.choice((1, 1, 4))  # slow brokers find several events at once
        self._asked: set[str] = set()  # approvals whose decision is planned
        self._copied: set[str] = set()
        self._running = 0  # jobs that workers have
        self._last_id = 0

    # What others use.

    def clock(self) -> datetime:
        """Return the time; each call returns a later one."""
        self.now += MICROSECOND
        return self.now

    def next_id(self) -> int:
        """Return a new id."""
        self._last_id += 1
        return self._last_id

    def begin(self, plan: Plan, family: str, *, parent: Parent | None = None, **more: Any) -> Life:
        """Add an execution without its start."""
        life = Life(
            number=self.next_id(), plan=plan, playbook=self.playbooks[plan.path], started_at=self.clock(),
            family=family, parent=parent, large_bytes=self.scenario.large_bytes, **more,
        )  # fmt: skip
        self.lives[life.number] = life
        if parent is not None:
            parent.life.children.append(life)
        return life

    def send(self, life: Life, event_type: str, node: str, *, after: float = 0.0, **columns: Any) -> int:
        """Send an event to an execution, perhaps after some seconds; return the number of the mail."""
        columns = {name: as_stored(value) for name, value in columns.items()}
        mail = Mail(self.next_id(), {**EVENT, "event_type": event_type, "node_id": node, **columns})
        self.sent.append(mail)
        self.owners[mail.number] = life
        if after:
            self.later(after, partial(life.mail.append, mail))
        else:
            life.mail.append(mail)
        return mail.number

    def later(self, seconds: float, action: Action) -> None:
        """Let something happen after some seconds."""
        heapq.heappush(self._deliveries, (self.now + timedelta(seconds=seconds), self.next_id(), action))

    def stop(self, life: Life, reason: str) -> None:
        """Ask an execution to cancel itself."""
        after = (0.0, 2.0)[life.number % 2]  # it may end before it reads that
        self.send(life, "execution_cancel", str(life.number), after=after, context={"reason": reason})

    # Running.

    def run(self) -> None:
        """Start the executions and run until nothing is left; raises Stuck or Different."""
        for root in range(self.scenario.roots):
            options = dict(self.scenario.options)
            tags = {name: tag_text(value) for name, value in options.get("tags", {}).items()}
            life = self.begin(self.scenario.plan, str(root), root=root, options=options, tags=tags)
            context = {"path": life.plan.path, "version": 1, "workload": dict(self.scenario.payload)}
            meta = {**options, "tags": tags} if options else None
            self.send(life, "execution_start", str(life.number), context=context, meta=meta)
        self.signals.begin()
        for _ in range(MOST_STEPS):
            actions = [*self._ready()]
            if actions:
                self.random.choice(actions)()
                self._inject_faults()
            elif not self._advance_clock():
                break
        else:
            raise Stuck(f"executions are running after {MOST_STEPS} steps")
        running = [life.number for life in self.lives.values() if life.is_live]
        if running:
            raise Stuck(f"no action is possible, and executions {running} have not ended")

    def _ready(self) -> Iterator[Action]:
        """Yield the possible actions; one that is listed twice is twice as likely."""
        self._ask_people()
        readable = [life for life in self.lives.values() if life.mail and not life.locked]
        for slot, batch in enumerate(self.batches):
            if batch is not None or readable:
                action = partial(self._advance, slot) if batch else partial(self._claim, slot, readable)
                yield from [action] * self._weight
        if self._running < JOBS_OF_WORKER * self.scenario.workers and self._leasable():
            yield self._lease
        if self._deliveries and self._deliveries[0][0] <= self.now:
            yield self._deliver
        if self.may_match:
            yield self.signals.match
        if self.random.random() < 0.01:
            yield self._reap

    def _advance_clock(self) -> bool:
        """Set the clock to the next time at which something is due; False if there is none."""
        for text in self.signals.lost():
            raise Stuck(text)
        if self._reap():
            return True
        moments = [moment for moment, *_ in self._deliveries[:1]]
        for life, job in self._jobs():
            if job.status in {"queued", "retry"} and life.may_work:
                moments.append(job.available_at)
            if job.status == "leased" and job.lease_until is not None:
                moments.append(job.lease_until)
            if _times_out_at(job) is not None:
                moments.append(_times_out_at(job))  # type: ignore[arg-type]
        moments += [timer.due for life in self.lives.values() for timer in life.timers]
        ahead = [moment for moment in moments if moment >= self.now]
        if not ahead:
            return self.signals.help() or self._undo(odds=1.0)
        self.now = max(self.now, min(ahead)) + MICROSECOND
        return True

    def _deliver(self) -> None:
        heapq.heappop(self._deliveries)[2]()

    def _injects(self, fault: str, odds: float) -> bool:
        """Tell whether a fault occurs now; the scenario limits how often it does."""
        if not self._left[fault] or self.random.random() >= odds:
            return False
        self._left[fault] -= 1
        self.counts[fault] += 1
        return True

    # Brokers.

    def _claim(self, slot: int, readable: list[Life]) -> None:
        """Decide on some mail of one execution, whose lock is held until `_advance`. Its start is read first."""
        life = self.random.choice(readable)
        mails = life.mail[: self.random.choice((1, 2, 5, 200))]
        if life.turn == 0:
            mails = sorted(life.mail, key=lambda mail: mail.row["event_type"].lower() != "execution_start")[:1]
            if mails[0].row["event_type"].lower() != "execution_start":
                return
        life.locked = True
        try:
            self.batches[slot] = Batch(life, life.decide(mails, self.paused_paths, self.clock))
        except Exception as error:
            raise Different(f"a session raised {type(error).__name__}: {error}", life) from error

    def _advance(self, slot: int) -> None:
        """Write the turns of a batch, or lose them."""
        batch = self.batches[slot]
        self.batches[slot] = None
        if batch is None:
            return
        batch.life.locked = False
        if self._injects("crashes", 0.05):
            return
        for one in batch.taken:
            batch.life.mail.remove(one.mail)
            compare_turn(batch.life, one)
            write_turn(self, batch.life, one)
        batch.life.store_state()
        self.now = max(self.now, batch.taken[-1].turn.at)

    # Workers.

    def _jobs(self) -> Iterator[tuple[Life, Job]]:
        """Yield the jobs that have not ended."""
        self.open_jobs = [one for one in self.open_jobs if one[1].status not in {"done", "dead", "cancelled"}]
        return iter(self.open_jobs)

    def _leasable(self) -> list[tuple[Life, Job]]:
        return [
            (life, job)
            for life, job in self._jobs()
            if job.status in {"queued", "retry"} and job.available_at <= self.now and life.may_work
        ]

    def _lease(self) -> None:
        """Lease the oldest job; the worker answers later, or loses its lease."""
        life, job = self._leasable()[0]
        if not (life.is_live or life.undoes):
            raise Different(f"job {job.node} was leased after the end", life)
        job.status, job.attempts, job.lease_until = "leased", job.attempts + 1, self.now + LEASE
        job.first_leased_at = job.first_leased_at or self.now
        self._running += 1
        seconds = self.random.choice((0.01, 0.1, 0.5, 2.0))
        if self._injects("worker_deaths", 0.2):
            seconds = self.random.choice((12.0, 40.0))  # its lease has ended by then
        self.later(seconds, partial(self._answer, life, job, job.attempts))

    def _answer(self, life: Life, job: Job, attempt: int) -> None:
        """Answer a job, unless the lease was lost; then nobody hears of it."""
        self._running -= 1
        if job.status != "leased" or job.attempts != attempt:
            self.counts["refused answers"] += 1
            return
        answered = self._answer_of(life, job)
        after = self.random.choice((0.5, 3.0)) if self._injects("late_commits", 0.2) else 0.0
        meta: Row = {"queue_id": 1, "attempt": attempt}
        job.lease_until = None
        if answered.error is None:
            job.status = "done"
            self.send(life, "action_completed", job.node, after=after, result=answered.result, meta=meta)
        else:
            job.status = "cancelled" if job.stop else "failed"
            meta["retryable"] = answered.retryable
            if job.stop and job.draining and job.undo:
                job.status, job.stop, job.draining = "queued", False, False
                meta["earlier_undo"] = True
            self.send(life, "action_failed", job.node, after=after, error=answered.error, meta=meta)

    def _answer_of(self, life: Life, job: Job) -> Answer:
        return answer(self.scenario, life.family, job.node.partition(":")[2], job.failures)

    def _reap(self) -> bool:
        """Let time pass: timeouts, lost leases, timers, admissions; False if nothing was due."""
        done = 0
        for life, job in [*self._jobs()]:
            times_out_at = _times_out_at(job)
            if times_out_at is not None and times_out_at < self.now:
                done += 1
                job.status, job.stop, job.lease_until = "failed", job.status == "leased", None
                self._fail(life, job, {"message": "the action ran too long", "type": "timeout"}, retryable=True)
            elif job.status == "leased" and job.lease_until is not None and job.lease_until < self.now:
                done += 1
                self._lose_lease(life, job)
        for life in [*self.lives.values()]:
            due = [timer for timer in life.timers if timer.due <= self.now]
            life.timers = [timer for timer in life.timers if timer.due > self.now]
            done += len(due)
            for timer in due:
                self._fire(life, timer)
            if life.waits_for_path and life.status == "QUEUED" and life.plan.path not in self.paused_paths:
                done += 1
                life.waits_for_path = False
                self.send(life, "place_free", str(life.number))
        return bool(done)

    def _lose_lease(self, life: Life, job: Job) -> None:
        is_final = job.lost >= self.scenario.max_lost_leases or job.draining
        job.status, job.lost, job.lease_until = "failed" if is_final else "queued", job.lost + 1, None
        if self._injects("stray_events", 0.5):  # the worker that lost it sends its error nevertheless
            error, meta = {"message": "busy", "status_code": 503}, {"attempt": job.attempts}
            after = self.random.choice((0.0, 0.5, 2.0))
            self.send(life, "action_error", job.node, after=after, error=error, meta=meta)
        self.counts["lost" if is_final else "requeued"] += 1
        if job.stop and job.draining and job.undo:
            job.status, job.stop, job.draining = "queued", False, False
        elif job.stop or not (life.is_live or life.undoes):
            job.status = "cancelled"  # nothing waits for it
        elif is_final:
            self._fail(life, job, {"message": "lost its lease too often", "type": "lost_lease"}, retryable=False)

    def _fail(self, life: Life, job: Job, error: Row, *, retryable: bool) -> None:
        meta = {"queue_id": 1, "attempt": job.attempts, "retryable": retryable}
        self.send(life, "action_failed", job.node, error=error, meta=meta)

    def _fire(self, life: Life, timer: Timer) -> None:
        if timer.node is None and timer.purpose == "deadline":
            self.send(life, "execution_deadline", str(life.number))
        elif timer.purpose == "child" and timer.node is not None:
            self.send(life, "child_due", timer.node, meta={"attempt": life.jobs[timer.node].attempts + 1})
        else:
            context = {"due_at": moment_text(timer.due), "purpose": timer.purpose}
            self.send(life, "timer_due", timer.node or str(life.number), context=context)

    # People.

    def _ask_people(self) -> None:
        """Plan the decision on each new approval; some people decide twice."""
        for life in self.lives.values():
            for wait in life.waits.values():
                if wait.wait.kind == "approval" and wait.node not in self._asked:
                    self._asked.add(wait.node)
                    for by in ("ann", "bob")[: self.random.choice((1, 1, 2))]:
                        self.later(
                            self.random.choice((0.0, 0.5, 2.0, 5.0, 30.0)), partial(self._decide, life, wait, by)
                        )

    def _decide(self, life: Life, wait: Any, by: str) -> None:
        timers = [timer for timer in life.timers if timer.node == wait.node]
        if wait.status != "open" or ("times_out_at" in (wait.wait.details or {}) and not timers):
            self.counts["late decisions"] += 1
            return
        self.counts["decisions"] += 1
        life.timers = [timer for timer in life.timers if timer not in timers]
        wait.status = "signalled"
        form = {"comment": None, "x": self.random.choice((None, 0, 3, 9))}
        context = {"approved": self.random.random() < 0.7, "by": by, "at": moment_text(self.clock()), "form": form}
        self.send(life, "approval_decided", wait.node, context=context)

    # Faults.

    def _inject_faults(self) -> None:
        if self._injects("copies", self._odds):
            self._copy_event()
        if self._injects("stray_events", self._odds):
            self._send_stray_event()
        if self._injects("disorder", 0.05):
            life = self.random.choice([*self.lives.values()])
            if not life.locked and life.turn:
                self.random.shuffle(life.mail)
        if self._pauses and self.random.random() < 0.05:
            self._pause()
        if self._undos and self.random.random() < 0.05:
            self._undo(odds=0.2)
        if self._injects("cancels", 0.005):
            life = self.random.choice([*self.lives.values()])
            if life.is_live and life.status != "COMPENSATING":
                self.send(life, "execution_cancel", str(life.number), context={"reason": "a simulated cancel"})

    def _pause(self) -> None:
        """Pause an execution or a path, and resume it later, both perhaps twice."""
        self._pauses -= 1
        later = self.random.choice((0.0, 0.0, 0.5, 3.0, 30.0))
        if self.random.random() < 0.3:
            path = self.random.choice([*self.plans])
            self.paused_paths.add(path)
            self.later(later, partial(self.paused_paths.discard, path))
            self.counts["paused paths"] += 1
            return
        live = [life for life in self.lives.values() if life.is_live and life.status != "COMPENSATING"]
        if live:
            life = self.random.choice(live)
            self.counts["pauses"] += 1
            for _ in range(self.random.choice((1, 1, 2))):
                self._hold(life, "execution_pause")
                self.later(later, partial(self._hold, life, "execution_resume"))

    def _hold(self, life: Life, event_type: str) -> None:
        if life.is_live and life.status != "COMPENSATING":
            after = self.random.choice((0.0, 0.0, 0.0, 1.0, 4.0))  # a later one may be read first
            self.send(life, event_type, str(life.number), after=after, context={}, meta={"number": self.next_id()})

    def _undo(self, *, odds: float) -> bool:
        """Undo an ended execution, settle what it left, or abandon an undo that runs; False if nothing happened."""
        if not self._undos or self.random.random() >= odds:
            return False
        undoing = [life for life in self.lives.values() if life.undoes]
        if undoing and self.random.random() < 0.2:
            self._undos -= 1
            self.counts["abandoned"] += 1
            life = self.random.choice(undoing)
            self.send(life, "execution_abandon", str(life.number), context={"reason": "simulated"})
            return True
        for life in sorted(self.lives.values(), key=lambda _: self.random.random()):
            if self.random.random() < 0.1 and settle_undo(self, life):
                self.counts["settled"] += 1
                return True
            if undo_execution(self, life, unknown=self.random.random() < 0.3):
                self._undos -= 1
                self.counts["undos"] += 1
                return True
        return False

    def _copy_event(self) -> None:
        """Send an event again: of a producer, a worker, a child, or mail of the broker to itself."""
        # Most events are of starts and workers, so types that were not copied yet come first.
        types = dict.fromkeys(row["event_type"].lower() for _, row in self.sent)
        kind = self.random.choice([kind for kind in types if kind not in self._copied] or [*types])
        self._copied.add(kind)
        alike = [entry for entry in self.sent if entry[1]["event_type"].lower() == kind]
        number, row = self.random.choice((alike[-1], self.random.choice(alike)))
        spelled = self.random.choice((str.lower, str.upper))(kind)
        more = {name: value for name, value in row.items() if name not in {"event_type", "node_id"}}
        after = self.random.choice((0.0, 0.0, 1.0, 8.0))
        self.send(self.owners[number], spelled, row["node_id"], after=after, **more)

    def _send_stray_event(self) -> None:
        """Send an unknown event, or an answer that does not come through its job, as of a NoETL worker."""
        life = self.random.choice([*self.lives.values()])
        kind = self.random.choice(("unknown_type", "action_completed"))
        node = f"{life.number}:{self.random.choice(('unknown', 'a#7', 'b', 'a#1.9', 'end'))}"
        more: Row = {}
        jobs = [(one, job) for one in self.lives.values() for job in one.jobs.values()]
        jobs = [entry for entry in jobs if entry[1].status not in {"delegated", "cancelled"}]
        if jobs and self.random.random() < 0.7:
            life, job = self.random.choice(
                [entry for entry in jobs if entry[1].attempts > 1 and entry[1].status == "leased"] or jobs
            )
            answered = self._answer_of(life, job)
            if self.random.random() < 0.4:
                answered = Answer(error={"message": "busy", "status_code": 503})
            kind, node = "action_completed" if answered.error is None else "action_error", job.node
            more = {"result": answered.result, "error": answered.error}
            if self.random.random() < 0.5:
                more["meta"] = {"attempt": self.random.choice((1, job.attempts))}
            self.counts["answers not through the job"] += 1
        self.send(life, kind, node, **more)


def compiled(plan: Plan) -> Playbook:
    """Return the compiled playbook of a plan; raises PlaybookFault."""
    return compile_playbook(dump_json(document(plan)), rules=PlaybookRules())


def _times_out_at(job: Job) -> datetime | None:
    """Return when the job has run too long, if it can."""
    runs = job.status in {"leased", "delegated"} and not job.stop
    if not runs or job.timeout is None or job.first_leased_at is None:
        return None
    return job.first_leased_at + timedelta(seconds=job.timeout)

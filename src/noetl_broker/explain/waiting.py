"""Explains what a running execution waits for: workers, retries, children, items, joins, unread events."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from noetl_broker.broker.arrivals.joins import merge_arrivals, waits_for
from noetl_broker.broker.model.values import JSON
from noetl_broker.explain.error_text import error_text
from noetl_broker.explain.facts import ChildFact, Facts, JobFact, ThrottleFact, UnreadEvent
from noetl_broker.explain.progress import count_text, error_type, failures_text, pace_text
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.signals import explain_unfit
from noetl_broker.explain.unserved import served_name, worker_command
from noetl_broker.explain.waits import explain_wait
from noetl_broker.node_ids import visit_name
from noetl_broker.playbook.keywords import BROKER_TYPES
from noetl_broker.playbook.step_types import ACTION_TYPES
from noetl_broker.text import join_names, rate_text, span

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import Arrival, Counts, ExecutionState, Token
    from noetl_broker.history.record import History
    from noetl_broker.playbook.model import Playbook

MOST_NAMED = 5  # children or items of one step
CLOCK_TOLERANCE = timedelta(seconds=1)  # smaller steps of the server's clock do not matter


def explain_open_visit(token: Token, playbook: Playbook, history: History, facts: Facts) -> Reason:
    """The reasons why an open visit waits."""
    visit = (token.step, token.visit)
    name = visit_name(*visit)
    step = playbook.steps[token.step]
    mail = [unread for unread in (*facts.unread, *facts.dead_letters) if unread.node and unread.node[:2] == visit]
    job = facts.jobs.get((*visit, None))
    about: dict[str, JSON] = {"step": token.step, "visit": token.visit}
    if mail:
        says = f"{name} has an event that no broker has read yet"
        return Reason("mail", says, about, tuple(explain_unread(unread, facts) for unread in mail))
    if token.items is not None:
        return _explain_items(token, token.items, about, facts)
    if step.waits_for == "event":
        reason = explain_wait(token, about, facts)
        return replace(reason, because=(*reason.because, *explain_unfit(history, playbook, token)))
    if step.waits_for == "child":
        return _explain_child(name, about, job, facts, visit)
    if job is None:
        return Reason("no_job", f"{name} is running but has no job (noetl-broker replay shows what is wrong)", about)
    reason = explain_job(name, about, job, facts)
    if step.iteration is not None:
        says = "one worker runs all its items, which are known when it ends; with distribute: true each has a job"
        reason = replace(reason, because=(*reason.because, Reason("one_job", says)))
    if (progress := facts.iterators.get((token.step, token.visit))) is not None:
        numbers: dict[str, JSON] = {name: progress[name] for name in ("total", "ended", "failed")}
        reported = Reason("reported", f"its worker reports {count_text(progress)}", numbers)
        more = (reported, *explain_progress((token.step, token.visit), facts))
        reason = replace(reason, because=(*more, *reason.because))
    return replace(reason, because=(*_attempts(token, history, job), *reason.because)) if token.failures else reason


def _attempts(token: Token, history: History, job: JobFact) -> tuple[Reason, ...]:
    """The last failed attempt."""
    for turn in reversed(history.turns):
        for event in turn.events:
            if event.type == "action_retry" and (event.step, event.visit) == (token.step, token.visit):
                says = f"attempt {token.failures} of {job.max_attempts} failed: {error_text(event.error)}"
                return (Reason("attempt", says, {"failures": token.failures, "error": event.error}),)
    return ()


def explain_job(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Reason:
    """The status of a job, and what that means for its visit."""
    explain = {
        "queued": _explain_queued, "retry": _explain_retry, "leased": _explain_leased, "held": _explain_held,
    }.get(job.status)  # fmt: skip
    about = {**about, "job": _job_facts(job)}
    if explain is not None:
        return explain(name, about, job, facts)
    if job.server_status is not None and job.server_status_at is not None:
        says = f"a NoETL server set the job of {name} to {job.server_status} {_ago(facts, job.server_status_at)} ago"
        because = Reason("row", "if its event does not come, the broker uses that status (missing_event_seconds)")
        return Reason("row", says, about, (because,))
    if job.status in {"failed", "done"}:
        remedy = Reason("remedy", f"noetl-broker reevaluate {facts.execution_id} looks for the event")
        says = f"the job of {name} is {job.status}, but its event is not in the inbox"
        return Reason("lost_mail", says, about, (remedy,))
    return Reason("job", f"the job of {name} is {job.status}, so no worker will run it", about)


def explain_join(playbook: Playbook, state: ExecutionState, name: str) -> Reason:
    """The open visits and other joins that a join waits for, and the tokens that have arrived."""
    visits, joins = waits_for(playbook, playbook.steps[name], state.tokens, state.waiting)
    sources = [_source(arrival, playbook) for arrival in state.waiting[name]]
    because = [Reason("arrived", f"tokens have arrived from {join_names(dict.fromkeys(sources))}", {"from": sources})]
    for visit in visits:
        says = _reach_text(playbook, visit[0], state.tokens[visit].spent, name, state.waiting)
        says = f"{visit_name(*visit)} is running and {says}"
        because.append(Reason("live", says, {"step": visit[0], "visit": visit[1]}))
    for other in joins:
        says = _reach_text(playbook, other, merge_arrivals(state.waiting[other]).spent, name, ())
        because.append(Reason("live", f"join {other} is waiting too and {says}", {"step": other, "waiting": True}))
    step, about = playbook.steps[name], {"step": name}
    if step.join == "any":
        came = len(state.waiting[name])
        says = f"join {name} waits: {came} of the {step.need} tokens came that it needs"
        return Reason("join", says, {**about, "arrived": came, "need": step.need}, tuple(because))
    what = "until nothing else is open" if name == "end" and step.join is None else "for everything that can reach it"
    return Reason("join", f"join {name} waits {what}", about, tuple(because))


def explain_unread(unread: UnreadEvent, facts: Facts) -> Reason:
    """An event that no turn has read."""
    node = f" of {visit_name(*unread.node)}" if unread.node else ""
    about: dict[str, JSON] = {"event_id": unread.event_id, "event_type": unread.type, "since": unread.at}
    since = _ago(facts, unread.at)
    what = f"{unread.type}{node} (event {unread.event_id})"
    if unread.reason is not None:
        says = f"{what} was moved to the dead letters {since} ago: {unread.reason}"
        remedy = f"after that is fixed: noetl-broker reevaluate {facts.execution_id}"
        return Reason("set_aside", says, {**about, "reason": unread.reason}, (Reason("remedy", remedy),))
    says = f"{what} has been unread for {since}"
    return Reason("unread", says, about)


def explain_no_broker(facts: Facts) -> list[Reason]:
    """A reason if no broker is connected."""
    if facts.brokers:
        return []
    schema = facts.other_schema
    says = "no broker is connected to this database" if schema is None else f"no broker serves schema {schema}"
    return [Reason("no_broker", f"{says} (start one: noetl-broker run)", {"brokers": 0})]


def _explain_clock(job: JobFact, facts: Facts) -> list[Reason]:
    """A reason if a job waits for a future time because the server's clock was set back."""
    if job.available_at is None or not job.available_at >= job.created_at > facts.read_at + CLOCK_TOLERANCE:
        return []
    ahead = span((job.created_at - facts.read_at).total_seconds())
    says = f"its times are {ahead} ahead of the server's clock, which was set back; a running broker corrects them"
    return [Reason("clock", says, {"created_at": job.created_at, "available_at": job.available_at})]


def _explain_queued(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Reason:
    if job.throttle is not None and (remaining := _remaining(job, facts)) is not None:
        says = f"the job of {name} may begin in {remaining}, by {_of(job.throttle)}"
        return Reason("throttle", says, {**about, "throttle": dict(job.throttle._asdict())})
    ready = job.available_at or job.created_at
    since = max(ready, job.created_at)
    lost = f", after {_times(job.lost_leases, 'lost lease')}" if job.lost_leases else ""
    worker = f"a worker of type {served_name(job.type, job.pool)}"
    says = f"the job of {name} has been waiting for {worker} for {_ago(facts, since)}{lost}"
    because = (*_explain_clock(job, facts), *_explain_type(job, facts), *_explain_start(job, facts))
    return Reason("queued", says, about, because)


def _explain_start(job: JobFact, facts: Facts) -> list[Reason]:
    """A reason that tells when the job fails if no worker leases it."""
    if job.start_by is None:
        return []
    left = (job.start_by - facts.read_at).total_seconds()
    says = (
        f"it fails in {span(left)} if no worker leases it"
        if left > 0
        else f"its start_timeout passed {span(-left)} ago"
    )
    return [Reason("start_timeout", f"{says} (start_timeout)" if left > 0 else says, {"seconds_left": left})]


def _explain_type(job: JobFact, facts: Facts) -> list[Reason]:
    found = facts.types.get((job.type, job.pool))
    if found is None:
        return []
    details: dict[str, JSON] = {"type": job.type, "pool": job.pool, **found._asdict()}
    waiting = f"{_times(found.waiting, 'job')} of type {served_name(job.type, job.pool)} {_verb(found.waiting)}"
    start = worker_command(job.type, job.pool, is_known=job.type in ACTION_TYPES | BROKER_TYPES)
    if found.unserved is not None:
        return [Reason("unserved", f"{found.unserved} ({start})", details)]
    if found.leased:
        return [Reason("workers", f"{waiting}, {found.leased} {'is' if found.leased == 1 else 'are'} leased", details)]
    seen = "no such worker was seen lately" if found.last_seen is None else (
        f"the last such worker was seen {_ago(facts, found.last_seen)} ago")  # fmt: skip
    return [Reason("workers", f"{waiting}, none is leased; {seen} ({start})", details)]


def _explain_held(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Reason:
    throttle = job.throttle
    if throttle is None or throttle.paused:
        return Reason("held", f"the job of {name} is held until the execution is resumed", about)
    about |= {"throttle": dict(throttle._asdict())}
    if (remaining := _remaining(job, facts)) is not None:
        return Reason(
            "throttle", f"{name} will be retried in {remaining}; then it asks for a slot of {_of(throttle)}", about
        )
    position = "it is the next one" if not throttle.before else f"{throttle.before} {_verb(throttle.before)} before it"
    holders = f" ({join_names(map(str, throttle.holders))})" if throttle.holders else ""
    counts = f"{throttle.leased} leased{holders}, {throttle.ready} ready, {position}"
    return Reason("throttle", f"the job of {name} waits for a slot of {_of(throttle)}: {counts}", about)


def _of(throttle: ThrottleFact) -> str:
    """A throttle with its key and what it allows."""
    key = f" {throttle.key}" if throttle.key else ""
    allowed = [] if throttle.concurrency is None else [f"{throttle.concurrency} at a time"]
    allowed += [] if throttle.rate is None else [rate_text(throttle.rate)]
    return f"the throttle {throttle.name}{key} ({', '.join(allowed)})"


def _verb(count: int) -> str:
    return "waits" if count == 1 else "wait"


def _remaining(job: JobFact, facts: Facts) -> str | None:
    """The time until the job is available; None: it is available now."""
    if job.available_at is None or job.available_at <= facts.read_at:
        return None
    return span((job.available_at - facts.read_at).total_seconds())


def _explain_retry(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Reason:
    remaining = _remaining(job, facts)
    if remaining is None or job.throttle is not None:
        return _explain_queued(name, about, job, facts)
    says = f"{name} will be retried in {remaining}"
    return Reason("retry", says, about, tuple(_explain_clock(job, facts)))


def _explain_leased(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Reason:
    because = []
    if job.timeout is not None and job.first_leased_at is not None:
        remaining = job.timeout - (facts.read_at - job.first_leased_at).total_seconds()
        sentence = (
            f"it times out in {span(remaining)}" if remaining > 0 else f"its timeout passed {span(-remaining)} ago"
        )
        because.append(Reason("timeout", f"{sentence} (timeout {job.timeout:g} s)", {"seconds_left": remaining}))
    works = f"is working on {name}"
    if job.first_leased_at is not None:
        since = _ago(facts, job.first_leased_at)
        # a lost lease may have been another worker's
        works = f"{works}, first leased {since} ago" if job.lost_leases else f"has been working on {name} for {since}"
    lease = "the lease" if job.attempts == 1 else f"lease {job.attempts}"
    if job.lease_until is not None and job.lease_until < facts.read_at:
        late = span((facts.read_at - job.lease_until).total_seconds())
        then = "it is valid while its worker pool lives" if job.foreign_lease else "a broker will queue the job again"
        says = f"{lease} of {job.worker} on the job of {name} expired {late} ago: {then}"
        return Reason("lease_lost", says, about, tuple(because))
    if job.last_heartbeat is not None:
        ends = span((job.lease_until - facts.read_at).total_seconds()) if job.lease_until is not None else "?"
        heard = _ago(facts, job.last_heartbeat)
        because.insert(0, Reason("lease", f"{lease} ends in {ends}; the last heartbeat was {heard} ago"))
    if job.lost_leases:
        because.append(Reason("lost", f"it lost {_times(job.lost_leases, 'lease')}"))
    return Reason("leased", f"worker {job.worker} {works}", about, tuple(because))


def _explain_child(name: str, about: dict[str, JSON], job: JobFact | None, facts: Facts, visit: Visit) -> Reason:
    children = [child for child in facts.children if child.node[:2] == visit]
    if children:
        return Reason("child", f"{name} is waiting for the playbook that it started", about,
                   tuple(_explain_running(child, facts) for child in children))  # fmt: skip
    if job is not None and job.available_at is not None and job.available_at > facts.read_at:
        remaining = span((job.available_at - facts.read_at).total_seconds())
        return Reason("retry", f"the playbook of {name} failed and will start again in {remaining}", about)
    return Reason("child", f"{name} is waiting for a playbook, but none of its children is running", about)


def _explain_running(child: ChildFact, facts: Facts) -> Reason:
    where = f", at {join_names(child.steps)}" if child.steps else ""
    about: dict[str, JSON] = {"execution_id": child.execution_id, "path": child.path, "steps": list(child.steps)}
    since = _ago(facts, child.started_at)
    prefix = "" if child.node[2] is None else f"item {child.node[2]}: "
    says = f"{prefix}execution {child.execution_id} ({child.path}) has been running for {since}{where}"
    return Reason("running_child", says, about)


def _explain_items(token: Token, counts: Counts, about: dict[str, JSON], facts: Facts) -> Reason:
    visit = (token.step, token.visit)
    because = [_explain_running(child, facts) for child in facts.children if child.node[:2] == visit]
    jobs = [(node, job) for node, job in facts.jobs.items() if node[:2] == visit and node[2] is not None]
    because += [explain_job(visit_name(*node), {"index": node[2]}, job, facts) for node, job in jobs]
    own = facts.jobs.get((*visit, None))
    if own is not None and own.status not in {"delegated", "done"}:
        because.insert(0, explain_job(visit_name(*visit), {}, own, facts))
    rest = len(because) - MOST_NAMED
    if rest > 0:
        because = [*because[:MOST_NAMED], Reason("more", f"… and {rest} more")]
    because = [*explain_progress(visit, facts), *because]
    says = (
        f"{visit_name(*visit)} has {counts.total} items: {counts.ended} ended ({counts.failed} failed),"
        f" {counts.started - counts.ended} open, {counts.total - counts.started} not started"
    )
    return Reason("items", says, {**about, **counts._asdict()}, tuple(because))


def explain_progress(visit: Visit, facts: Facts) -> list[Reason]:
    """The pace of an iterator and its failed items by type; nothing where neither is known."""
    progress = facts.iterators.get(visit)
    if progress is None:
        return []
    reasons = []
    if pace := pace_text(progress):
        numbers: dict[str, JSON] = {"pace": progress["pace"], "seconds_left": progress["seconds_left"]}
        reasons.append(Reason("pace", f"items end at {pace}", numbers))
    if failures := failures_text(progress):
        shown = [
            Reason("example", f"noetl-broker explain {facts.execution_id} '{visit_name(*visit, errors['first'])}'"
                   f" shows the first {error_type(errors)}", {"index": errors["first"]})
            for errors in progress["errors"]
            if errors["first"] is not None
        ]  # fmt: skip
        reasons.append(Reason("failed_items", failures, {"errors": [*progress["errors"]]}, tuple(shown)))
    return reasons


def _source(arrival: Arrival, playbook: Playbook) -> str:
    if 0 <= arrival.arc < len(playbook.arcs):
        return playbook.arcs[arrival.arc].source
    return "the fork" if arrival.arc >= 0 or arrival.step != playbook.start.name else "the start"


def _reach_text(playbook: Playbook, source: str, spent: frozenset[str], target: str, waiting: Collection[str]) -> str:
    """Whether a token at a step can still reach a join, and by which path. A spent token cannot.

    `waiting` are the joins that may wait as a group; without them the path is not named.
    """
    path = _shortest_path(playbook, source, target, spent)
    if path is not None:
        named = waiting and len(path) > 2  # noqa: PLR2004 - a path of one arc says nothing more
        return "can still reach it" + (f" ({' → '.join(path)})" if named else "")
    lost = sorted(join for join in spent if playbook.graph.can_reach(source, join))
    if not lost:
        return "can still reach it"
    if playbook.steps[target].join in {"all", "any"}:
        with_it = next((join for join in waiting if _shortest_path(playbook, source, join, spent)), None)
        return f"can still reach join {with_it}, which waits with it" if with_it else "can still reach it"
    ends = f"join {lost[0]}" if len(lost) == 1 else f"the joins {join_names(lost)}"
    return f"cannot reach it: its token is spent and ends at {ends}"


def _shortest_path(playbook: Playbook, source: str, target: str, avoiding: frozenset[str]) -> list[str] | None:
    """A shortest path in the graph that does not lead through the steps of `avoiding`; None if there is none."""
    before: dict[str, str] = {}
    layer = [source]
    while layer and target not in before:
        following = []
        for step in layer:
            for successor in playbook.graph.successors(step):
                if successor not in before:
                    before[successor] = step
                    if successor not in avoiding:
                        following.append(successor)
        layer = following
    if target not in before:
        return None
    path = [target]
    while path[-1] != source or len(path) == 1:
        path.append(before[path[-1]])
    return path[::-1]


def _job_facts(job: JobFact) -> dict[str, JSON]:
    return {name: value for name, value in job._asdict().items() if value is not None}


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _ago(facts: Facts, at: datetime) -> str:
    return span(max((facts.read_at - at).total_seconds(), 0.0))

"""What a running execution waits for: workers, children, items, retries, and the joins that wait for all of these."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from noetl_broker.broker.facts import ChildFact, Facts, JobFact, Letter
from noetl_broker.broker.joins import holding, merge_arrivals
from noetl_broker.broker.model import JSON
from noetl_broker.broker.why import Why
from noetl_broker.broker.words import listed, visit_name
from noetl_broker.times import span

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from noetl_broker.broker.history import History
    from noetl_broker.broker.state import Arrival, ExecutionState, Token, Visit
    from noetl_broker.playbook.model import Playbook

MOST_TOLD = 5  # of children or items of one step
CLOCK_TOLERANCE = timedelta(seconds=1)  # smaller steps of the server's clock hold nothing up


def tell_token(token: Token, history: History, facts: Facts) -> Why:
    """What one running visit waits for."""
    playbook = history.playbook
    if isinstance(playbook, str):
        raise TypeError(playbook)
    visit = (token.step, token.visit)
    name = visit_name(*visit)
    step = playbook.steps[token.step]
    mail = [letter for letter in (*facts.unread, *facts.set_aside) if letter.node and letter.node[:2] == visit]
    job = facts.jobs.get((*visit, None))
    about: dict[str, JSON] = {"step": token.step, "visit": token.visit}
    if mail:
        says = f"{name} has ended or failed, and no broker has decided on it yet"
        return Why("mail", says, about, tuple(tell_letter(letter, facts) for letter in mail))
    if token.items is not None:
        return _tell_items(token, about, facts)
    if step.kind == "playbook":
        return _tell_child(name, about, job, facts, visit)
    if job is None:
        return Why("no_job", f"{name} runs, and there is no job of it (noetl-broker replay shows what is wrong)", about)
    told = tell_job(name, about, job, facts)
    return replace(told, because=(*_attempts(token, history, job), *told.because)) if token.failures else told


def _attempts(token: Token, history: History, job: JobFact) -> tuple[Why, ...]:
    """How the attempts so far went: the last one, with its message."""
    for turn in reversed(history.turns):
        for event in turn.events:
            if event.type == "action_retry" and (event.step, event.visit) == (token.step, token.visit):
                message = event.error.get("message") if isinstance(event.error, dict) else event.error
                says = f"attempt {token.failures} of {job.max_attempts} failed: {message}"
                return (Why("attempt", says, {"failures": token.failures, "error": event.error}),)
    return ()


def tell_job(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Why:
    """Where a job stands, and what that means for whoever waits for it."""
    tell = {"queued": _tell_queued, "retry": _tell_retry, "leased": _tell_leased}.get(job.status)
    about = {**about, "job": _job_facts(job)}
    if tell is not None:
        return tell(name, about, job, facts)
    if job.said is not None and job.said_at is not None:
        says = f"a NoETL server has set the job of {name} to {job.said} {_ago(facts, job.said_at)} ago"
        because = Why("row", "where no event of it comes, the broker decides from that (missing_event_seconds)")
        return Why("row", says, about, (because,))
    if job.status in {"failed", "done"}:
        remedy = Why("remedy", f"noetl-broker reevaluate {facts.execution_id} looks for it")
        says = f"the job of {name} is {job.status}, and no event of it waits to be read"
        return Why("lost_mail", says, about, (remedy,))
    return Why("job", f"the job of {name} is {job.status}, which is no state to wait in", about)


def tell_join(history: History, state: ExecutionState, name: str) -> Why:
    """Which live visits, and which other waiting joins, a join waits for, and what has come to it so far."""
    playbook = history.playbook
    if isinstance(playbook, str):
        raise TypeError(playbook)
    live, groups = holding(playbook, playbook.steps[name], state.tokens, state.waiting)
    came = [_came(arrival, playbook) for arrival in state.waiting[name]]
    because = [Why("arrived", f"{listed(dict.fromkeys(came))} came to it already", {"from": came})]
    for visit in live:
        says = _tell_coming(playbook, visit[0], state.tokens[visit].spent, name, state.waiting)
        because.append(Why("live", f"{visit_name(*visit)} runs and {says}", {"step": visit[0], "visit": visit[1]}))
    for other in groups:
        says = _tell_coming(playbook, other, merge_arrivals(state.waiting[other]).spent, name, ())
        because.append(Why("live", f"join {other} waits too, and {says}", {"step": other, "waiting": True}))
    what = (
        "until nothing else lives" if name == "end" and playbook.steps[name].join is None else "for what can reach it"
    )
    return Why("join", f"join {name} waits {what}", {"step": name}, tuple(because))


def tell_letter(letter: Letter, facts: Facts) -> Why:
    """An event that no turn has read."""
    node = f" of {visit_name(*letter.node)}" if letter.node else ""
    about: dict[str, JSON] = {"event_id": letter.event_id, "event_type": letter.type, "since": letter.at}
    since = _ago(facts, letter.at)
    if letter.reason is not None:
        says = f"{letter.type}{node} (event {letter.event_id}) was set aside {since} ago: {letter.reason}"
        remedy = f"when that is mended: noetl-broker reevaluate {facts.execution_id}"
        return Why("set_aside", says, {**about, "reason": letter.reason}, (Why("remedy", remedy),))
    says = f"{letter.type}{node} (event {letter.event_id}) waits for {since} to be read"
    return Why("unread", says, about)


def tell_brokers(facts: Facts) -> Why | None:
    """That nobody is there to decide; None where somebody is."""
    if facts.brokers:
        return None
    return Why("no_broker", "no broker is connected to this database: noetl-broker run", {"brokers": 0})


def _tell_clock(job: JobFact, facts: Facts) -> list[Why]:
    """That a job waits for a time which the server's clock had before it stepped back."""
    if job.available_at is None or not job.available_at >= job.created_at > facts.read_at + CLOCK_TOLERANCE:
        return []
    ahead = span((job.created_at - facts.read_at).total_seconds())
    says = (
        f"its times lie {ahead} ahead of the server's clock, which has stepped back: a running broker pulls them back"
    )
    return [Why("clock", says, {"created_at": job.created_at, "available_at": job.available_at})]


def _tell_queued(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Why:
    ready = job.available_at or job.created_at
    since = max(ready, job.created_at)
    lost = f", after {_times(job.lost_leases, 'lost lease')}" if job.lost_leases else ""
    says = f"the job of {name} waits for a worker of type {job.type} for {_ago(facts, since)}{lost}"
    return Why("queued", says, about, (*_tell_clock(job, facts), *_tell_type(job, facts)))


def _tell_type(job: JobFact, facts: Facts) -> list[Why]:
    found = facts.types.get(job.type)
    if found is None:
        return []
    told: dict[str, JSON] = {"type": job.type, **found._asdict()}
    waiting = f"{_times(found.waiting, 'job')} of type {job.type} {'waits' if found.waiting == 1 else 'wait'}"
    if found.leased:
        return [Why("workers", f"{waiting}, {found.leased} {'is' if found.leased == 1 else 'are'} leased", told)]
    seen = "no worker was seen for it lately" if found.last_seen is None else (
        f"the last worker for it was seen {_ago(facts, found.last_seen)} ago")  # fmt: skip
    return [Why("workers", f"{waiting}, none is leased; {seen}: is one running? (noetl-broker worker)", told)]


def _tell_retry(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Why:
    if job.available_at is None or job.available_at <= facts.read_at:
        return _tell_queued(name, about, job, facts)
    left = span((job.available_at - facts.read_at).total_seconds())
    says = f"{name} is tried again in {left}"
    return Why("retry", says, about, tuple(_tell_clock(job, facts)))


def _tell_leased(name: str, about: dict[str, JSON], job: JobFact, facts: Facts) -> Why:
    because = []
    if job.timeout is not None and job.first_leased_at is not None:
        left = job.timeout - (facts.read_at - job.first_leased_at).total_seconds()
        told = f"it times out in {span(left)}" if left > 0 else f"its timeout passed {span(-left)} ago"
        because.append(Why("timeout", f"{told} (timeout {job.timeout:g} s)", {"seconds_left": left}))
    held = ""
    if job.first_leased_at is not None:  # who lost a lease before may have been another worker
        since = _ago(facts, job.first_leased_at)
        held = f", which was first leased {since} ago" if job.lost_leases else f" for {since}"
    lease = "the lease" if job.attempts == 1 else f"lease {job.attempts}"
    if job.lease_until is not None and job.lease_until < facts.read_at:
        late = span((facts.read_at - job.lease_until).total_seconds())
        then = "it counts while its pool lives" if job.foreign_lease else "a broker queues it again"
        says = f"{lease} of {job.worker} on the job of {name} ran out {late} ago: {then}"
        return Why("lease_lost", says, about, tuple(because))
    if job.last_heartbeat is not None:
        ends = span((job.lease_until - facts.read_at).total_seconds()) if job.lease_until is not None else "?"
        heard = _ago(facts, job.last_heartbeat)
        because.insert(0, Why("lease", f"{lease} ends in {ends}, the worker was heard of {heard} ago"))
    if job.lost_leases:
        because.append(Why("lost", f"before that it lost {_times(job.lost_leases, 'lease')}"))
    return Why("leased", f"worker {job.worker} works on {name}{held}", about, tuple(because))


def _tell_child(name: str, about: dict[str, JSON], job: JobFact | None, facts: Facts, visit: Visit) -> Why:
    children = [child for child in facts.children if child.node[:2] == visit]
    if children:
        return Why("child", f"{name} waits for the playbook that it started", about,
                   tuple(_tell_running(child, facts) for child in children))  # fmt: skip
    if job is not None and job.available_at is not None and job.available_at > facts.read_at:
        left = span((job.available_at - facts.read_at).total_seconds())
        return Why("retry", f"the playbook of {name} failed, and is started again in {left}", about)
    return Why("child", f"{name} waits for a playbook, and none of its children runs", about)


def _tell_running(child: ChildFact, facts: Facts) -> Why:
    where = f", at {listed(child.steps)}" if child.steps else ""
    told: dict[str, JSON] = {"execution_id": child.execution_id, "path": child.path, "steps": list(child.steps)}
    place = "" if child.node[2] is None else f"item {child.node[2]}: "
    says = f"{place}execution {child.execution_id} ({child.path}) runs for {_ago(facts, child.started_at)}{where}"
    return Why("running_child", says, told)


def _tell_items(token: Token, about: dict[str, JSON], facts: Facts) -> Why:
    counts, visit = token.items, (token.step, token.visit)
    if counts is None:
        raise TypeError(f"{visit} has no items")
    because = [_tell_running(child, facts) for child in facts.children if child.node[:2] == visit]
    jobs = [(node, job) for node, job in facts.jobs.items() if node[:2] == visit and node[2] is not None]
    because += [tell_job(visit_name(*node), {"place": node[2]}, job, facts) for node, job in jobs]
    own = facts.jobs.get((*visit, None))
    if own is not None and own.status not in {"delegated", "done"}:
        because.insert(0, tell_job(visit_name(*visit), {}, own, facts))
    rest = len(because) - MOST_TOLD
    if rest > 0:
        because = [*because[:MOST_TOLD], Why("more", f"… and {rest} more")]
    says = (
        f"{visit_name(*visit)} has {counts.total} items: {counts.ended} ended ({counts.failed} failed),"
        f" {counts.started - counts.ended} open, {counts.total - counts.started} not begun"
    )
    return Why("items", says, {**about, **counts._asdict()}, tuple(because))


def _came(arrival: Arrival, playbook: Playbook) -> str:
    if 0 <= arrival.arc < len(playbook.arcs):
        return playbook.arcs[arrival.arc].source
    return "the fork" if arrival.arc >= 0 or arrival.step != playbook.start.name else "the start"


def _tell_coming(playbook: Playbook, source: str, spent: frozenset[str], target: str, waiting: Collection[str]) -> str:
    """Whether what lives at a step can still come to a join, and by which way; a spent token may not.

    `waiting` are the joins that may wait as a group; without them no way is told.
    """
    path = _way(playbook, source, target, spent)
    if path is not None:
        told = f" ({' → '.join(path)})" if waiting and len(path) > 2 else ""  # noqa: PLR2004 - a way of one arc says nothing more
        return f"can still come to it{told}"
    lost = sorted(join for join in spent if playbook.graph.can_reach(source, join))
    if not lost:
        return "can still come to it"
    if playbook.steps[target].join == "all":
        with_it = next((join for join in waiting if _way(playbook, source, join, spent)), None)
        return f"can still come to join {with_it}, which waits together with it" if with_it else "can still come to it"
    ends = f"join {lost[0]}" if len(lost) == 1 else f"the joins {listed(lost)}"
    return f"comes to it no more: it ends at {ends}, for which it was spent"


def _way(playbook: Playbook, source: str, target: str, avoiding: frozenset[str]) -> list[str] | None:
    """A shortest way by the graph that does not lead through the steps of `avoiding`; None where there is none."""
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
    way = [target]
    while way[-1] != source or len(way) == 1:
        way.append(before[way[-1]])
    return way[::-1]


def _job_facts(job: JobFact) -> dict[str, JSON]:
    return {name: value for name, value in job._asdict().items() if value is not None}


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _ago(facts: Facts, at: datetime) -> str:
    return span(max((facts.read_at - at).total_seconds(), 0.0))

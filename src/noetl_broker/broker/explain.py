"""Explains an execution: why a step ran or did not, what is waited for, why it failed or how it ended.

Pure: the store hands over the history and the tables' facts. What happened is told from the recorded turns, walked
again through the core; what is waited for, from the stored state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.absence import Absence
from noetl_broker.broker.conditions import read_conditions
from noetl_broker.broker.endings import disagreement, tell_ending, tell_way
from noetl_broker.broker.journey import Journey, walk
from noetl_broker.broker.model import JSON
from noetl_broker.broker.sources import Sources
from noetl_broker.broker.state import COMPLETED, ExecutionState, decode
from noetl_broker.broker.visits import Telling
from noetl_broker.broker.waiting import tell_brokers, tell_join, tell_letter, tell_token
from noetl_broker.broker.why import Why
from noetl_broker.broker.words import shown, visit_name
from noetl_broker.errors import HistoryFault, OperatorFault
from noetl_broker.playbook.suggestions import did_you_mean
from noetl_broker.times import span

if TYPE_CHECKING:
    from noetl_broker.broker.facts import Facts
    from noetl_broker.broker.history import History
    from noetl_broker.broker.state import Visit
    from noetl_broker.playbook.model import Playbook, Step

OPEN = "RUNNING"
ENDINGS = {"COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "was cancelled"}
MOST_LETTERS = 5


def explain_execution(history: History | None, facts: Facts) -> Why:
    """Where an execution stands, and why; `history` None: no broker has read anything of it."""
    because: list[Why] = []
    if history is not None and facts.status == OPEN:
        because += _waits(history, facts)
    elif history is not None:
        because += tell_ending(history, facts)
    because += _mail(facts, history)
    if facts.status == OPEN and not because:
        because.append(Why("nothing", "nothing lives in it and no mail waits: noetl-broker replay shows what is wrong"))
    return Why("execution", _headline(facts), _facts(facts), tuple(because))


def explain_step(history: History | None, facts: Facts, name: str, number: int | None = None) -> Why:
    """Why a step ran, did not run, or what it waits for; `number` of a visit (None: the latest).

    Raises OperatorFault where the playbook has no such step, or the step no such visit.
    """
    if history is None or isinstance(history.playbook, str):
        missing = history.playbook if history is not None else "no broker has read its start yet"
        return Why("step", f"{name} cannot be explained: {missing}", {"step": name}, tuple(_mail(facts)))
    step = _step(history.playbook, name)
    journey, disagrees = _follow(history)
    state = decode(history.state) if history.state else ExecutionState()
    visits = [visit for visit in journey.entered if visit[0] == name]
    chosen = _choose(name, visits, number)
    read = read_conditions(history, _needed(history.playbook, journey, step, chosen))
    sources = Sources(history, journey, facts)
    telling = Telling(history.playbook, sources, read)
    because: list[Why] = []
    if name in state.waiting:
        because.append(tell_join(history, state, name))
    if chosen is not None:
        because += _tell_visit(history, facts, state, telling, chosen)
    brought = [visit for visit in journey.left_in if visit[0] == name]
    if chosen is None and brought:
        result = sources.of_result(brought[-1], None)
        because += [result] if result is not None else []
    elif chosen is None and name not in state.waiting:
        absence = Absence(history.playbook, journey, state, read, telling)
        because += absence.of_step(name)
    because += _mail(facts) if facts.status == OPEN else []
    because += [disagrees] if disagrees is not None else []
    says = _says(name, chosen, state, sources)
    about: dict[str, JSON] = {**_facts(facts), "step": name, "visits": len(visits)}
    return Why("step", says, about, tuple(because))


def _waits(history: History, facts: Facts) -> list[Why]:
    state = decode(history.state) if history.state else ExecutionState()
    playbook = history.playbook
    if isinstance(playbook, str):
        return [Why("no_playbook", f"it cannot go on: {playbook}")]
    told = [tell_token(token, history, facts) for token in state.tokens.values()]
    told += [tell_join(history, state, name) for name in state.waiting]
    journey, disagrees = _follow(history)
    return [*told, *tell_way(journey), *([disagrees] if disagrees is not None else [])]


def _tell_visit(history: History, facts: Facts, state: ExecutionState, telling: Telling, visit: Visit) -> list[Why]:
    token = state.tokens.get(visit)
    waits = [tell_token(token, history, facts)] if token is not None and facts.status == OPEN else []
    return [*waits, telling.of_visit(visit)]


def _follow(history: History) -> tuple[Journey, Why | None]:
    """The whole way; and where it cannot be followed, or the rules of this program would have it otherwise."""
    journey = Journey()
    try:
        for walked in walk(history):
            if not walked.agrees:
                return journey, disagreement(walked)
            journey.follow(walked)
    except HistoryFault as fault:
        return journey, Why("disagrees", str(fault))
    return journey, None


def _needed(playbook: Playbook, journey: Journey, step: Step, chosen: Visit | None) -> set[Visit]:
    """The visits whose conditions are told: those that led to the step, or could have, and its own."""
    needed = {chosen} if chosen is not None else set()
    pending = [step.name]
    seen: set[str] = set()
    while pending and chosen is None:
        target = pending.pop()
        for source in (arc.source for arc in playbook.arcs if arc.target == target):
            latest = journey.latest(source)
            if latest:
                needed.add((source, latest))
            elif source not in seen:
                seen.add(source)
                pending.append(source)
    sources = [chosen] if chosen is not None else []
    while sources:
        for component in journey.components.get(sources.pop(), ()):
            if component.source is not None and component.source not in needed:
                needed.add(component.source)
                if playbook.steps[component.source[0]].kind == "control":
                    sources.append(component.source)
    return needed


def _step(playbook: Playbook, name: str) -> Step:
    step = playbook.steps.get(name)
    if step is None:
        hint = did_you_mean(name, [*playbook.steps])
        raise OperatorFault(f"playbook {playbook.path} has no step {name}{'; ' if hint else ''}{hint}")
    return step


def _choose(name: str, visits: list[Visit], number: int | None) -> Visit | None:
    if number is None:
        return max(visits, key=lambda visit: visit[1], default=None)
    if (name, number) not in visits:
        made = f"it was visited {len(visits)} times" if visits else "it was never visited"
        raise OperatorFault(f"step {name} has no visit {number}: {made}")
    return name, number


def _says(name: str, chosen: Visit | None, state: ExecutionState, sources: Sources) -> str:
    """The one sentence about a step."""
    facts, journey = sources.facts, sources.journey
    whose = f"of execution {facts.execution_id} ({facts.path} version {facts.version}, {facts.status})"
    if chosen is not None:
        told = f"{visit_name(*chosen)} {whose} {_stands(chosen, state, sources)}"
        number = sum(visit[0] == name for visit in journey.entered)
        return told if number == 1 else f"{told}; it was entered {number} times, {name}#1 asks for the first"
    if name in state.waiting:
        return f"{name} {whose} waits before it runs"
    if name in {step for step, _ in journey.left_in}:
        return f"{name} {whose} was done before this execution was forked from {facts.forked_from}"
    return f"{name} {whose} {'has not run' if facts.status == OPEN else 'never ran'}"


def _stands(visit: Visit, state: ExecutionState, sources: Sources) -> str:
    journey = sources.journey
    if visit in state.tokens:
        return "is running"
    if visit in _failed(sources.history):
        return "failed"
    result = journey.results.get(visit)
    if result is not None:
        return f"is done, in turn {journey.left_in[visit]}"
    if visit in journey.left_in:
        return f"was passed in turn {journey.left_in[visit]}"
    return f"still ran when the execution {ENDINGS.get(sources.facts.status, 'ended')}{_reason(sources.facts)}"


def _failed(history: History) -> set[tuple[str | None, int]]:
    return {(event.step, event.visit) for turn in history.turns for event in turn.events if event.type == "step_failed"}


def _mail(facts: Facts, history: History | None = None) -> list[Why]:
    """Events that no turn has read, but for those told with a live visit; and that nobody is there to read them."""
    standing = None if history is None or isinstance(history.playbook, str) else history.state
    state = standing if isinstance(standing, dict) else {}
    live = {(token["step"], token["visit"]) for token in state.get("tokens", ())}
    letters = [one for one in (*facts.set_aside, *facts.unread) if one.node is None or one.node[:2] not in live]
    mail = [tell_letter(letter, facts) for letter in letters[:MOST_LETTERS]]
    if len(letters) > MOST_LETTERS:
        mail.append(Why("more", f"… and {len(letters) - MOST_LETTERS} more events"))
    brokers = tell_brokers(facts) if facts.status == OPEN else None
    return [*mail, brokers] if brokers is not None else mail


def _headline(facts: Facts) -> str:
    version = "" if facts.version is None else f" version {facts.version}"
    ended = facts.ended_at
    seconds = ((ended or facts.read_at) - facts.started_at).total_seconds()
    stands = f"is RUNNING for {span(seconds)}" if ended is None else f"{ENDINGS[facts.status]} after {span(seconds)}"
    told = f"execution {facts.execution_id} ({facts.path}{version}) {stands}"
    told += _reason(facts)
    if facts.status == COMPLETED:
        told = f"{told}, with the result {shown(facts.result)}"
    origin = f"; it was forked from {facts.forked_from}" if facts.forked_from is not None else ""
    return told + (f"; a child of {facts.parent}" if facts.parent is not None else origin)


def _reason(facts: Facts) -> str:
    """Why it failed or was cancelled, behind the word that says so; nothing where there is no error."""
    error = facts.error if isinstance(facts.error, dict) else {}
    step, message = error.get("step"), error.get("message")
    return f"{f', in step {step}' if step else ''}: {message}" if message else ""


def _facts(facts: Facts) -> dict[str, JSON]:
    return {
        "execution_id": facts.execution_id,
        "path": facts.path,
        "version": facts.version,
        "status": facts.status,
        "started_at": facts.started_at,
        "ended_at": facts.ended_at,
        "parent_execution_id": facts.parent,
        "forked_from": facts.forked_from,
    }

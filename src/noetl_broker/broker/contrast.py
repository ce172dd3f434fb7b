"""One event, decided on by two versions of a playbook: whether they go the same way, and if not, where and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.differing import MOST_NAMED, Values, differing, is_plain, name_places, place_of, values_of
from noetl_broker.broker.model import EXECUTION_START, JSON, Decision, Emitted, Event, Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from noetl_broker.broker.state import ExecutionState
    from noetl_broker.playbook.model import Playbook

VISIT_ENDS = {"step_completed": "completes", "step_failed": "fails", "action_retry": "tries again"}
RESULT_KEYS = ("result", "results")  # of a job's context: what the worker finishes templates from
BOOKKEEPING = frozenset({"unfinished"})  # keys of an action that follow from its other ones
LIMITS = ("priority", "max_attempts", "timeout")

Node = tuple[str, int, int | None]


class Parting(NamedTuple):
    """Where the ways part: what is other, at which step, because of what, and what was done and is done instead.

    `values` are the parts of a value that differ, by their place in it: [what it was, what it would be].
    """

    what: str
    step: str
    because: str
    was: str
    instead: str
    values: Values


class Note(NamedTuple):
    """What differs at a step and leads the same way."""

    step: str
    what: str


class Contrast:
    """The two decisions; the versions and the states after the turn are each the own one and the other one."""

    def __init__(
        self,
        event: Event,
        was: Decision,
        now: Decision,
        versions: tuple[Playbook, Playbook],
        states: tuple[ExecutionState, ExecutionState],
    ) -> None:
        """Nothing compared yet."""
        self._event, self._was, self._now = event, was, now
        self._versions, self._states = versions, states
        self._where = event.step or ("start" if event.kind == EXECUTION_START else "the execution")
        self.notes: list[Note] = []

    def parting(self, *, ways_only: bool) -> Parting | None:
        """The first of what differs, the gravest first; `ways_only`: what a job is told is noted, and no parting."""
        if self._was == self._now:
            return None  # most turns: their conditions and inputs read the same
        for look in (self._refusal, self._template, self._way):
            found = look()
            if found is not None:
                return found
        told = [*self._jobs(), *self._children(), *self._items()]
        condition = self._condition()
        if told and not ways_only:
            because = f"{condition[0]}: {condition[1]}" if condition is not None else ""
            return told[0]._replace(because=because)
        if condition is not None:
            self.notes.append(Note(condition[0], f"leads the same way, though {condition[1]}"))
        self._note_the_rest()
        self.notes += [Note(parting.step, f"{parting.what}: {parting.instead}") for parting in told]
        return self._end()

    def _refusal(self) -> Parting | None:
        """The event means nothing to one of them; or the execution does not even start."""
        was, now = self._was, self._now
        if was.outcome != now.outcome:
            return Parting("the event counts otherwise", self._where, "", was.outcome, now.outcome, {})
        if now.ended and not was.ended and now.begun is None and was.begun is not None:
            error = now.ended.error or {}
            return Parting("it does not start", self._where, str(error.get("message")), "starts", "ends FAILED", {})
        return None

    def _template(self) -> Parting | None:
        """A template fails that did not."""
        before = {(event.step, event.visit) for event in self._was.events if _failed_by_template(event)}
        for event in self._now.events:
            if _failed_by_template(event) and (event.step, event.visit) not in before:
                error = event.error or {}
                because = f"{error['template']}: {error['message']}"
                was = self._words(self._was, self._now, self._states[0]) or "does not fail"
                return Parting("a template fails", event.step or self._where, because, was, "ends FAILED", {})
        return None

    def _way(self) -> Parting | None:
        """Other steps are started, a visit ends otherwise, or the execution does."""
        was, now = self._was, self._now
        gone, more = _starts(was).keys() - _starts(now), _starts(now).keys() - _starts(was)
        if not gone and not more and _ends(was) == _ends(now) and _status(was) == _status(now):
            return None
        step, because = self._condition() or (self._where, "")
        if gone and more:
            what = "another step"
        elif gone or more:
            what = "a step more" if more else "a step less"
        else:
            what = "another outcome"
        nothing = "starts nothing"
        done, instead = self._words(was, now, self._states[0]), self._words(now, was, self._states[1])
        return Parting(what, step, because, done or nothing, instead or nothing, {})

    def _words(self, one: Decision, other: Decision, state: ExecutionState) -> str:
        """What the one does that the other does not."""
        theirs = _starts(other)
        names = list(dict.fromkeys(step for step, visit, place in _starts(one) if (step, visit, place) not in theirs))
        words = [f"starts {', '.join(names[:MOST_NAMED])}{' …' if len(names) > MOST_NAMED else ''}"] if names else []
        other_ends = _ends(other)
        words += [f"{VISIT_ENDS[kind]} {step}" for (step, visit), kind in _ends(one).items()
                  if other_ends.get((step, visit)) != kind and not (kind == "step_completed" and names)]  # fmt: skip
        if _status(one) != _status(other) and one.ended is not None:
            words.append(f"ends {one.ended.status}")
        if not words and state.waiting:
            words.append(f"waits at {', '.join(state.waiting)}")
        return ", ".join(words)

    def _condition(self) -> tuple[str, str] | None:
        """The first condition that comes out otherwise, or leads elsewhere, with the step that it stands at."""
        was, now = _conditions(self._was), _conditions(self._now)
        for visit in {**now, **was}:
            text = _first_other(was.get(visit, []), now.get(visit, []))
            if text:
                return str(visit[0]), text
        return None

    def _note_the_rest(self) -> None:
        was, now = (_routers(one) for one in (self._was, self._now))
        self.notes += [Note(name, "a router more is passed") for name in sorted(now - was)]
        self.notes += [Note(name, "a router less is passed") for name in sorted(was - now)]
        if self._was.begun is not None and self._now.begun is not None:
            values = values_of(self._was.begun.workload, self._now.begun.workload)
            self.notes += [Note("start", f"the workload has another {place}") for place in values]
        if self._was.changes != self._now.changes:
            self.notes.append(Note(self._where, "another pause before the next attempt"))

    def _jobs(self) -> Iterator[Parting]:
        """What the jobs are told that both queue."""
        before = {(job.step, job.visit, job.place): job for job in self._was.jobs}
        for job in self._now.jobs:
            was = before[job.step, job.visit, job.place]
            plain, values = self._told(was, job)
            self.notes += [Note(job.step, f"its job has another {place}") for place in plain]
            self.notes += [
                Note(job.step, f"its job has another {name}")
                for name in LIMITS
                if getattr(was, name) != getattr(job, name)
            ]
            if values:
                yield Parting(
                    "another job", job.step, "", f"runs {job.step}", f"gets another {name_places(values)}", values
                )

    def _told(self, was: Job, now: Job) -> tuple[list[str], Values]:
        """What of a job's action is another: text that the broker never renders, and values."""
        steps = [version.steps[now.step] for version in self._versions]
        plain, values = [], Values()
        for path, before, after in differing(was.action, now.action):
            if path[0] in BOOKKEEPING:
                continue
            if any(is_plain(step, path) for step in steps):
                plain.append(str(path[0]))
            else:
                values[place_of(path)] = [before, after]
        for key in RESULT_KEYS:
            for path, before, after in differing(was.context.get(key), now.context.get(key)):
                values[place_of((key, *path))] = [before, after]
        if was.node_type != now.node_type:
            values["type"] = [was.node_type, now.node_type]
        return [*dict.fromkeys(plain)], values

    def _children(self) -> Iterator[Parting]:
        before = {(child.step, child.visit, child.place): child for child in self._was.children}
        for child in self._now.children:
            was = before.get((child.step, child.visit, child.place))
            values = values_of(was and was._replace(ordinal=0)._asdict(), child._replace(ordinal=0)._asdict())
            if values:
                instead = f"gets another {name_places(values)}"
                yield Parting("another child", child.step, "", f"starts {child.path}", instead, values)

    def _items(self) -> Iterator[Parting]:
        before = {(items.step, items.visit): items.values for items in self._was.items}
        for items in self._now.items:
            was = before.get((items.step, items.visit), [])
            if was != items.values:
                instead = f"{len(items.values)} items" if len(was) != len(items.values) else "others"
                values = values_of(was, items.values)
                yield Parting("other items", items.step, "", f"{len(was)} items", instead, values)

    def _end(self) -> Parting | None:
        """The same end, with another result or another error."""
        was, now = self._was.ended, self._now.ended
        if was is None or now is None:
            return None
        values = values_of({"result": was.result}, {"result": now.result})
        values |= values_of(*({"error": {"message": (one.error or {}).get("message")}} for one in (was, now)))
        if not values:
            return None
        return Parting("another result", "end", "", f"ends {was.status}", f"gets another {name_places(values)}", values)


def _starts(decision: Decision) -> dict[Node, None]:
    """The visits and the items that are started, in order."""
    started = dict.fromkeys((job.step, job.visit, job.place) for job in decision.jobs)
    return started | dict.fromkeys((child.step, child.visit, child.place) for child in decision.children)


def _ends(decision: Decision) -> dict[tuple[str, int], str]:
    """How visits that had a job ended, those of routers aside."""
    routers = _routers(decision)
    return {
        (event.step, event.visit): event.type
        for event in decision.events
        if event.type in VISIT_ENDS and event.step is not None and event.step not in routers
    }


def _routers(decision: Decision) -> set[str]:
    """The routers that were passed: they begin and end in one turn, and no job is theirs."""
    begun = {event.step for event in decision.events if event.type == "step_started"}
    jobs = {job.step for job in decision.jobs}
    return {
        event.step
        for event in decision.events
        if event.type == "step_completed" and event.step in begun and event.step is not None and event.step not in jobs
    }


def _status(decision: Decision) -> str | None:
    return decision.ended.status if decision.ended is not None else None


def _failed_by_template(event: Emitted) -> bool:
    return event.type == "step_failed" and isinstance(event.error, dict) and "template" in event.error


def _conditions(decision: Decision) -> dict[tuple[str | None, int], list[dict[str, Any]]]:
    return {
        (event.step, event.visit): event.meta["next"]
        for event in decision.events
        if event.meta and "next" in event.meta
    }


def _first_other(was: list[dict[str, Any]], now: list[dict[str, Any]]) -> str | None:
    """Say which condition is another: matched by its text, or else by its place."""
    texts = {condition["when"]: condition for condition in was}
    for place, condition in enumerate(now):
        before = texts.get(condition["when"]) or (was[place] if place < len(was) else None)
        text, outcome = condition["when"], _word(condition["outcome"])
        if before is None:
            if condition["outcome"]:
                return f"{text} is true, and is new"
        elif before["outcome"] != condition["outcome"]:
            other = "it" if before["when"] == text else before["when"]
            return f"{text} is {outcome}, {other} was {_word(before['outcome'])}"
        elif before["to"] != condition["to"]:
            return f"{text} is {outcome} and leads to {_list(condition['to'])}, not to {_list(before['to'])}"
    read = {condition["when"] for condition in now}
    gone = next((one for one in was[len(now) :] if one["outcome"] and one["when"] not in read), None)
    return f"{gone['when']} was true, and is gone" if gone else None


def _word(outcome: JSON) -> str:
    return "true" if outcome else "false"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"

"""Compares two decisions on one event, made with two versions of a playbook: what differs first, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.model.decision import Decision, JobRow
from noetl_broker.broker.model.effects import (
    ChildStarted,
    ExecutionBegun,
    ItemsChosen,
    JobChanged,
    TimerSet,
    WaitOpened,
)
from noetl_broker.broker.model.event import Emitted, Event
from noetl_broker.broker.model.event_types import EXECUTION_START
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import COMPENSATING, FAILED
from noetl_broker.broker.writing.events import CAUGHT
from noetl_broker.playbook.keywords import ENCODED_KEYS
from noetl_broker.template.durations import moment_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from noetl_broker.broker.model.values import Visit
    from noetl_broker.broker.state.state import ExecutionState
    from noetl_broker.history.record import Node
    from noetl_broker.playbook.model import Playbook, Step

FAILURE_GONE = "the failure is gone"  # only the own version fails the execution
FAILS = frozenset({FAILED, COMPENSATING})
VISIT_ENDS = {
    "step_completed": "completes",
    "step_failed": "fails",
    "step_cancelled": "is cancelled",
    CAUGHT: "catches the failure of",
    "action_retry": "tries again",
}
RESULT_KEYS = ("result", "results")  # of a job's context: the worker renders templates with them
DERIVED = frozenset({"unfinished"})  # keys of an action that follow from its other keys
LIMITS = ("priority", "max_attempts", "timeout")
MOST_NAMED = 5  # differences that are named

Path = tuple[str | int, ...]
Values = dict[str, list[JSON]]  # by path: [what it was, what it would be]


class Divergence(NamedTuple):
    """A difference between the decisions of two versions: its kind, its step, and the condition that caused it.

    `was` is what the own version does, `instead` what the other one does. `values` are the differing parts of a value.
    """

    what: str
    step: str
    because: str
    was: str
    instead: str
    values: Values


class Note(NamedTuple):
    """A difference at a step that changes no decision."""

    step: str
    what: str


class DecisionDiff:
    """Two decisions on one event. `versions` and `states` (after the turn) are each the own one and the other one."""

    def __init__(
        self,
        event: Event,
        was: Decision,
        now: Decision,
        versions: tuple[Playbook, Playbook],
        states: tuple[ExecutionState, ExecutionState],
    ) -> None:
        self._was, self.edited = was, now
        self._versions, self._states = versions, states
        self._where = event.step or ("start" if event.kind == EXECUTION_START else "the execution")
        self.notes: list[Note] = []

    def divergence(self, *, ways_only: bool) -> Divergence | None:
        """The most serious difference. With `ways_only`, other inputs of a job are notes and no divergence."""
        if self._was == self.edited and self._was.kinds == self.edited.kinds:
            return None  # most turns
        for check in (self._outcome, self._template_error, self._steps):
            found = check()
            if found is not None:
                return found
        inputs = [*self._jobs(), *self._children(), *self._items(), *self._waits()]
        condition = self._condition()
        if inputs and not ways_only:
            because = f"{condition[0]}: {condition[1]}" if condition is not None else ""
            return inputs[0]._replace(because=because)
        if condition is not None:
            self.notes.append(Note(condition[0], f"decides the same, although {condition[1]}"))
        self._note_the_rest()
        self.notes += [Note(one.step, f"{one.what}: {one.instead}") for one in inputs]
        return self._result()

    def explain_mended(self, divergence: Divergence) -> Divergence:
        """The divergence, named after the failure if only the own version fails the execution."""
        own, other = self._states
        if own.status not in FAILS or other.status in FAILS:
            return divergence
        ended = self._was.ended
        error = own.compensation.error if own.compensation is not None else ended and ended.error
        because = f"{error['template']}: {error['message']}" if error and "template" in error else divergence.because
        return divergence._replace(what=FAILURE_GONE, because=because)

    def _outcome(self) -> Divergence | None:
        """Only one version ignores the event, or only one starts the execution."""
        was, now = self._was, self.edited
        if was.outcome != now.outcome:
            return Divergence("another event outcome", self._where, "", was.outcome, now.outcome, {})
        if now.ended and not was.ended and _begun(now) is None and _begun(was) is not None:
            error = now.ended.error or {}
            return Divergence("it does not start", self._where, str(error.get("message")), "starts", "ends FAILED", {})
        return None

    def _template_error(self) -> Divergence | None:
        """A template fails only in the other version."""
        before = {(event.step, event.visit) for event in self._was.events if _is_template_error(event)}
        for event in self.edited.events:
            if _is_template_error(event) and (event.step, event.visit) not in before:
                error = event.error or {}
                because = f"{error['template']}: {error['message']}"
                was = self._actions(self._was, self.edited, self._states[0]) or "does not fail"
                instead = "ends FAILED"
                if (event.meta or {}).get("status") == CAUGHT:
                    instead = self._actions(self.edited, self._was, self._states[1])
                return Divergence("a template fails", event.step or self._where, because, was, instead, {})
        return None

    def _steps(self) -> Divergence | None:
        """Other steps start, a visit ends differently, or the execution does."""
        was, now = self._was, self.edited
        missing, added = _starts(was).keys() - _starts(now), _starts(now).keys() - _starts(was)
        if not missing and not added and _ends(was) == _ends(now) and _status(was) == _status(now):
            return None
        step, because = self._condition() or (self._where, "")
        if missing and added:
            what = "another step"
        elif missing or added:
            what = "an additional step" if added else "a missing step"
        else:
            what = "another outcome"
        nothing = "starts nothing"
        done = self._actions(was, now, self._states[0]) or nothing
        instead = self._actions(now, was, self._states[1]) or nothing
        return Divergence(what, step, because, done, instead, {})

    def _actions(self, one: Decision, other: Decision, state: ExecutionState) -> str:
        """The actions of one version that the other version does not take."""
        others = _starts(other)
        names = list(dict.fromkeys(node[0] for node in _starts(one) if node not in others))
        actions = [f"starts {', '.join(names[:MOST_NAMED])}{' …' if len(names) > MOST_NAMED else ''}"] if names else []
        other_ends = _ends(other)
        for (step, visit), kind in _ends(one).items():
            if other_ends.get((step, visit)) != kind and not (kind == "step_completed" and names):
                actions.append(f"{VISIT_ENDS[kind]} {step}")
        if _status(one) != _status(other) and one.ended is not None:
            actions.append(f"ends {one.ended.status}")
        if not actions and state.waiting:
            actions.append(f"waits at {', '.join(state.waiting)}")
        return ", ".join(actions)

    def _condition(self) -> tuple[str, str] | None:
        """The first condition whose outcome or target differs, after its step."""
        was, now = _conditions(self._was), _conditions(self.edited)
        for visit in {**now, **was}:
            text = _condition_difference(was.get(visit, []), now.get(visit, []))
            if text:
                return str(visit[0]), text
        return None

    def _note_the_rest(self) -> None:
        was, now = (_routers(one) for one in (self._was, self.edited))
        self.notes += [Note(name, "an additional router is passed") for name in sorted(now - was)]
        self.notes += [Note(name, "a router is not passed") for name in sorted(was - now)]
        begun = [_begun(one) for one in (self._was, self.edited)]
        if begun[0] is not None and begun[1] is not None:
            values = differing_values(begun[0].workload, begun[1].workload)
            self.notes += [Note("start", f"the workload has another {path}") for path in values]
        if self._was.of(JobChanged) != self.edited.of(JobChanged):
            self.notes.append(Note(self._where, "another delay before the next attempt"))

    def _jobs(self) -> Iterator[Divergence]:
        """Jobs that both versions queue, with other inputs."""
        before = {(job.step, job.visit, job.item_index): job for job in self._was.jobs}
        for job in self.edited.jobs:
            was = before.get((job.step, job.visit, job.item_index))
            if was is None:  # a wait, or a child
                yield Divergence("another job", job.step, "", f"waits at {job.step}", f"runs {job.step}", {})
                continue
            plain, values = self._compare_jobs(was, job)
            limits = [name for name in LIMITS if getattr(was, name) != getattr(job, name)]
            self.notes += [Note(job.step, f"its job has another {name}") for name in (*plain, *limits)]
            if values:
                yield Divergence("another job", job.step, "", f"runs {job.step}", _other_parts(values), values)

    def _compare_jobs(self, was: JobRow, now: JobRow) -> tuple[list[str], Values]:
        """The keys whose text the broker never renders, and the values, that differ between two jobs."""
        steps = [version.steps[now.step] for version in self._versions]
        plain, values = [], Values()
        for path, before, after in _differences(was.action, now.action):
            if path[0] in DERIVED:
                continue
            if any(_is_plain(step, path) for step in steps):
                plain.append(str(path[0]))
            else:
                values[_path_text(path)] = [before, after]
        for key in RESULT_KEYS:
            for path, before, after in _differences(was.context.get(key), now.context.get(key)):
                values[_path_text((key, *path))] = [before, after]
        if was.node_type != now.node_type:
            values["type"] = [was.node_type, now.node_type]
        return [*dict.fromkeys(plain)], values

    def _children(self) -> Iterator[Divergence]:
        before = {(child.step, child.visit, child.item_index): child for child in self._was.of(ChildStarted)}
        for child in self.edited.of(ChildStarted):
            was = before.get((child.step, child.visit, child.item_index))
            values = differing_values(was and was._replace(ordinal=0)._asdict(), child._replace(ordinal=0)._asdict())
            if values:
                yield Divergence("another child", child.step, "", f"starts {child.path}", _other_parts(values), values)

    def _waits(self) -> Iterator[Divergence]:
        """Waits that both versions begin, for something else or until another moment."""
        before = _waits_of(self._was)
        for (step, visit), wait in _waits_of(self.edited).items():
            values = differing_values(before.get((step, visit)), wait)
            if values:
                yield Divergence("another wait", step, "", f"waits at {step}", _other_parts(values), values)

    def _items(self) -> Iterator[Divergence]:
        before = {(items.step, items.visit): items.values for items in self._was.of(ItemsChosen)}
        for items in self.edited.of(ItemsChosen):
            was = before.get((items.step, items.visit), [])
            if was != items.values:
                instead = f"{len(items.values)} items" if len(was) != len(items.values) else "others"
                values = differing_values(was, items.values)
                yield Divergence("other items", items.step, "", f"{len(was)} items", instead, values)

    def _result(self) -> Divergence | None:
        """Both end in the same way, with another result or error."""
        was, now = self._was.ended, self.edited.ended
        if was is None or now is None:
            return None
        values = differing_values({"result": was.result}, {"result": now.result})
        values |= differing_values(*({"error": {"message": (one.error or {}).get("message")}} for one in (was, now)))
        if not values:
            return None
        return Divergence("another result", "end", "", f"ends {was.status}", _other_parts(values), values)


def differing_values(was: JSON, now: JSON) -> Values:
    """The smallest parts of two values that differ, by their paths."""
    return {_path_text(path): [before, after] for path, before, after in _differences(was, now)}


def _differences(was: JSON, now: JSON, at: Path = ()) -> Iterator[tuple[Path, JSON, JSON]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            yield from _differences(was.get(key), now.get(key), (*at, key))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (before, after) in enumerate(zip(was, now, strict=True)):
            yield from _differences(before, after, (*at, index))
    elif was != now:
        yield at, was, now


def _path_text(path: Path) -> str:
    """A path as text: `args.cities[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _other_parts(values: Values) -> str:
    """The difference in a few words: `gets another args.n`."""
    names = list(values)
    return f"gets another {', '.join(names[:MOST_NAMED])}" + (" …" if len(names) > MOST_NAMED else "")


def _is_plain(step: Step, path: Path) -> bool:
    """Whether this part of an action is text that the broker does not render."""
    names: list[str | int] = [key for key, encoded in ENCODED_KEYS.items() if encoded == path[0]]
    return any(_reaches(step.plain, (name, *path[1:])) for name in names or [path[0]])


def _reaches(plain: JSON, path: Path) -> bool:
    for part in path:
        if not isinstance(plain, dict) or part not in plain:
            return False
        plain = plain[part]
        if not isinstance(plain, dict):
            return True
    return True


def _starts(decision: Decision) -> dict[Node, None]:
    """The visits and items that start, in order."""
    started = dict.fromkeys((job.step, job.visit, job.item_index) for job in decision.jobs)
    started |= dict.fromkeys((child.step, child.visit, child.item_index) for child in decision.of(ChildStarted))
    return started | dict.fromkeys((wait.step, wait.visit, None) for wait in decision.of(WaitOpened))


def _begun(decision: Decision) -> ExecutionBegun | None:
    return decision.last(ExecutionBegun)


def _waits_of(decision: Decision) -> dict[Visit, JSON]:
    """The new waits: what each waits for, and when it ends or times out."""
    dues = {(timer.step, timer.visit, timer.purpose): moment_text(timer.due) for timer in decision.of(TimerSet)}
    return {
        (wait.step, wait.visit): {
            "signal": [*wait.names],
            "key": wait.key,
            "details": wait.details,
            "inputs": wait.request,
            "until": dues.get((wait.step, wait.visit, "wait")),
            "timeout": dues.get((wait.step, wait.visit, "timeout")),
        }
        for wait in decision.of(WaitOpened)
    }


def _ends(decision: Decision) -> dict[tuple[str, int], str]:
    """The ends of visits, without visits of routers."""
    routers = _routers(decision)
    return {
        (event.step, event.visit): CAUGHT if (event.meta or {}).get("status") == CAUGHT else event.type
        for event in decision.events
        if event.type in VISIT_ENDS and event.step is not None and event.step not in routers
    }


def _routers(decision: Decision) -> set[str]:
    """The routers that were passed: they start and complete in one turn and have neither a job nor a result."""
    begun = {event.step for event in decision.events if event.type == "step_started"}
    jobs = {job.step for job in decision.jobs}
    return {
        event.step
        for event in decision.events
        if event.type == "step_completed"
        and event.result is None
        and event.step in begun
        and event.step is not None
        and event.step not in jobs
    }


def _status(decision: Decision) -> str | None:
    return decision.ended.status if decision.ended is not None else None


def _is_template_error(event: Emitted) -> bool:
    return event.type == "step_failed" and isinstance(event.error, dict) and "template" in event.error


def _conditions(decision: Decision) -> dict[tuple[str | None, int], list[dict[str, Any]]]:
    return {
        (event.step, event.visit): [*event.meta.get("catch", ()), *event.meta.get("next", ())]
        for event in decision.events
        if event.meta and ("next" in event.meta or "catch" in event.meta)
    }


def _condition_difference(was: list[dict[str, Any]], now: list[dict[str, Any]]) -> str | None:
    """The first condition that differs. Conditions are matched by their text, or else by their index."""
    texts = {condition["when"]: condition for condition in was}
    for index, condition in enumerate(now):
        before = texts.get(condition["when"]) or (was[index] if index < len(was) else None)
        text, outcome = condition["when"], _outcome_text(condition)
        if before is None:
            if condition["outcome"]:
                return f"{text} is new and true"
        elif before["outcome"] != condition["outcome"]:
            other = "it" if before["when"] == text else before["when"]
            return f"{text} is {outcome}, {other} was {_outcome_text(before)}"
        elif before["to"] != condition["to"]:
            return f"{text} is {outcome} and leads to {_targets(condition['to'])}, not to {_targets(before['to'])}"
    read = {condition["when"] for condition in now}
    removed = next((one for one in was[len(now) :] if one["outcome"] and one["when"] not in read), None)
    return f"{removed['when']} was true and is removed" if removed else None


def _outcome_text(condition: dict[str, Any]) -> str:
    return "true" if condition["outcome"] else "false"


def _targets(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"

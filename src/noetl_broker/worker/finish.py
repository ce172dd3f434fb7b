"""Finishes the templates that the broker left for the worker: those that name `env`, `secret`, `job` and their like.

A string that the broker rendered is data and is never rendered again, whatever stands in it. Where the job says which
of its strings are still templates (`unfinished`, a list of paths into the action), those are marked as such before
anything is made of the action, and nothing else is finished; else a string counts as a template if it names a word that
only the worker knows. The context says the same of the workload's strings; of those only what a template reads is
finished.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from noetl_broker.playbook.reads import at_path, first_met, with_value, word_of_inputs, workload_paths
from noetl_broker.template import WORKER_WORDS, Moment, Scope, StepResult, Template, TemplateError, compile_text
from noetl_broker.worker.environment import Lookup, credential, secret, visible_environment
from noetl_broker.worker.faults import ToolFault

Path = tuple[str | int, ...]
NO_WORDS: Mapping[str, Any] = MappingProxyType({})
SECRET_WORDS = frozenset({"secret", "secrets", "keychain"})


class Left(str):
    """The text of a template that the broker left: it stays marked wherever the action's values are put."""

    __slots__ = ()


def marked(action: dict[str, Any]) -> dict[str, Any]:
    """Mark the strings of an action that it calls unfinished; a path that leads to no string is nothing.

    The action is changed, and given back. One that does not say (no list under `unfinished`) stays as it is.
    """
    unfinished = action.get("unfinished")
    if not isinstance(unfinished, list):
        return action
    for path in unfinished:
        if isinstance(path, list) and path:
            _mark(action, path)
    return action


def _mark(value: Any, path: list[Any]) -> None:
    try:
        for part in path[:-1]:
            value = value[part]
        if isinstance(value[path[-1]], str):
            value[path[-1]] = Left(value[path[-1]])
    except (KeyError, IndexError, TypeError):
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class Finisher:
    """What the left templates of one job see: inputs, results of steps, workload, and the worker's own words.

    `marks`: the job says which of its strings are templates, and `marked` has marked them. `defaults` are the paths of
    the workload's strings that are templates too. `moment` has the time at which the attempt began here, and makes ids
    of the job in place of a turn: another attempt makes the same ones. `levels` are the names of inputs that see
    others, as the context tells them; None: the job does not say.
    """

    args: Mapping[str, Any]
    context: Mapping[str, Any]
    words: Mapping[str, Any]
    moment: Moment
    marks: bool = False
    defaults: tuple[Path, ...] = ()
    levels: tuple[frozenset[str], ...] | None = None

    def finish(self, value: Any, path: Path = (), *, extra: Mapping[str, Any] | None = None) -> Any:
        """Give a value with its left templates evaluated; `extra` are words known only here (`result`, an element).

        Raises ToolFault, not retryable, with `template` and `at`.
        """
        if isinstance(value, str):
            return self._finish_text(value, path, extra or {})
        if isinstance(value, Mapping):
            return {key: self.finish(item, (*path, key), extra=extra) for key, item in value.items()}
        if isinstance(value, list):
            return [self.finish(item, (*path, index), extra=extra) for index, item in enumerate(value)]
        return value

    def is_left(self, text: str, path: Path, extra: Mapping[str, Any]) -> Template | None:
        """Give the template that a string still is, None if it is data."""
        if "{{" not in text and "{%" not in text:
            return None
        if self.marks and not isinstance(text, Left):
            return None
        try:
            template = compile_text(str(text), place(path), max_source_chars=None)
        except TemplateError as fault:
            if not self.marks:
                return None
            raise refused(fault) from None
        if not self.marks and not template.names & (WORKER_WORDS | extra.keys()):
            return None
        return template

    def with_inputs(self, args: object, path: Path, extra: Mapping[str, Any]) -> Finisher:
        """Give a finisher whose templates see these inputs finished, level by level: each sees those before it."""
        if not isinstance(args, Mapping):
            return self
        levels = self._levels_of(args, extra)
        seen = replace(self, args={})
        for keys in (args.keys() - frozenset().union(*levels), *levels):
            seen = seen.with_level({key: args[key] for key in args if key in keys}, path, extra)
        return replace(seen, args={key: seen.args[key] for key in args})

    def with_level(self, inputs: Mapping[str, Any], path: Path, extra: Mapping[str, Any]) -> Finisher:
        """Give a finisher whose templates see these inputs too: they themselves see only what this one sees."""
        return replace(self, args={**self.args, **self.finish(inputs, path, extra=extra)}) if inputs else self

    def _levels_of(self, args: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[frozenset[str], ...]:
        """Give the names of inputs by what they see; where the job does not say, none sees one that must wait as it."""
        if self.levels is not None:
            return self.levels
        names = {key: self.names_in(value, extra) for key, value in args.items()}
        unfinished = frozenset(key for key, read in names.items() if read is not None)
        waiting = frozenset(key for key in unfinished if not (unfinished | {"args"}).isdisjoint(names[key] or ()))
        return (unfinished - waiting, waiting)

    def of_item(self, index: int) -> Finisher:
        """Give the finisher of one item; its ids are its own, in whatever order the items are done."""
        moment = Moment(execution_id=self.moment.execution_id, turn=f"{self.moment.turn}.{index}", at=self.moment.at)
        return replace(self, moment=moment)

    def names_in(self, value: Any, extra: Mapping[str, Any] = NO_WORDS) -> frozenset[str] | None:
        """Give what the left templates of a value read; None if it has none."""
        if isinstance(value, str):
            template = self.is_left(value, (), extra)
            return None if template is None else template.names
        items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        read = [names for item in items if (names := self.names_in(item, extra)) is not None]
        return frozenset().union(*read) if read else None

    def _finish_text(self, text: str, path: Path, extra: Mapping[str, Any]) -> Any:
        template = self.is_left(text, path, extra)
        if template is None:
            return text
        return self.evaluated(template, extra)

    def evaluated(self, template: Template, extra: Mapping[str, Any]) -> Any:
        """Evaluate one template; an element of an iterator wins over an input of its name. Raises ToolFault."""
        steps = self._steps()
        inputs = {key: item for key, item in self.args.items() if key not in extra}
        workload = self._workload(template.source, {*inputs, *extra, *steps})
        scope = Scope(
            inputs=inputs,
            steps=steps.get,
            words={"args": self.args, **self.words, **extra},
            workload=lambda: workload,
            is_step=steps.keys(),
            moment=self.moment,
        )
        try:
            return template.evaluate(scope)
        except TemplateError as fault:
            raise refused(fault) from None

    def _steps(self) -> Mapping[str, StepResult]:
        results = self.context.get("results")
        if not isinstance(results, Mapping):
            return {}
        return {name: ended(data, name, self.context) for name, data in results.items()}

    def _workload(self, source: str, hidden: Collection[str]) -> Mapping[str, Any]:
        """Give the workload, with those of its templates finished that a text reads but under the `hidden` names."""
        workload = self.context.get("workload")
        if not isinstance(workload, dict):
            return {}
        for path in self.defaults:
            told = isinstance(at_path(workload, path), str)
            if told and first_met(source, workload_paths((path,), hidden)):
                workload = with_value(workload, path, self._default(path))
        return workload

    def _default(self, path: Path) -> Any:
        """Finish a default of the workload: it sees the workload and the worker's words."""
        text = Left(at_path(self.context, ("workload", *path)))
        others = tuple(other for other in self.defaults if other != path)
        alone = replace(self, args={}, context={"workload": self.context.get("workload")}, defaults=others)
        return alone.finish(text, ("workload", *path))


def ended(data: Any, name: str, context: Mapping[str, Any]) -> StepResult:
    """Give a result with its status and its error: `outcomes` says those of whatever did not simply complete."""
    outcomes = context.get("outcomes")
    outcome = outcomes.get(name) if isinstance(outcomes, Mapping) else None
    if not isinstance(outcome, Mapping):
        return StepResult(data)
    return StepResult(data, str(outcome.get("status") or "COMPLETED"), outcome.get("error"), outcome.get("failed"))


def refused(fault: TemplateError) -> ToolFault:
    """Tell of a template that failed; of secrets, where they come from."""
    remedy = ""
    if any(word in fault.template for word in SECRET_WORDS):
        remedy = " (secrets are environment variables of the worker: NOETL_SECRET_<NAME>, NOETL_CREDENTIAL_<NAME>)"
    return ToolFault(f"{fault}{remedy}", kind="template", retryable=False, template=fault.template, at=fault.at)


def finisher_of(
    action: Mapping[str, Any],
    context: Mapping[str, Any],
    job: Mapping[str, Any],
    environment: Mapping[str, str],
    learn: Callable[[str], str] = str,
) -> Finisher:
    """Prepare the finisher of one job; `job` is what templates read as that word (`job.uuid`, `job.attempt`, …).

    Of `job` these are needed: `execution_id` and `node_id`. `learn` is told each secret that a template reads.
    """
    args = action.get(word_of_inputs(action))

    def find(environment: Mapping[str, str], name: str) -> str:
        return learn(secret(environment, name))

    words: dict[str, Any] = {
        "env": visible_environment(environment),
        "job": dict(job),
        "secret": Lookup(find, environment),
        "secrets": Lookup(find, environment),
        "keychain": Lookup(credential, environment),
        "execution_id": job["execution_id"],
    }
    if "result" in context:
        words["result"] = words["this"] = ended(context["result"], "result", context)
    if isinstance(context.get("words"), Mapping):
        words |= context["words"]  # of one item of an iterator: its element and `_loop`
    return Finisher(
        args=args if isinstance(args, Mapping) else {},
        context=context,
        words=words,
        moment=Moment(execution_id=job["execution_id"], turn=job["node_id"], at=datetime.now(UTC)),
        marks=isinstance(action.get("unfinished"), list),
        defaults=tuple(unfinished_defaults(context)),
        levels=_levels_told(context.get("levels")),
    )


def _levels_told(told: Any) -> tuple[frozenset[str], ...] | None:
    if not isinstance(told, list):
        return None
    return tuple(
        frozenset(name for name in level if isinstance(name, str)) for level in told if isinstance(level, list)
    )


def unfinished_defaults(context: Mapping[str, Any]) -> Iterator[Path]:
    """Give the paths in the workload of the strings that the context calls unfinished."""
    unfinished = context.get("unfinished")
    for path in unfinished if isinstance(unfinished, list) else ():
        if isinstance(path, list) and len(path) > 1 and path[0] == "workload":
            yield tuple(path[1:])


def place(path: Sequence[str | int]) -> str:
    """Write a path as `headers.Authorization` or `command[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text

"""Renders the deferred strings of a job: templates that name `env`, `secret`, `job` and other worker-side words.

A string that the broker rendered is data and never rendered again. A job lists the paths of its deferred strings under
`unfinished`. In a job without that list, from another broker, each string that names a worker-side word is deferred.
The context lists the deferred strings of the workload. Such a string is rendered only if a template reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from noetl_broker.playbook.diagnostics import path_text
from noetl_broker.playbook.template_reads import word_of_inputs, workload_key_read
from noetl_broker.template import WORKER_WORDS, Moment, Scope, StepResult, Template, TemplateError, compile_text
from noetl_broker.worker.environment import Lookup, credential, secret, visible_environment
from noetl_broker.worker.errors import FinalFault, ToolFault

Path = tuple[str | int, ...]
NO_WORDS: Mapping[str, Any] = MappingProxyType({})
SECRET_WORDS = frozenset({"secret", "secrets", "keychain"})


class Deferred(str):
    """A deferred string of a job: the type marks it wherever the action's values are copied."""

    __slots__ = ()


def mark_deferred(action: dict[str, Any]) -> dict[str, Any]:
    """Mark the strings that an action lists under `unfinished`, in place, and give the action.

    A path that leads to no string is ignored.
    """
    unfinished = action.get("unfinished")
    if not isinstance(unfinished, list):
        return action
    for path in unfinished:
        if isinstance(path, list) and path:
            _mark(action, path)
    return action


def _mark(value: Any, path: Sequence[Any]) -> None:
    try:
        for part in path[:-1]:
            value = value[part]
        if isinstance(value[path[-1]], str):
            value[path[-1]] = Deferred(value[path[-1]])
    except (KeyError, IndexError, TypeError):
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Renders the deferred strings of one job; they see inputs, results of steps, the workload and worker-side words.

    `args` are inputs without a deferred string, until `with_inputs`. `marks`: the job lists its deferred strings, and
    `mark_deferred` has marked them. `defaults` are the paths of deferred strings in the workload. `moment` is the start
    of this attempt. Generated ids depend on the job alone, so every attempt makes the same ones.
    """

    args: Mapping[str, Any]
    context: Mapping[str, Any]
    words: Mapping[str, Any]
    moment: Moment
    marks: bool = False
    defaults: tuple[Path, ...] = ()

    def render(self, value: Any, path: Path = (), *, extra: Mapping[str, Any] | None = None) -> Any:
        """Give a value with its deferred strings rendered; `extra` are further words (`result`, an element).

        Raises ToolFault, not retryable, with `template` and `at`.
        """
        if isinstance(value, str):
            return self._render_text(value, path, extra or {})
        if isinstance(value, Mapping):
            return {key: self.render(item, (*path, key), extra=extra) for key, item in value.items()}
        if isinstance(value, list):
            return [self.render(item, (*path, index), extra=extra) for index, item in enumerate(value)]
        return value

    def template_of(self, text: str, path: Path, extra: Mapping[str, Any]) -> Template | None:
        """Give the template of a deferred string; None for data."""
        if "{{" not in text and "{%" not in text:
            return None
        if self.marks and not isinstance(text, Deferred):
            return None
        try:
            template = compile_text(str(text), path_text(path), max_source_chars=None)
        except TemplateError as fault:
            if not self.marks:
                return None
            raise template_fault(fault) from None
        if not self.marks and not template.names & (WORKER_WORDS | extra.keys()):
            return None
        return template

    def with_inputs(self, inputs: object, path: Path, extra: Mapping[str, Any]) -> Renderer:
        """Give a renderer that sees these inputs too; they themselves see what this renderer sees."""
        if not isinstance(inputs, Mapping):
            return self
        return replace(self, args={**self.args, **self.render(inputs, path, extra=extra)})

    def of_item(self, index: int) -> Renderer:
        """Give the renderer of one item, with ids of its own."""
        moment = Moment(execution_id=self.moment.execution_id, turn=f"{self.moment.turn}.{index}", at=self.moment.at)
        return replace(self, moment=moment)

    def is_deferred(self, value: Any) -> bool:
        """Whether a value has a deferred string."""
        if isinstance(value, str):
            return isinstance(value, Deferred) if self.marks else self.template_of(value, (), NO_WORDS) is not None
        items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        return any(map(self.is_deferred, items))

    def _render_text(self, text: str, path: Path, extra: Mapping[str, Any]) -> Any:
        template = self.template_of(text, path, extra)
        if template is None:
            return text
        return self.evaluate(template, extra)

    def evaluate(self, template: Template, extra: Mapping[str, Any]) -> Any:
        """Evaluate a template; words in `extra` win over inputs of their names. Raises ToolFault."""
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
            raise template_fault(fault) from None

    def _steps(self) -> Mapping[str, StepResult]:
        results = self.context.get("results")
        if not isinstance(results, Mapping):
            return {}
        return {name: step_result(data, name, self.context) for name, data in results.items()}

    def _workload(self, source: str, hidden: Collection[str]) -> Mapping[str, Any]:
        """Give the workload, with those defaults rendered that a template reads; `hidden` names hide keys."""
        workload = self.context.get("workload")
        if not isinstance(workload, dict):
            return {}
        keys = {str(path[0]) for path in self.defaults if path[0] in workload}
        return {**workload, **{key: self._default(key) for key in keys if workload_key_read(source, {key}, hidden)}}

    def _default(self, key: Any) -> Any:
        """Render a default of the workload: it sees the workload and worker-side words."""
        workload = self.context["workload"]
        marked = {key: deepcopy(workload[key])}
        for path in self.defaults:
            _mark(marked, path)
        return replace(self, args={}, context={"workload": workload}, defaults=()).render(marked, ("workload",))[key]


def step_result(data: Any, name: str, context: Mapping[str, Any]) -> StepResult:
    """Give a result with its status and error, which the context has under `outcomes` unless it simply completed."""
    outcomes = context.get("outcomes")
    outcome = outcomes.get(name) if isinstance(outcomes, Mapping) else None
    if not isinstance(outcome, Mapping):
        return StepResult(data)
    return StepResult(data, str(outcome.get("status") or "COMPLETED"), outcome.get("error"), outcome.get("failed"))


def template_fault(fault: TemplateError) -> ToolFault:
    """Give the fault of a failed template; for a secret, with a hint where secrets come from."""
    remedy = ""
    if any(word in fault.template for word in SECRET_WORDS):
        remedy = " (secrets are environment variables of the worker: NOETL_SECRET_<NAME>, NOETL_CREDENTIAL_<NAME>)"
    elif (found := re.search(r"`env\.(\w+)` is undefined", str(fault))) is not None:
        remedy = f" (jobs read what is common, and what the worker is told to pass: --pass-env {found[1]})"
    return FinalFault(f"{fault}{remedy}", kind="template", template=fault.template, at=fault.at)


def renderer_of(
    action: Mapping[str, Any],
    context: Mapping[str, Any],
    job: Mapping[str, Any],
    environment: Mapping[str, str],
    learn: Callable[[str], str] = str,
) -> Renderer:
    """Give the renderer of one job; templates read `job` under that word (`job.uuid`, `job.attempt`, …).

    `job` needs `execution_id` and `node_id`. `learn` is called with each secret that a template reads.
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
        words["result"] = words["this"] = step_result(context["result"], "result", context)
    if isinstance(context.get("words"), Mapping):
        words |= context["words"]  # the names of one item of an iterator: its element and `_loop`
    renderer = Renderer(
        args={},
        context=context,
        words=words,
        moment=Moment(execution_id=job["execution_id"], turn=job["node_id"], at=datetime.now(UTC)),
        marks=isinstance(action.get("unfinished"), list),
        defaults=tuple(deferred_defaults(context)),
    )
    given = args.items() if isinstance(args, Mapping) else ()
    return replace(renderer, args={key: value for key, value in given if not renderer.is_deferred(value)})


def deferred_defaults(context: Mapping[str, Any]) -> Iterator[Path]:
    """Give the paths in the workload that the context lists under `unfinished`."""
    unfinished = context.get("unfinished")
    for path in unfinished if isinstance(unfinished, list) else ():
        if isinstance(path, list) and len(path) > 1 and path[0] == "workload":
            yield tuple(path[1:])

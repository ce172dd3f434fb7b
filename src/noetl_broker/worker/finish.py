"""Finishes the templates that the broker left for the worker: those that name `env`, `secret`, `job` and their like.

A string that the broker rendered is data and is never rendered again, whatever stands in it. Where the job says which
of its strings are still templates (`unfinished`, a list of paths into the action), only those are; else a string counts
as one if it names a word that only the worker knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from noetl_broker.template import WORKER_WORDS, Moment, Scope, StepResult, Template, TemplateError, compile_text
from noetl_broker.worker.environment import Lookup, credential, secret, visible_environment
from noetl_broker.worker.faults import ToolFault

Path = tuple[str | int, ...]
SECRET_WORDS = frozenset({"secret", "secrets", "keychain"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finisher:
    """What the left templates of one job see: inputs, results of steps, workload, and the worker's own words.

    `unfinished` are the paths of the strings that are templates, None where the job does not say.
    """

    args: Mapping[str, Any]
    context: Mapping[str, Any]
    words: Mapping[str, Any]
    unfinished: frozenset[Path] | None = None
    moment: Moment = field(default_factory=lambda: Moment(execution_id=0, turn=0, at=datetime.now(UTC)))

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
        if self.unfinished is not None and path not in self.unfinished:
            return None
        try:
            template = compile_text(text, place(path))
        except TemplateError as fault:
            if self.unfinished is None:
                return None
            raise refused(fault) from None
        if self.unfinished is None and not template.names & (WORKER_WORDS | extra.keys()):
            return None
        return template

    def _finish_text(self, text: str, path: Path, extra: Mapping[str, Any]) -> Any:
        template = self.is_left(text, path, extra)
        if template is None:
            return text
        return evaluated(template, self.scope(extra))

    def scope(self, extra: Mapping[str, Any]) -> Scope:
        """Give the names that one evaluation sees; an element of an iterator wins over an input of its name."""
        results = self.context.get("results")
        steps: Mapping[str, Any] = results if isinstance(results, Mapping) else {}
        workload = self.context.get("workload")
        return Scope(
            inputs={key: item for key, item in self.args.items() if key not in extra},
            steps=lambda name: StepResult(steps[name]) if name in steps else None,
            words={**self.words, **extra},
            workload=lambda: workload if isinstance(workload, Mapping) else {},
            is_step=steps.keys(),
            moment=self.moment,
        )


def evaluated(template: Template, scope: Scope) -> Any:
    """Evaluate one template; raises ToolFault."""
    try:
        return template.evaluate(scope)
    except TemplateError as fault:
        raise refused(fault) from None


def refused(fault: TemplateError) -> ToolFault:
    """Tell of a template that failed; of secrets, where they come from."""
    remedy = ""
    if any(word in fault.template for word in SECRET_WORDS):
        remedy = " (secrets are environment variables of the worker: NOETL_SECRET_<NAME>, NOETL_CREDENTIAL_<NAME>)"
    return ToolFault(f"{fault}{remedy}", kind="template", retryable=False, template=fault.template, at=fault.at)


def finisher_of(
    action: Mapping[str, Any], context: Mapping[str, Any], job: Mapping[str, Any], environment: Mapping[str, str]
) -> Finisher:
    """Prepare the finisher of one job; `job` is what templates read as that word (`job.uuid`, `job.attempt`, …)."""
    args = action.get("args")
    unfinished = action.get("unfinished")
    words: dict[str, Any] = {
        "env": visible_environment(environment),
        "job": dict(job),
        "secret": Lookup(secret, environment),
        "secrets": Lookup(secret, environment),
        "keychain": Lookup(credential, environment),
        "execution_id": job.get("execution_id"),
    }
    return Finisher(
        args=args if isinstance(args, Mapping) else {},
        context=context,
        words=words,
        unfinished=frozenset(tuple(path) for path in unfinished) if isinstance(unfinished, list) else None,
    )


def place(path: Sequence[str | int]) -> str:
    """Write a path as `headers.Authorization` or `command[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text

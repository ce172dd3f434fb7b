"""Runs one job from its row in the queue to its outcome; whatever goes wrong is an outcome too."""

from __future__ import annotations

import asyncio
import json
import math
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from noetl_broker.broker.lengths import brief
from noetl_broker.playbook.reads import word_of_inputs
from noetl_broker.playbook.vocabulary import OWN_KEYS
from noetl_broker.store.codec import load_json, load_plainly
from noetl_broker.store.jobs import LeasedJob
from noetl_broker.template import StepResult, unwrap
from noetl_broker.template.output import size_of
from noetl_broker.worker.faults import TRACEBACK_CHARACTERS, Failure, ToolFault, failure_of
from noetl_broker.worker.finish import Finisher, Left, Path, finisher_of, marked
from noetl_broker.worker.iterate import input_words, iterate, iterates, iteration_of
from noetl_broker.worker.logger import Log
from noetl_broker.worker.redaction import Redactor
from noetl_broker.worker.save import KEYS, save
from noetl_broker.worker.tools.http import run_http
from noetl_broker.worker.tools.idle import run_noop, run_sleep
from noetl_broker.worker.tools.postgres import run_postgres
from noetl_broker.worker.tools.python import run_python
from noetl_broker.worker.tools.secrets import run_secrets
from noetl_broker.worker.tools.task import RESULT_BYTES, Lent, Task, Tool, decoded, seconds

FAILED_CHARACTERS = 524_288  # about, of the errors of failed items that stand in the result of an iteration
ENCODED = ("command_b64", "commands_b64", "sql_b64")

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        "python": run_python,
        "http": run_http,
        "postgres": run_postgres,
        "secrets": run_secrets,
        "noop": run_noop,
        "sleep": run_sleep,
    }
)
# Done here, around the tools: a save is nothing but its `save`, an iterator repeats another tool.
AROUND = frozenset({"save", "iterator"})

log = Log(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """A job that went well; `result` is JSON text of at most RESULT_BYTES."""

    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job under way: what its tools borrow, and what finishes its templates.

    `under` is the action whose inputs lie under those of the task that is repeated.
    """

    job: LeasedJob
    lent: Lent
    finisher: Finisher
    context: Mapping[str, Any]
    under: Mapping[str, Any] | None = None

    def with_inputs(self, action: Mapping[str, Any], path: Path, words: Mapping[str, Any]) -> Run:
        """Give the run with the inputs of a task finished: once, for its fields and for its `save`."""
        word = word_of_inputs(action)
        if self.under is None:
            return replace(self, finisher=self.finisher.with_inputs(action.get(word), (*path, word), words))
        finisher = replace(self, under=None).with_inputs(self.under, (), {}).finisher
        return replace(self, finisher=finisher.with_level(action[word], (*path, word), words))

    def finished_inputs(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """Give the inputs as they were finished, under each word under which the action has the same ones."""
        word, args = word_of_inputs(action), self.finisher.args
        given = action.get(word)
        if not isinstance(given, Mapping):
            return {}
        said = {word: args}
        for alias in input_words(action, str(action.get("type"))):
            values = action[alias]
            if isinstance(values, Mapping) and all(key in given and given[key] == values[key] for key in values):
                said.setdefault(alias, {key: args[key] for key in values})
        return said

    async def item(self, action: Mapping[str, Any], path: Path, words: Mapping[str, Any]) -> Any:
        """Run the task of one item, whose words these are; a result that cannot be stored is the item's fault."""
        run = replace(self, finisher=self.finisher.of_item(words["_loop"]["index"]))
        result = await run.step(action, path, words)
        stored(result)
        return result

    async def step(self, action: Mapping[str, Any], path: Path, words: Mapping[str, Any]) -> Any:
        """Run a task once, with its `save`; `words` are those of an iteration."""
        kind, run = action.get("type"), self.with_inputs(action, path, words)
        if kind == "save":
            spec = next((action[key] for key in KEYS if action.get(key) is not None), action)
            own = {key: value for key, value in action.items() if key not in ("type", "name")}
            own |= run.finished_inputs(action) if run.finisher.marks else {}  # elsewhere they may look like templates
            return await run.save(action, own if spec is action else spec, path, words)
        tools = TOOLS if self.lent.tools is None else self.lent.tools
        tool = tools.get(str(kind))
        if tool is None:
            raise unknown_type(kind, tools)
        saving = {key: action[key] for key in KEYS if action.get(key) is not None}
        task = run.task({key: value for key, value in action.items() if key not in saving}, path, words)
        try:
            result = await tool(task)
        finally:
            for stream, text in task.outputs.items():
                log.info("job_output", queue_id=self.job.queue_id, step=task.name, stream=stream, text=text)
        data = StepResult(unwrap(kept(result))) if saving else None
        for key, spec in saving.items():
            await run.save(action, spec, (*path, key), {**words, "result": data, "this": data})
        return result

    async def save(self, action: Mapping[str, Any], spec: Any, path: Path, words: Mapping[str, Any]) -> Any:
        """Do what a `save` asks; its templates may name the result of the task."""

        def finish(value: Any, more: Mapping[str, Any]) -> Any:
            return self.finisher.finish(value, path, extra={**words, **more})

        bare = self.task({key: action[key] for key in ("name", "type") if key in action}, path, words)
        return await save(bare, spec, finish, TOOLS)

    def task(self, action: Mapping[str, Any], path: Path, words: Mapping[str, Any]) -> Task:
        """Finish the templates of an action, those under base64 too, and give it as a tool takes it."""
        plain = {key: value for key, value in action.items() if key in ("code", "code_b64", "unfinished")}
        plain |= self.finished_inputs(action)
        finished = self.finisher.finish(
            {key: with_texts(key, value) for key, value in action.items() if key not in plain}, path, extra=words
        )
        texts = {key.removesuffix("_b64"): finished.pop(key) for key in ENCODED if key in finished}
        return Task(
            name=str(action.get("name") or self.job.node_name),
            type=str(action.get("type")),
            action={**plain, **texts, **finished},
            args=plain.get(word_of_inputs(action), {}),
            context={
                **self.context,
                **{key: value for key, value in words.items() if not isinstance(value, StepResult)},
            },
            lent=self.lent,
            job=self.job,
        )


def types_with(tools: Collection[str]) -> frozenset[str]:
    """Give the types that a worker with these tools can do, in all."""
    return AROUND.union(tools)


def with_texts(key: str, value: Any) -> Any:
    """Undo the base64 of a command, so that templates in it can be finished."""
    if key not in ENCODED:
        return value
    return [_decoded(item, key) for item in value] if isinstance(value, list) else _decoded(value, key)


def _decoded(text: Any, key: str) -> str:
    return Left(decoded(text, key)) if isinstance(text, Left) else decoded(text, key)


def unknown_type(kind: Any, tools: Collection[str]) -> ToolFault:
    """Tell that this worker cannot do a job, and what would."""
    return ToolFault(
        f"this worker has no tool {kind!r} (it has {', '.join(sorted(types_with(tools)))}); "
        "run a worker that has it, with --types for each, or change the step's type",
        kind="unknown_type",
        retryable=False,
    )


async def execute(job: LeasedJob, lent: Lent, *, time_limit_seconds: float) -> Success | Failure:
    """Run a job and give its outcome, an error without any secret in it; only cancelling it raises.

    The limit is the step's `timeout` where the job has one, else `time_limit_seconds`.
    """
    try:
        action = marked(_mapping(job.action, "action"))
        context = _mapping(job.context or "{}", "context")
        limit = job.timeout_seconds or _own_limit(action) or time_limit_seconds
        told = {"id": job.queue_id, "uuid": str(job.execution_id), "execution_id": job.execution_id}
        told |= {"step": job.node_name, "node_id": job.node_id, "attempt": job.attempt}
        finisher = finisher_of(action, context, told, lent.environment, lent.redactor.learn)
        run = Run(job=job, lent=lent, finisher=finisher, context=context)
        try:
            async with asyncio.timeout(limit):
                result = await _run(run, action)
        except TimeoutError:
            raise ToolFault(f"step '{job.node_name}' ran longer than {limit:g} s", kind="timeout") from None
        return Success(result=stored(result))
    except ToolFault as fault:
        return _failed(fault, lent.redactor)
    except Exception as error:  # noqa: BLE001 - our own bug: the job must not take the worker down with it
        # As text: a console that shows the locals of each frame would show secrets.
        trace = lent.redactor.clean(traceback.format_exc())
        log.error("job_crashed", queue_id=job.queue_id, step=job.node_name, traceback=trace)  # noqa: TRY400
        message = f"the worker failed on step '{job.node_name}': {type(error).__name__}: {error}"
        return _failed(ToolFault(message, kind="worker_bug"), lent.redactor)


def _own_limit(action: Mapping[str, Any]) -> float | None:
    """Read a `timeout` that limits all of the task: the one of an http request is its tool's to read."""
    said = action.get("timeout")
    if said is None or "timeout" in OWN_KEYS.get(str(action.get("type")), ()):
        return None
    return seconds(said, "timeout")


def _failed(fault: ToolFault, redactor: Redactor) -> Failure:
    """Take the secrets out of a fault, before its texts are cut."""
    details = dict(fault.details)
    if isinstance(trace := details.get("traceback"), str):
        details["traceback"] = redactor.end_of(trace, TRACEBACK_CHARACTERS)
    message, details = redactor.clean(fault.message, cut=True), redactor.clean(details, cut=True)
    told = ToolFault(message, kind=fault.kind, retryable=fault.retryable, **details)
    return failure_of(told)


async def _run(run: Run, action: Mapping[str, Any]) -> Any:
    if not iterates(action):
        return await run.step(action, (), {})
    nested = action.get("type") == "iterator" and not isinstance(action.get("loop"), Mapping)
    iteration = iteration_of(action, run.finisher)
    results, faults = await iterate(iteration, replace(run, under=action).item if nested else run.item)
    failed = _told(faults, run.lent.redactor)
    if action.get("type") == "iterator":
        # A loop's save belongs to each item; an iterator's own comes once, after all.
        run = run.with_inputs(action, (), {})
        saving = [key for key in KEYS if action.get(key) is not None]
        data = StepResult(kept(results), failed=failed) if saving else None
        for key in saving:
            await run.save(action, action[key], (key,), {"result": data, "this": data})
    return {"data": results, "meta": {"failed": failed}} if failed else results


def _told(faults: Mapping[int, ToolFault], redactor: Redactor) -> list[dict[str, Any]]:
    """List the failed items by index, {index, error}, as the broker lists its own; without errors past a size."""
    room = FAILED_CHARACTERS
    told = []
    for index, fault in sorted(faults.items()):
        error: dict[str, Any] | None = None
        if room > 0:
            error = _failed(fault, redactor).error
            if unstorable(error):
                error = {key: error[key] for key in ("message", "type")}
            error = brief(error)
            room -= size_of(error)
        told.append({"index": index, "error": error})
    return told


def _mapping(text: str, what: str) -> dict[str, Any]:
    try:
        value = load_plainly(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ToolFault(f"the {what} of the job is not a JSON mapping", kind="bad_job", retryable=False)
    return value


def stored(result: Any) -> str:
    """Write a result as the JSON text to store; raises ToolFault when jsonb cannot hold it or it is too large."""
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        place = unstorable(result) or "the result"
        raise ToolFault(f"{place} is no JSON: {error}", kind="bad_result", retryable=False) from None
    if "\\u0000" in text and (where := unstorable(result)):
        raise ToolFault(
            f"{where} holds a NUL character, which Postgres cannot store", kind="bad_result", retryable=False
        )
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        where = unstorable(result)
        raise ToolFault(
            f"{where} holds half of a surrogate pair, which is no text", kind="bad_result", retryable=False
        ) from None
    if size > RESULT_BYTES:
        raise ToolFault(
            f"the result has {size} bytes, more than the limit of {RESULT_BYTES}; store it and return where it is",
            kind="max_result_bytes",
            retryable=False,
        )
    return text


def kept(result: Any) -> Any:
    """Give a result as it will come back from the database; raises ToolFault where it cannot be stored."""
    return load_json(stored(result))


def unstorable(result: Any) -> str | None:
    """Find the first value that JSON or jsonb cannot hold; None if there is none, or it is too deep to be found."""
    try:
        return _unstorable(result, "result")
    except RecursionError:
        return None


def _unstorable(value: Any, where: str) -> str | None:
    if isinstance(value, str):
        return where if any(char == "\x00" or "\ud800" <= char <= "\udfff" for char in value) else None
    if isinstance(value, dict):
        places = ((f"{where}[{key!r}]", key, item) for key, item in value.items())
        found = (_unstorable(key, at) or _unstorable(item, at) for at, key, item in places)
    elif isinstance(value, (list, tuple)):
        found = (_unstorable(item, f"{where}[{place}]") for place, item in enumerate(value))
    else:
        fits = value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        return None if fits else where
    return next(filter(None, found), None)

"""Runs one job: from its row in the queue to its outcome. Every fault is an outcome too."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from noetl_broker.broker.model.limits import ITEM_ERROR, shorten_error
from noetl_broker.playbook.step_types import OWN_KEYS
from noetl_broker.playbook.template_reads import word_of_inputs
from noetl_broker.store.json_codec import load_plainly
from noetl_broker.store.worker.jobs import LeasedJob
from noetl_broker.template import StepResult, unwrap
from noetl_broker.template.output import size_of
from noetl_broker.worker.deferred import Deferred, Path, Renderer, mark_deferred, renderer_of
from noetl_broker.worker.errors import TRACEBACK_CHARACTERS, Failure, FinalFault, ToolFault, failure_of
from noetl_broker.worker.iterate import input_words, iterate, iterates, iteration_of
from noetl_broker.worker.job_log import JobLog
from noetl_broker.worker.job_progress import JobProgress
from noetl_broker.worker.logger import Log, job_fields
from noetl_broker.worker.redaction import Redactor
from noetl_broker.worker.results import encode_result, find_unstorable, read_back
from noetl_broker.worker.save import KEYS, save
from noetl_broker.worker.sql.job_transaction import JobTransaction
from noetl_broker.worker.tools import TOOLS
from noetl_broker.worker.tools.task import Task, WorkerResources, decoded, seconds

MAX_ERROR_CHARS = 524_288  # about, of the errors of all failed items in a result
ENCODED = ("command_b64", "commands_b64", "sql_b64")

# Step types that are run here, around the tools.
AROUND = frozenset({"save", "iterator"})

log = Log(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """A successful job; `result` is JSON text of at most RESULT_BYTES."""

    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One running job."""

    job: LeasedJob
    shared: WorkerResources
    renderer: Renderer
    context: Mapping[str, Any]
    log: JobLog
    progress: JobProgress
    transaction: JobTransaction | None = None

    def with_inputs(self, action: Mapping[str, Any], path: Path, words: Mapping[str, Any]) -> Run:
        """The run with the rendered inputs of a task. They are rendered once, for its fields and its `save`."""
        word = word_of_inputs(action)
        return replace(self, renderer=self.renderer.with_inputs(action.get(word), (*path, word), words))

    def rendered_inputs(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """The rendered inputs, by each key under which the action has the same inputs."""
        word, args = word_of_inputs(action), self.renderer.args
        given = action.get(word)
        if not isinstance(given, Mapping):
            return {}
        found = {word: args}
        for alias in input_words(action, str(action.get("type"))):
            values = action[alias]
            if isinstance(values, Mapping) and all(key in given and given[key] == values[key] for key in values):
                found.setdefault(alias, {key: args[key] for key in values})
        return found

    async def item(self, action: Mapping[str, Any], path: Path, words: Mapping[str, Any]) -> Any:
        """Run the task of one item; `words` are the item's names. A result that cannot be stored is a fault of it."""
        run = replace(self, renderer=self.renderer.of_item(words["_loop"]["index"]))
        try:
            result = await run.step(action, path, words)
            encode_result(result)
        except ToolFault as fault:
            self.progress.end_item(fault.kind)
            raise
        self.progress.end_item()
        return result

    async def step(self, action: Mapping[str, Any], path: Path, words: Mapping[str, Any]) -> Any:
        """Run a task once, with its `save`; `words` are the names of an item."""
        kind, run = action.get("type"), self.with_inputs(action, path, words)
        if kind == "save":
            spec = next((action[key] for key in KEYS if action.get(key) is not None), action)
            own = {key: value for key, value in action.items() if key not in ("type", "name")}
            if run.renderer.marks:  # otherwise a rendered input may look like a template
                own |= run.rendered_inputs(action)
            return await run.save(action, own if spec is action else spec, path, words)
        tools = TOOLS if self.shared.tools is None else self.shared.tools
        tool = tools.get(str(kind))
        if tool is None:
            raise unknown_type(kind, tools)
        saving = {key: action[key] for key in KEYS if action.get(key) is not None}
        task = run.task({key: value for key, value in action.items() if key not in saving}, path, words)
        result = await tool(task)
        data = StepResult(unwrap(read_back(result))) if saving else None
        for key, spec in saving.items():
            await run.save(action, spec, (*path, key), {**words, "result": data, "this": data})
        return result

    async def save(self, action: Mapping[str, Any], spec: Any, path: Path, words: Mapping[str, Any]) -> Any:
        """Run a `save`; its templates may read the result of the task."""

        def finish(value: Any, more: Mapping[str, Any]) -> Any:
            return self.renderer.render(value, path, extra={**words, **more})

        bare = self.task({key: action[key] for key in ("name", "type") if key in action}, path, words)
        return await save(bare, spec, finish, TOOLS)

    def task(self, action: Mapping[str, Any], path: Path, words: Mapping[str, Any]) -> Task:
        """Render the templates of an action, also templates in base64, and make the task for a tool."""
        plain = {key: value for key, value in action.items() if key in ("code", "code_b64", "unfinished")}
        plain |= self.rendered_inputs(action)
        rendered = self.renderer.render(
            {key: decoded_texts(key, value) for key, value in action.items() if key not in plain}, path, extra=words
        )
        texts = {key.removesuffix("_b64"): rendered.pop(key) for key in ENCODED if key in rendered}
        return Task(
            name=str(action.get("name") or self.job.node_name),
            type=str(action.get("type")),
            action={**plain, **texts, **rendered},
            args=plain.get(word_of_inputs(action), {}),
            context={
                **self.context,
                **{key: value for key, value in words.items() if not isinstance(value, StepResult)},
            },
            shared=self.shared,
            job=self.job,
            log=self.log,
            progress=self.progress,
            transaction=self.transaction,
        )


def types_with(tools: Collection[str]) -> frozenset[str]:
    """All step types that a worker with these tools can run."""
    return AROUND.union(tools)


def decoded_texts(key: str, value: Any) -> Any:
    """Decode the base64 of a command, so that its templates can be rendered."""
    if key not in ENCODED:
        return value
    return [_decoded(item, key) for item in value] if isinstance(value, list) else _decoded(value, key)


def _decoded(text: Any, key: str) -> str:
    return Deferred(decoded(text, key)) if isinstance(text, Deferred) else decoded(text, key)


def unknown_type(kind: Any, tools: Collection[str]) -> ToolFault:
    """The fault of a job whose type this worker does not have."""
    return FinalFault(
        f"this worker has no tool {kind!r} (it has {', '.join(sorted(types_with(tools)))}); "
        "run a worker that has it, with --types for each, or change the step's type",
        kind="unknown_type",
    )


async def execute(
    job: LeasedJob,
    shared: WorkerResources,
    job_log: JobLog | None = None,
    progress: JobProgress | None = None,
    *,
    time_limit_seconds: float,
    transaction: JobTransaction | None = None,
) -> Success | Failure:
    """Run a job and return its outcome, without secrets in an error. Raises only when it is cancelled.

    Its output goes to `job_log`, and its progress to `progress`; None: nobody reads it. `transaction` is for what
    commits with its completion; the caller ends it.

    The time limit is the step's `timeout`, or `time_limit_seconds` if it has none.
    """
    try:
        action = mark_deferred(_mapping(job.action, "action"))
        context = _mapping(job.context or "{}", "context")
        limit = job.timeout_seconds or _own_limit(action) or time_limit_seconds
        words = {"id": job.queue_id, "uuid": str(job.execution_id), "execution_id": job.execution_id}
        words |= {"step": job.node_name, "node_id": job.node_id, "attempt": job.attempt}
        renderer = renderer_of(action, context, words, shared.environment, shared.redactor.learn)
        run = Run(
            job=job,
            shared=shared,
            renderer=renderer,
            context=context,
            log=job_log or JobLog(job.lease, shared.redactor),
            progress=progress or JobProgress(),
            transaction=transaction,
        )
        try:
            async with asyncio.timeout(limit):
                result = await _run(run, action)
        except TimeoutError:
            raise ToolFault(f"step '{job.node_name}' ran longer than {limit:g} s", kind="timeout") from None
        return Success(result=encode_result(result))
    except ToolFault as fault:
        return failure_without_secrets(fault, shared.redactor)
    except Exception as error:  # noqa: BLE001 - a bug: the job must not end the worker
        # As text: a console logger may show local variables, and so secrets.
        trace = shared.redactor.clean(traceback.format_exc())
        log.error("job_crashed", **job_fields(job), traceback=trace)  # noqa: TRY400
        message = f"the worker failed on step '{job.node_name}': {type(error).__name__}: {error}"
        return failure_without_secrets(ToolFault(message, kind="worker_bug"), shared.redactor)


def _own_limit(action: Mapping[str, Any]) -> float | None:
    """The `timeout` of the task in seconds. The http tool reads the `timeout` of a request itself."""
    timeout = action.get("timeout")
    if timeout is None or "timeout" in OWN_KEYS.get(str(action.get("type")), ()):
        return None
    return seconds(timeout, "timeout")


def failure_without_secrets(fault: ToolFault, redactor: Redactor) -> Failure:
    """The failure for a fault. Secrets are removed before texts are cut: half a secret is not recognized."""
    details = dict(fault.details)
    if isinstance(trace := details.get("traceback"), str):
        details["traceback"] = redactor.end_of(trace, TRACEBACK_CHARACTERS)
    message, details = redactor.clean(fault.message, cut=True), redactor.clean(details, cut=True)
    return failure_of(ToolFault(message, kind=fault.kind, retryable=fault.retryable, **details))


async def _run(run: Run, action: Mapping[str, Any]) -> Any:
    if not iterates(action):
        return await run.step(action, (), {})
    iteration = iteration_of(action, run.renderer)
    run.progress.begin_items(len(iteration.items))
    results, faults = await iterate(iteration, run.item)
    failed = failed_items(faults, run.shared.redactor)
    if action.get("type") == "iterator":
        # The `save` of a loop runs for each item; the `save` of an iterator runs once, after all items.
        run = run.with_inputs(action, (), {})
        saving = [key for key in KEYS if action.get(key) is not None]
        data = StepResult(read_back(results), failed=failed) if saving else None
        for key in saving:
            await run.save(action, action[key], (key,), {"result": data, "this": data})
    return {"data": results, "meta": {"failed": failed}} if failed else results


def failed_items(faults: Mapping[int, ToolFault], redactor: Redactor) -> list[dict[str, Any]]:
    """The failed items, {index, error}, as the broker lists its own. Beyond MAX_ERROR_CHARS the errors are null."""
    chars_left = MAX_ERROR_CHARS
    items = []
    for index, fault in sorted(faults.items()):
        error: dict[str, Any] | None = None
        if chars_left > 0:
            error = failure_without_secrets(fault, redactor).error
            if find_unstorable(error):
                error = {key: error[key] for key in ("message", "type")}
            error = shorten_error(error, ITEM_ERROR)
            chars_left -= size_of(error)
        items.append({"index": index, "error": error})
    return items


def _mapping(text: str, what: str) -> dict[str, Any]:
    try:
        value = load_plainly(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise FinalFault(f"the {what} of the job is not a JSON mapping", kind="bad_job")
    return value

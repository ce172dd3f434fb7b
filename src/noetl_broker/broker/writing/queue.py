"""Jobs: the document of a job, and changes of its status."""

from __future__ import annotations

import base64
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from noetl_broker.broker.draft.beside_noetl import add_noetl_inputs
from noetl_broker.broker.model.decision import JobRow, JobThrottle
from noetl_broker.broker.model.effects import JobChanged
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.writing.errors import wrong_value
from noetl_broker.playbook.fields import union_of_results, with_plain
from noetl_broker.playbook.keys import POOL_FORMS, pool_name
from noetl_broker.playbook.keywords import ENCODED_KEYS
from noetl_broker.playbook.signals import KEY_FORMS, signal_key
from noetl_broker.playbook.template_reads import at_path, word_of_inputs
from noetl_broker.template import OLD_WORKLOAD_WORD, WORKLOAD_WORDS, NotLoaded, StepResult, count_output, read_by_text
from noetl_broker.template.durations import TIMEOUT_FORMS, parse_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import RenderedInputs, ResultRef
    from noetl_broker.playbook.model import Inputs, Step, Throttle
    from noetl_broker.template import Path, Tree
    from noetl_broker.template.scope import Scope

DEFAULT_PRIORITY = 5
NO_NAMES: frozenset[str] = frozenset()
RESULT_WORDS = frozenset({"result", "this"})
# Keys of a job's context that the worker needs for deferred strings. An input of such a name is only in `args`, and
# cannot replace them.
CONTEXT_WORDS = frozenset({"results", "result", "outcomes", "words", "unfinished"})
WORKLOAD_NAMES = frozenset({*WORKLOAD_WORDS, OLD_WORKLOAD_WORD})

COMPLETED = {"status": "COMPLETED", "error": None}
SHORT_CHARS = 4096  # of program text whose encoding is cached


def enqueue_job(
    draft: Draft,
    step: Step,
    visit: int,
    ordinal: int,
    given: RenderedInputs,
    result: ResultRef,
    item: tuple[int | None, Mapping[str, JSON]] | None = None,
) -> None:
    """Queue a job for the visit; `ordinal` is the position of its step_started. Raises TemplateError.

    `result` is the result which the visit was given. `item` is the index of an iterator's item and
    the names that its templates have.
    """
    inputs = given.values
    words = item[1] if item else {}
    fields = step.fields.fixed  # a scope is expensive: without templates there is none
    if not step.fields.constant:
        fields = draft.templates.render(step.fields, draft.templates.scope(inputs, result, words))
    deferred = step.fields.deferred
    action: dict[str, JSON] = with_plain(fields, step.plain) if step.plain else dict(fields)
    action |= {"name": step.name, "type": step.type}
    timeout = None if step.timeout is None else timeout_of(draft, step, inputs, result, words)
    if timeout is not None and isinstance(step.plain.get("timeout"), str):
        action["timeout"] = timeout  # a worker knows seconds
    if inputs:
        word, aliases = word_of_inputs(action), _keep_aliases(action, step.inputs, given)
        action[word] = inputs
        if aliases or given.deferred:
            deferred += tuple(path for path in aliases if path[0] != word)
            deferred += tuple((word, *path) for path in given.deferred)
    reads_failed = bool(deferred) and any("failed" in str(at_path(action, path)) for path in deferred)
    if draft.known.rules.beside_noetl:
        deferred = add_noetl_inputs(action, given, deferred)
    action["unfinished"] = [list(path) for path in _encode_texts(action, deferred)]
    shared = _worker_context(draft, step, given, result, reads_failed=reads_failed) if deferred else inputs
    context: dict[str, JSON] = {**shared, "step_name": step.name, "visit": visit}
    if deferred and item is not None:
        context |= {"words": words, "workload": draft.templates.workload()}
    scope = partial(draft.templates.scope, inputs, result, words)
    draft.writes.jobs.append(
        JobRow(
            step.name,
            visit,
            step.type,
            ordinal,
            action,
            context,
            priority_of(draft, step),
            _attempts(draft, step),
            timeout,
            item_index=item[0] if item else None,
            start_timeout=None
            if step.start_timeout is None
            else time_limit_of(draft, "start_timeout", step.start_timeout, scope()),
            throttle=None if step.throttle is None else _throttle_of(draft, step.throttle, scope()),
            pool=_put_pool(draft, step, action, scope),
        )
    )


def timeout_of(
    draft: Draft, step: Step, inputs: Mapping[str, JSON], result: ResultRef, words: Mapping[str, JSON] | None = None
) -> float | None:
    """The time limit of a job in seconds. Raises TemplateError if its template fails or gives no duration."""
    tree = step.timeout
    if tree is None or isinstance(tree, float):
        return tree
    return time_limit_of(draft, "timeout", tree, draft.templates.scope(inputs, result, words or {}))


def time_limit_of(draft: Draft, key: str, tree: float | Tree, scope: Scope) -> float:
    """The seconds of a time limit. Raises TemplateError if its template fails or gives no duration."""
    if isinstance(tree, float):
        return tree
    value = draft.templates.render(tree, scope)
    try:
        return parse_timeout(value)
    except ValueError:
        raise wrong_value(tree, f"`{key}` must be {TIMEOUT_FORMS}", value) from None


def _put_pool(draft: Draft, step: Step, action: dict[str, JSON], scope: Callable[[], Scope]) -> str | None:
    """The pool of a job, which the action gets too. Raises TemplateError if it fails or is no name of a pool."""
    pool = draft.playbook.pool if step.pool is None else step.pool
    if pool is None:
        return None
    if isinstance(pool, str):
        action["pool"] = pool
        return pool
    value = draft.templates.render(pool, scope())
    try:
        action["pool"] = pool_name(value)
    except ValueError:
        raise wrong_value(pool, f"`pool` must be a name: {POOL_FORMS}", value) from None
    return pool_name(value)


def _throttle_of(draft: Draft, throttle: Throttle, scope: Scope) -> JobThrottle:
    """The throttle that a job counts for. Raises TemplateError if its key fails or is neither text nor number."""
    key = ""
    if throttle.key is not None:
        value = draft.templates.render(throttle.key, scope)
        try:
            key = signal_key(value)
        except ValueError:
            raise wrong_value(throttle.key, f"the `key` of a `throttle` must be {KEY_FORMS}", value) from None
    return JobThrottle(throttle.name, key, throttle.concurrency, throttle.rate, throttle.burst)


def delegate_job(
    draft: Draft,
    step: Step,
    visit: int,
    ordinal: int,
    action: dict[str, JSON],
    timeout: float | None,
    index: int | None = None,
) -> None:
    """Add a job that the broker runs itself: it keeps what the broker needs in later turns.

    `index` is the index of an iterator's item.
    """
    named = {"name": step.name, "type": step.type, **action}
    context = {"step_name": step.name, "visit": visit}
    priority = priority_of(draft, step)
    draft.writes.jobs.append(
        JobRow(
            step.name,
            visit,
            step.type,
            ordinal,
            named,
            context,
            priority,
            _attempts(draft, step),
            timeout,
            delegated=True,
            item_index=index,
        )
    )


def end_job(draft: Draft, step: Step, visit: int, status: str, index: int | None = None) -> None:
    """End the job of a visit: `done` or `dead`; `index` is the index of an iterator's item."""
    draft.add(JobChanged(step.name, visit, status, item_index=index))


def _attempts(draft: Draft, step: Step) -> int:
    return step.retry.max_attempts if step.retry else draft.known.rules.default_max_attempts


def priority_of(draft: Draft, step: Step) -> int:
    """The priority of the jobs of a step: its own, else that of the playbook, else that of the start."""
    for priority in (step.priority, draft.playbook.priority, draft.state.priority):
        if priority is not None:
            return priority
    return DEFAULT_PRIORITY


def _worker_context(
    draft: Draft, step: Step, given: RenderedInputs, result: ResultRef, *, reads_failed: bool
) -> dict[str, JSON]:
    """The context of the job: the inputs and everything that its deferred strings read.

    `results` are results of steps, `result` is given to the visit. `outcomes` name steps that did not simply complete.
    `unfinished` lists the deferred strings of the workload. `reads_failed`: a deferred string may read failed items.
    """
    names, results = step.fields.worker_names, step.fields.worker_results
    for path in given.deferred:
        more, of_results = read_by_text(at_path(given.values, path))
        names |= more
        results = union_of_results((results, of_results))
    context: dict[str, JSON] = {}
    ends: dict[str, StepResult] = {}
    if result is not None and not names.isdisjoint(RESULT_WORDS):
        ends["result"] = draft.templates.turn_result(result)
        context["result"] = ends["result"].data
    named = names | (results if results is not None else frozenset(draft.playbook.steps))
    found = _latest_results(draft, named)
    if found:
        context["results"] = {name: result.data for name, result in found.items()}
    ended = {name: _outcome(end, reads_failed=reads_failed) for name, end in {**ends, **found}.items()}
    outcomes = {name: outcome for name, outcome in ended.items() if outcome != COMPLETED}
    if outcomes:
        context["outcomes"] = outcomes
    if any(name in WORKLOAD_NAMES or (name,) == path[:1] for name in names for path in draft.playbook.deferred):
        context["unfinished"] = [
            ["workload", *path]
            for path, text in draft.playbook.deferred.items()
            if at_path(draft.templates.workload(), path) == text  # the payload has not replaced it
        ]
    count_output(context, draft.allowance, step.name)
    return {key: value for key, value in given.values.items() if key not in CONTEXT_WORDS} | context


def _outcome(result: StepResult, *, reads_failed: bool) -> dict[str, JSON]:
    outcome: dict[str, JSON] = {"status": result.status, "error": result.error}
    return {**outcome, "failed": result.failed_items} if reads_failed and result.failed is not None else outcome


def _latest_results(draft: Draft, named: frozenset[str]) -> dict[str, StepResult]:
    """The results of the named steps that have one; NotLoaded names all that are missing."""
    found: dict[str, StepResult] = {}
    try:
        for name in sorted(named):
            if name in draft.playbook.steps:
                result = draft.templates.step_result(name)
                if result is not None:
                    found[name] = result
    except NotLoaded as missing:
        raise NotLoaded(missing.wants | draft.templates.wants(named, NO_NAMES)) from None
    return found


def _keep_aliases(action: dict[str, JSON], inputs: Inputs, given: RenderedInputs) -> tuple[Path, ...]:
    """The author's words for the inputs, kept beside `args`; returns the paths of the deferred strings in them."""
    deferred: tuple[Path, ...] = () if inputs.base is None else _keep_aliases(action, inputs.base, given)
    for alias, keys in inputs.aliases.items():
        if alias == "args":
            continue
        kept = [key for key in (given.values if keys is None else keys) if key in given.values]
        action[alias] = {key: given.values[key] for key in kept}
        deferred = tuple(path for path in deferred if path[0] != alias)
        deferred += tuple((alias, *path) for path in given.deferred if path[0] in kept)
    return deferred


def _encode_texts(action: dict[str, JSON], deferred: tuple[Path, ...]) -> tuple[Path, ...]:
    """Move program text to its base64 key; returns the changed paths of deferred strings. Code is no template."""
    for key, encoded in ENCODED_KEYS.items():
        text = action.pop(key, None) if key in action else None
        if text is not None:
            action[encoded] = _encode(text)
            if deferred:
                deferred = tuple(
                    (encoded, *path[1:]) if path[0] == key else path for path in deferred if path[0] != encoded
                )
    return deferred


def _encode(value: JSON) -> JSON:
    """Base64 of a string, or of each string in a list."""
    if isinstance(value, str):
        return _encode_short(value) if len(value) <= SHORT_CHARS else _encode_text(value)
    if isinstance(value, list):
        return [_encode(item) for item in value]
    return value


def _encode_text(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


# Each job of a step has the same text.
_encode_short = lru_cache(maxsize=256)(_encode_text)

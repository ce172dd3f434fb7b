"""Jobs for workers: what a job says, when it is tried again, when it is taken back."""

from __future__ import annotations

import base64
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

from noetl_broker.broker.model import JSON, Job, JobChange
from noetl_broker.broker.noetl_jobs import tell_noetl
from noetl_broker.broker.unfinished import left_in, remaining_defaults, unfinished_of
from noetl_broker.playbook.fields import union_of_results, with_plain
from noetl_broker.playbook.reads import ARGS, word_of_inputs
from noetl_broker.playbook.vocabulary import ENCODED_KEYS
from noetl_broker.template import OLD_WORKLOAD_WORD, WORKLOAD_WORDS, NotLoaded, StepResult, hand_on, read_by_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.given import Given
    from noetl_broker.playbook.model import Inputs, Retry, Step
    from noetl_broker.template import Path, Template

DEFAULT_PRIORITY = 5
NO_NAMES: frozenset[str] = frozenset()
RESULT_WORDS = frozenset({"result", "this"})
# Of a job with templates left, what finishes them. An input of such a name is in `args` alone: it is data, and does not
# say what is a template, or who a host or a secret is.
TOLD_WORDS = frozenset({"results", "result", "outcomes", "words", "unfinished", "levels"})
WORKLOAD_NAMES = frozenset({*WORKLOAD_WORDS, OLD_WORKLOAD_WORD})

COMPLETED = {"status": "COMPLETED", "error": None}
SHORT_CHARS = 4096  # of program text that is remembered encoded


def enqueue_job(
    draft: Draft,
    step: Step,
    visit: int,
    ordinal: int,
    given: Given,
    result: int | None,
    item: tuple[int, Mapping[str, JSON]] | None = None,
) -> None:
    """One job for the visit; `ordinal` is the place of its step_started. Raises TemplateError where a field fails.

    `result` is the turn that read the result handed on to the visit; `item` is the place of an iterator's item, if it
    is one, and what its templates see of it.
    """
    inputs = given.values
    words = item[1] if item else {}
    unfinished = unfinished_of(draft, given, words)
    fields = step.fields.fixed  # a scope costs more than all the rest where nothing reads it
    if not step.fields.constant:
        fields = draft.render(step.fields, draft.scope(inputs, result, words), unfinished.left if unfinished else None)
    reading = tuple(left_in(unfinished, step.fields))
    left = step.fields.left + tuple(path for path, _ in reading)
    action: dict[str, JSON] = with_plain(fields, step.plain) if step.plain else dict(fields)
    action["name"] = step.name
    action["type"] = step.type
    if inputs:
        word, aliases = word_of_inputs(action), _keep_aliases(action, step.inputs, given)
        action[word] = inputs
        left += tuple(path for path in aliases if path[0] != word) + tuple((word, *path) for path in given.left)
    tells = any("failed" in str(_at(action, path)) for path in left)
    if draft.known.rules.beside_noetl:
        left = tell_noetl(action, given, left)
    action["unfinished"] = [list(path) for path in _encode_texts(action, left)]
    told = _told(draft, step, [template for _, template in reading], given, result, tells=tells) if left else inputs
    context: dict[str, JSON] = {**told, "step_name": step.name, "visit": visit}
    if left and item is not None:
        context |= {"words": words, "workload": draft.workload()}
    draft.jobs.append(
        Job(
            step.name,
            visit,
            step.type,
            ordinal,
            action,
            context,
            _priority(draft, step),
            _attempts(draft, step),
            step.timeout,
            place=item[0] if item else None,
        )
    )


def delegate_job(draft: Draft, step: Step, visit: int, ordinal: int, action: dict[str, JSON]) -> None:
    """A job that no worker is given: the broker runs the step itself, and keeps here what it is about."""
    named = {"name": step.name, "type": step.type, **action}
    context = {"step_name": step.name, "visit": visit}
    priority = _priority(draft, step)
    draft.jobs.append(
        Job(
            step.name,
            visit,
            step.type,
            ordinal,
            named,
            context,
            priority,
            _attempts(draft, step),
            step.timeout,
            delegated=True,
        )
    )


def retry_delay(draft: Draft, retry: Retry, failures: int) -> float:
    """Seconds until the next attempt after `failures` of them (spec section 4): exponential, capped, jittered by half.

    The jitter comes from the turn, not from chance: a replay must decide the same.
    """
    try:
        delay = min(retry.initial_delay * retry.backoff_multiplier ** (failures - 1), retry.max_delay)
    except OverflowError:
        delay = retry.max_delay
    if retry.jitter:
        die = zlib.crc32(f"{draft.turn.execution_id}:{draft.turn.number}".encode()) / 0xFFFFFFFF
        delay = min(delay * (0.5 + die), retry.max_delay)
    return round(delay, 3)


def change_job(draft: Draft, step: Step, visit: int, status: str, delay: float = 0.0, place: int | None = None) -> None:
    """The job of a visit (`place`: of an iterator's item) that already has one: `retry`, `dead`, or `done`."""
    draft.changes.append(JobChange(step.name, visit, status, delay, place))


def _attempts(draft: Draft, step: Step) -> int:
    return step.retry.max_attempts if step.retry else draft.known.rules.default_max_attempts


def _priority(draft: Draft, step: Step) -> int:
    for priority in (step.priority, draft.playbook.priority):
        if priority is not None:
            return priority
    return DEFAULT_PRIORITY


def _told(
    draft: Draft, step: Step, reading: list[Template], given: Given, result: int | None, *, tells: bool
) -> dict[str, JSON]:
    """The inputs, and what the templates left for the worker name beside its own words: it finishes them from these.

    `results` of steps, and the `result` that the visit was handed, with the `outcomes` of those that did not simply
    complete; and which strings of the workload are `unfinished`. Nothing that they do not name. `tells`: one of them
    may read the failed items of an iterator.
    """
    names, results = step.fields.worker_names, step.fields.worker_results
    texts = [read_by_text(_at(given.values, path)) for path in given.left]
    read = NO_NAMES.union(*(more for more, _ in texts))  # by inputs, which do not see all others
    for more, of_results in (*texts, *((template.names, template.results) for template in reading)):
        names |= more
        results = union_of_results((results, of_results))
    context: dict[str, JSON] = {}
    ends: dict[str, StepResult] = {}
    asked = read if given.values.keys() & RESULT_WORDS else names
    if result is not None and not asked.isdisjoint(RESULT_WORDS):
        ends["result"] = draft.turn_result(result)
        context["result"] = ends["result"].data
    named = names | (results if results is not None else draft.playbook.steps.keys())
    found = _latest_results(draft, named)
    if found:
        context["results"] = {name: result.data for name, result in found.items()}
    ended = {name: _outcome(end, tells=tells) for name, end in {**ends, **found}.items()}
    outcomes = {name: outcome for name, outcome in ended.items() if outcome != COMPLETED}
    if outcomes:
        context["outcomes"] = outcomes
    if any(name in WORKLOAD_NAMES or (name,) == path[:1] for name in names for path in draft.playbook.unfinished):
        context["unfinished"] = [["workload", *path] for path in remaining_defaults(draft)]
    if not read.isdisjoint((ARGS, *given.values)):
        context["levels"] = [list(names) for names in given.levels]
    hand_on(context, draft.allowance, step.name)
    return {key: value for key, value in given.values.items() if key not in TOLD_WORDS} | context


def _outcome(result: StepResult, *, tells: bool) -> dict[str, JSON]:
    outcome: dict[str, JSON] = {"status": result.status, "error": result.error}
    return {**outcome, "failed": result.failed_items} if tells and result.failed is not None else outcome


def _latest_results(draft: Draft, named: frozenset[str]) -> dict[str, StepResult]:
    """The results of those of the named steps that have one; what is not loaded is asked for at once."""
    found: dict[str, StepResult] = {}
    try:
        for name in sorted(named):
            if name in draft.playbook.steps:
                result = draft.step_result(name)
                if result is not None:
                    found[name] = result
    except NotLoaded as missing:
        raise NotLoaded(missing.wants | draft.wants(named, NO_NAMES)) from None
    return found


def _at(value: JSON, path: Path) -> JSON:
    for part in path:
        value = value[part]
    return value


def _keep_aliases(action: dict[str, JSON], inputs: Inputs, given: Given) -> tuple[Path, ...]:
    """The author's own words for the inputs, kept beside `args`; gives the paths of what is left in them."""
    left: tuple[Path, ...] = () if inputs.base is None else _keep_aliases(action, inputs.base, given)
    for alias, keys in inputs.aliases.items():
        if alias == "args":
            continue
        kept = [key for key in (given.values if keys is None else keys) if key in given.values]
        action[alias] = {key: given.values[key] for key in kept}
        left = tuple(path for path in left if path[0] != alias)
        left += tuple((alias, *path) for path in given.left if path[0] in kept)
    return left


def _encode_texts(action: dict[str, JSON], left: tuple[Path, ...]) -> tuple[Path, ...]:
    """Put program text under its base64 name; gives the paths with that name. Code is never a template."""
    for key, encoded in ENCODED_KEYS.items():
        text = action.pop(key, None)
        if text is not None:
            action[encoded] = _encode(text)
            left = tuple((encoded, *path[1:]) if path[0] == key else path for path in left if path[0] != encoded)
    return left


def _encode(value: JSON) -> JSON:
    """Base64 of a string; of a list, of each string in it."""
    if isinstance(value, str):
        return _encode_short(value) if len(value) <= SHORT_CHARS else _encode_text(value)
    if isinstance(value, list):
        return [_encode(item) for item in value]
    return value


def _encode_text(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


# The same text again and again: a step's, in each of its jobs.
_encode_short = lru_cache(maxsize=256)(_encode_text)

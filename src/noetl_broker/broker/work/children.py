"""Child executions: a `playbook` step starts another execution and waits for its answer.

A parent and a child only send each other events, so a turn never needs two executions. The step's job goes to no
worker. It keeps the call, so that a failed child can be started again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.flow.on_failure import KEY as ON_FAILURE
from noetl_broker.broker.flow.transitions import process_completed_steps
from noetl_broker.broker.model.decision import ExecutionEnd
from noetl_broker.broker.model.effects import OWN_VERSION, ChildStarted, ItemsCancelled
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import RUNNING
from noetl_broker.broker.undo.rows import note_failure
from noetl_broker.broker.work.retries import retry_or_fail
from noetl_broker.broker.writing.errors import wrong_value
from noetl_broker.broker.writing.queue import delegate_job, timeout_of
from noetl_broker.playbook.keys import LARGEST_VERSION, as_version
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import Arrival, RenderedInputs, ResultRef, Token
    from noetl_broker.playbook.model import ChildCall, Step


def call_child(draft: Draft, step: Step, visit: int, ordinal: int, given: RenderedInputs, arrival: Arrival) -> None:
    """Start the child of a `playbook` step. Raises TemplateError if a template of the call fails."""
    call = step.call
    if call is None:
        raise TemplateError("the step calls no playbook", template="", at=step.name)
    request = render_call(draft, call, given, arrival.result)
    timeout = timeout_of(draft, step, given.values, arrival.result)
    delegate_job(draft, step, visit, ordinal, request, timeout)
    start_child(draft, draft.state.tokens[step.name, visit], request)


def complete_child(draft: Draft, token: Token) -> None:
    """Complete the step; if somebody else answered in place of the child, the child is cancelled."""
    meta = draft.event.meta
    if isinstance(meta, dict) and "child_execution_id" not in meta:
        draft.add(ItemsCancelled(token.step, token.visit))
    process_completed_steps(draft, token)


def process_failed_child(draft: Draft, token: Token, error: JSON) -> None:
    """Start the failed child again after a delay, or fail the step for good."""
    draft.add(ItemsCancelled(token.step, token.visit))  # a child that timed out may still run
    step = draft.playbook.steps[token.step]
    if step.compensate is not None:
        token = note_failure(draft, step, token, error)
    retry_or_fail(draft, token, error, restart="delegated")


def render_call(
    draft: Draft, call: ChildCall, given: RenderedInputs, result: ResultRef, words: Mapping[str, JSON] | None = None
) -> dict[str, JSON]:
    """The request for a child: {path, version, return_step, args}."""
    scope = draft.templates.scope(given.values, result, words)
    path = draft.templates.render(call.path, scope) if call.block is None else call.block
    version = as_version(draft.templates.render(call.version, scope)) if call.version is not None else None
    answer = draft.templates.render(call.return_step, scope) if call.return_step is not None else None
    if not isinstance(path, str) or not path:
        raise wrong_value(call.path, "the path of a playbook must be text", path)
    if call.version is not None and version is not None and not _is_version(version):
        wanted = f"the version of a playbook must be a whole number from 1 to {LARGEST_VERSION}"
        raise wrong_value(call.version, wanted, version)
    if call.return_step is not None and not isinstance(answer, str | None):
        raise wrong_value(call.return_step, "the return_step of a playbook must be text", answer)
    if call.block is not None:
        version = OWN_VERSION
    request: dict[str, JSON] = {"path": path, "version": version, "args": given.values}
    return request if answer is None else {**request, "return_step": answer}


def _is_version(value: JSON) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_VERSION


def start_child(
    draft: Draft, token: Token, request: dict[str, JSON], item: tuple[int, int | None] | None = None
) -> ChildStarted:
    """Start a child execution, and give its effect.

    `item`: the index of an iterator's item, and the position of its iteration_started in the turn (None: it is started
    again).
    """
    parent = {"depth": draft.state.depth + 1, "return_step": request.get("return_step"), "attempt": token.failures + 1}
    started = ChildStarted(
        token.step,
        token.visit,
        item[0] if item else None,
        request["path"],
        request["version"],
        request.get("args") or {},
        _meta(draft, parent),
        item[1] if item else None,
    )
    draft.add(started)
    return started


def _meta(draft: Draft, parent: dict[str, JSON]) -> dict[str, JSON]:
    """The meta of the start of a child; what led to the parent led to the child."""
    meta: dict[str, JSON] = {"parent": parent}
    if draft.state.hops:
        meta["hops"] = draft.state.hops
    if draft.state.failed_before is not None:
        meta[ON_FAILURE] = draft.state.failed_before
    return meta


def start_child_again(draft: Draft, token: Token) -> None:
    """`child_due`: start the failed child again."""
    if draft.state.status != RUNNING:
        draft.state.tokens[token.step, token.visit] = token._replace(due=True)
        return
    step = draft.playbook.steps[token.step]
    token = token._replace(failed_attempt=token.failures)
    draft.state.tokens[token.step, token.visit] = token
    start_child(draft, token, draft.templates.request_of(step, token.visit))


def error_of_child(execution_id: int, ended: ExecutionEnd) -> dict[str, JSON]:
    """The error of a child that did not complete, for its parent; `step` and `at` of the child get names of their own.

    The error keeps the type of its cause, so that a parent can distinguish failures.
    """
    cause = ended.error or {}
    error = {**cause, "message": cause.get("message") or "the child failed"}
    if error.get("type") in (None, ""):  # any other type comes from a worker
        error["type"] = f"child_{ended.status.lower()}"
    error["child_step"] = error.pop("step", None)
    if "at" in error:  # a path in the child's playbook
        error["child_at"] = error.pop("at")
    error["child_execution_id"] = execution_id
    return error


def max_nesting_error(draft: Draft, step: Step) -> dict[str, JSON] | None:
    """The error if the child would be nested deeper than `max_nesting`."""
    limit = draft.known.rules.max_nesting
    if draft.state.depth < limit:
        return None
    message = (
        f"step {step.name} would start a playbook at depth {draft.state.depth + 1}; the limit max_nesting is {limit}"
    )
    return {"step": step.name, "message": message, "type": "max_nesting"}

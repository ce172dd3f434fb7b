"""Playbooks in playbooks: a step starts another execution and waits for its answer (spec section 5).

Executions speak only by letters: the child's start and the child's answer are events of the execution that they are
for, so no turn ever needs two executions. The step has a job of its own that no worker is given; it remembers what to
start, so that a failed child can be started again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.failure import wrong_value
from noetl_broker.broker.model import JSON, Child, Ended
from noetl_broker.broker.queue import delegate_job
from noetl_broker.broker.unfinished import insist_on_values, unfinished_of
from noetl_broker.playbook.amounts import LAST_VERSION, as_version
from noetl_broker.playbook.findings import path_text
from noetl_broker.playbook.reads import at_path
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.given import Given
    from noetl_broker.broker.state import Token
    from noetl_broker.playbook.model import ChildCall, Step


def call_child(draft: Draft, step: Step, visit: int, ordinal: int, given: Given, result: int | None) -> None:
    """Start the child of a `playbook` step; `ordinal` is the place of its step_started.

    Raises TemplateError where a field of the call fails.
    """
    call = step.call
    if call is None:
        raise TemplateError("the step calls no playbook", template="", at=step.name)
    request = render_call(draft, call, given, result)
    delegate_job(draft, step, visit, ordinal, request)
    start_child(draft, draft.tokens[step.name, visit], request)


def render_call(
    draft: Draft, call: ChildCall, given: Given, result: int | None, words: Mapping[str, JSON] | None = None
) -> dict[str, JSON]:
    """What is to be started: {path, version, return_step, args}."""
    insist_on_values(unfinished_of(draft, given, words or ()), call.path, call.version, call.return_step)
    if given.left:  # nobody finishes it: the child takes its payload for data
        text = str(at_path(given.values, given.left[0]))
        message = f"only a worker can finish the input `{path_text(given.left[0])}`, and none runs a playbook"
        raise TemplateError(message, text, call.path.at.removesuffix(".path"))
    scope = draft.scope(given.values, result, words)
    path = draft.render(call.path, scope)
    version = as_version(draft.render(call.version, scope)) if call.version is not None else None
    answer = draft.render(call.return_step, scope) if call.return_step is not None else None
    if not isinstance(path, str) or not path:
        raise wrong_value(call.path, "the path of a playbook must be text", path)
    if call.version is not None and version is not None and not _is_version(version):
        wanted = f"the version of a playbook must be a whole number from 1 to {LAST_VERSION}"
        raise wrong_value(call.version, wanted, version)
    if call.return_step is not None and not isinstance(answer, str | None):
        raise wrong_value(call.return_step, "the return_step of a playbook must be text", answer)
    request: dict[str, JSON] = {"path": path, "version": version, "args": given.values}
    return request if answer is None else {**request, "return_step": answer}


def _is_version(value: JSON) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LAST_VERSION


def start_child(draft: Draft, token: Token, request: dict[str, JSON], item: tuple[int, int] | None = None) -> None:
    """Write the child's start: a letter to an execution that begins with it.

    `item`: the place of an iterator's item, and the place of its iteration_started in the turn.
    """
    parent = {"depth": draft.depth + 1, "return_step": request.get("return_step"), "attempt": token.failures + 1}
    draft.children.append(
        Child(
            token.step,
            token.visit,
            item[0] if item else None,
            request["path"],
            request["version"],
            request.get("args") or {},
            {"parent": parent},
            item[1] if item else None,
        )
    )


def start_child_again(draft: Draft, token: Token) -> None:
    """`child_due`: the pause after a failed child is over."""
    step = draft.playbook.steps[token.step]
    token = token._replace(failed_attempt=token.failures)
    draft.tokens[token.step, token.visit] = token
    start_child(draft, token, draft.request_of(step, token.visit))


def error_of_child(execution_id: int, ended: Ended) -> dict[str, JSON]:
    """What a parent is told of a child that did not complete: its error, which names step and place as the child's.

    The type stays that of the cause, so that a parent can tell one failure from another. `adopt_children` in
    `store/sql/family.sql` makes the same of a child that had ended before its parent was told of it.
    """
    told = ended.error or {}
    error = {**told, "message": told.get("message") or "the child failed"}
    if error.get("type") in (None, ""):  # whatever else it is, a worker gave it
        error["type"] = f"child_{ended.status.lower()}"
    error["child_step"] = error.pop("step", None)
    if "at" in error:  # a place in the child's playbook
        error["child_at"] = error.pop("at")
    error["child_execution_id"] = execution_id
    return error


def too_deep(draft: Draft, step: Step) -> dict[str, JSON] | None:
    """The error of a step whose child would be nested deeper than the limit."""
    limit = draft.known.rules.max_nesting
    if draft.depth < limit:
        return None
    message = f"step {step.name} would start a playbook at depth {draft.depth + 1}; the limit max_nesting is {limit}"
    return {"step": step.name, "message": message, "type": "max_nesting"}

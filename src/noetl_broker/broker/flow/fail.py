"""A `fail` step: it fails as a worker's action would, with the error that the playbook gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from noetl_broker.broker.flow.transitions import fail_at_once
from noetl_broker.broker.model.limits import shorten_error
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.writing.errors import complete_error, wrong_value
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import Arrival, RenderedInputs
    from noetl_broker.playbook.model import Step
    from noetl_broker.template import Tree
    from noetl_broker.template.scope import Scope

TYPE = "fail"  # of the error if the playbook gives none
MESSAGE = "the playbook fails here"


def begin_fail(draft: Draft, step: Step, visit: int, _ordinal: int, given: RenderedInputs, arrival: Arrival) -> None:
    """Fail the visit. Raises TemplateError if a part of the error cannot be rendered or has a wrong value."""
    if step.fail is None:
        raise TemplateError("the step has no error", template="", at=step.name)
    scope = draft.templates.scope(given.values, arrival.result)
    error: dict[str, JSON] = {
        "step": step.name,
        "type": _text(draft, step.fail.type, scope) or TYPE,
        "message": _text(draft, step.fail.message, scope) or MESSAGE,
    }
    status = None if step.fail.status_code is None else draft.templates.render(step.fail.status_code, scope)
    if step.fail.status_code is not None and status is not None:
        if not isinstance(status, int) or isinstance(status, bool):
            raise wrong_value(step.fail.status_code, "`status_code` must be a whole number", status)
        error["status_code"] = status
    draft.state.tokens.pop((step.name, visit))
    short: dict[str, JSON] = shorten_error(error)
    fail_at_once(draft, step, visit, complete_error(short, 1), arrival, given, continues=step.on_error == "continue")


def _text(draft: Draft, tree: Tree | None, scope: Scope) -> str:
    """The rendered text; the JSON of another value, and nothing for null."""
    value = None if tree is None else draft.templates.render(tree, scope)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

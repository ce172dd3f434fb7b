"""The tags of an execution: those of its start, and those that its playbook gives. No decision reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.playbook.tags import MOST, NAME, tag_text
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.event import Event

KEY: Final = "tags"  # of the meta of an execution_start: those of the start, of the parent, or of the fork's original
INHERITED: Final = ("parent", "on_failure")  # keys of the meta of a start whose playbook's own tags win
NOTE_CHARS: Final = 1_000
_NAME: Final = re.compile(NAME)


def tags_of(draft: Draft) -> dict[str, str] | None:
    """All tags of an execution that begins; None if its playbook gives none, for its row has the others already.

    A tag of the start wins. In a child, that of its own playbook wins. What fails to render, or is too much, is left
    out, and the turn has a note: a tag never fails an execution.
    """
    if not draft.playbook.tags:
        return None
    own: dict[str, str] = {}
    left_out: list[str] = []
    for name, tree in draft.playbook.tags.items():
        try:
            value = draft.templates.render(tree, draft.templates.scope({}, None))
            if value is not None:
                own[name] = tag_text(as_stored(value))
        except TemplateError as fault:
            left_out.append(f"{name} ({fault.message:.200})")
        except ValueError as fault:
            left_out.append(f"{name} ({fault})")
    given, is_inherited = _given(draft.event)
    ranked = own | {name: value for name, value in given.items() if name not in own}
    if not is_inherited:
        ranked = given | {name: value for name, value in own.items() if name not in given}
    names = [*ranked]
    left_out += [f"{name} (an execution has at most {MOST})" for name in names[MOST:]]
    if left_out:
        draft.writes.note = f"tags that were left out: {', '.join(left_out)}"[:NOTE_CHARS]
    return {name: ranked[name] for name in names[:MOST]}


def _given(start: Event) -> tuple[dict[str, str], bool]:
    """The tags that a start brings, and whether they are of its parent or of what failed before it.

    Anybody may insert an event, so what is no tag is ignored.
    """
    meta: dict[str, JSON] = start.meta if isinstance(start.meta, dict) else {}
    tags = meta.get(KEY)
    found: dict[str, str] = {}
    for name, value in tags.items() if isinstance(tags, dict) else ():
        if isinstance(value, str) and _NAME.fullmatch(name) and len(found) < MOST:
            found[name] = value[:256]
    return found, any(key in meta for key in INHERITED)

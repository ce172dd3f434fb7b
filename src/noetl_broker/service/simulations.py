"""Simulations of a playbook that is edited: the core decides, and the request answers the jobs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from noetl_broker.errors import JobFailed, NotFoundFault
from noetl_broker.playbook import Playbook, PlaybookRules, compile_playbook
from noetl_broker.playbook.lint.child_playbooks import called_playbooks
from noetl_broker.service.action import Caller, Cost, Role, action
from noetl_broker.service.check import FILE, check_text
from noetl_broker.service.models import playbooks as models
from noetl_broker.service.where import in_any
from noetl_broker.store.admin import catalog
from noetl_broker.store.connect.connection import Connection
from noetl_broker.testing import Story
from noetl_broker.testing import simulate as run_simulation

# Each turn keeps its values. A loop of the edit that never ends must not take the memory of the console.
MOST_TURNS: Final = 2_000


@action(Role.OPERATOR, models.Simulated, cost=Cost.LONG, where=in_any)
async def simulate(connection: Connection, caller: Caller, given: models.SimulateRequest) -> Any:
    """Simulate an edited playbook to its end, without a worker and without side effects; you answer its jobs.

    A playbook that it calls is the registered one, unless the step that calls it has an answer. More than 2,000 turns
    are refused.
    """
    checked = await check_text(connection, given.content, caller.rules)
    if checked.errors:
        return {"findings": checked.findings}
    rules = caller.rules.of_registered()
    story = run_simulation(
        compile_playbook(checked.source, file=FILE, rules=rules),
        given.answers | {step: JobFailed(message) for step, message in given.failures.items()},
        payload=given.payload,
        playbooks=await _called_by(connection, given.content, rules),
        approvals=given.approvals,
        signals=given.signals,
        most_turns=MOST_TURNS,
    )
    return _told(story)


async def _called_by(connection: Connection, content: str, rules: PlaybookRules) -> list[Playbook]:
    """The registered playbooks that a text calls, and that these call."""
    found: dict[str, Playbook] = {}
    texts = [content]
    while texts:
        for call in called_playbooks(texts.pop(), file=FILE, rules=rules):
            with suppress(NotFoundFault):  # the simulation says which step lacks an answer
                if call.path not in found:
                    version = await catalog.find(connection, call.path, call.version)
                    found[call.path] = version.compile(rules)
                    texts.append(version.content)
    return [*found.values()]


def _told(story: Story) -> dict[str, Any]:
    return {
        "path": story.path,
        "status": story.status,
        "result": story.result,
        "error": story.error,
        "waited_seconds": story.waited.total_seconds(),
        "steps": [asdict(visit) for visit in story.steps],
        "children": [_told(child) for child in story.children],
    }

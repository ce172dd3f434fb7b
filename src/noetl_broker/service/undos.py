"""Undo what an ended execution did, with its own version of the playbook or with a mended one; or settle it by hand."""

from __future__ import annotations

from collections.abc import Sequence

from noetl_broker.errors import BrokerError
from noetl_broker.playbook.model import Playbook
from noetl_broker.service.recoveries import OnVersion
from noetl_broker.store.admin import undo
from noetl_broker.store.admin.undo import UndoTarget
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.text import join_names


async def undo_execution(
    connection: Connection,
    execution_id: int,
    *,
    unknown: bool = False,
    on: OnVersion | None = None,
    by: str | None = None,
) -> bool:
    """Ask an ended execution to undo what it did; false if nothing is left to undo.

    `on`: with the `compensate` of that version. Raises BrokerError if it cannot undo all of it.
    """
    other = None if on is None else await on.of(connection, execution_id)
    if other is None:
        return bool(await call(connection, "undo_execution", execution_id, unknown, None, by))
    targets = await undo.list_undo_targets(connection, execution_id, unknown=unknown)
    lacking = what_is_lacking(other.playbook, targets)
    if lacking:
        raise BrokerError(
            f"version {other.version} of {other.playbook.path} cannot undo what is left: it has {lacking};"
            " register a version that has a `compensate` for each; nothing was begun"
        )
    return bool(await call(connection, "undo_execution", execution_id, unknown, other.version, by))


async def why_nothing(connection: Connection, execution_id: int) -> str:
    """Why an execution has nothing to undo."""
    found = await undo.load_undo(connection, execution_id)
    doubtful = found["counts"].get("unknown", 0) if found is not None else 0
    nothing = f"nothing of execution {execution_id} is left to undo"
    if not doubtful:
        return nothing
    return f"{nothing} but {doubtful} of unknown outcome: noetl-broker undo {execution_id} --unknown undoes these, too"


def what_is_lacking(playbook: Playbook, targets: Sequence[UndoTarget]) -> str:
    """The steps that a version lacks or that have no `compensate`, in words; empty: it can undo all."""
    found = [f"no step {target.step}" for target in targets if target.step not in playbook.steps]
    for target in targets:
        step = playbook.steps.get(target.step)
        if step is None or target.by_child:
            continue
        task = None if step.iteration is None else step.iteration.task
        undone = task if target.of_items else step
        if undone is None or undone.compensate is None:
            found.append(f"no `compensate` for {'the items of ' if target.of_items else ''}{target.step}")
    return join_names([*dict.fromkeys(found)])

"""Checks a payload against the schema of its playbook before an execution starts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from noetl_broker.broker.core import Session
from noetl_broker.broker.initial import PAYLOAD
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import EXECUTION_START
from noetl_broker.errors import OperatorFault
from noetl_broker.playbook import PlaybookError, PlaybookRules
from noetl_broker.playbook.model import Playbook
from noetl_broker.store.admin.catalog import find_readable
from noetl_broker.store.connect.connection import Connection


async def payload_check(
    connection: Connection, path: str, version: int | None, rules: PlaybookRules
) -> Callable[[Any, str], None]:
    """A function that raises OperatorFault if a payload breaks the playbook's schema; its message begins as given.

    The broker checks it as well. It alone does where the role may not read the catalog.
    """
    found = await find_readable(connection, path, version)
    playbook = None
    if found is not None:
        with contextlib.suppress(PlaybookError):  # the broker says so
            playbook = await asyncio.to_thread(found.compile, rules)  # a long one takes seconds

    def check(payload: Any, which: str) -> None:
        if found is None or playbook is None or playbook.workload_schema is None:
            return
        error = payload_fault(playbook, payload)
        if error is not None:
            raise OperatorFault(f"{which}{error['message']}; it is that of {path} version {found.version}")

    return check


def payload_fault(playbook: Playbook, payload: Any) -> dict[str, Any] | None:
    """The error of a start whose payload breaks the playbook's schema, with its `places`; None if it fits."""
    start = Event(EXECUTION_START, context={"workload": payload})
    ended = Session(playbook).apply(start, datetime.now(UTC)).ended
    error: dict[str, Any] = ended.error if ended is not None and ended.error is not None else {}
    return error if error.get("type") == PAYLOAD else None

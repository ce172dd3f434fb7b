"""Compiled playbooks, kept by catalog version: parsing costs more than a hundred turns do."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.findings import Rules
from noetl_broker.playbook.model import Playbook
from noetl_broker.store import unit
from noetl_broker.store.pool import Connection
from noetl_broker.store.rows import Execution

MOST_KEPT = 256


class Playbooks:
    """The playbooks of this process; a version never changes, so what was compiled stays true."""

    def __init__(self, rules: Rules) -> None:
        """Nothing compiled yet; `rules` say what a playbook may hold."""
        self._rules = rules
        self._kept: OrderedDict[int, Playbook | str] = OrderedDict()

    async def of(self, connection: Connection, execution: Execution) -> Playbook | str:
        """The playbook of an execution, or the sentence that says why there is none."""
        catalog_id = execution.catalog_id
        if catalog_id is None:
            version = "" if execution.version is None else f" version {execution.version}"
            return f"no playbook {execution.path}{version} is registered"
        kept = self._kept.get(catalog_id)
        if kept is not None:
            self._kept.move_to_end(catalog_id)
            return kept
        found = await unit.load_content(connection, catalog_id)
        if found is None:
            return f"the catalog has no row {catalog_id} (playbook {execution.path})"
        content, path = found
        try:
            # Beside the event loop: the other lanes go on while a large document is read.
            compiled: Playbook | str = await asyncio.to_thread(compile_playbook, content, file=path, rules=self._rules)
        except PlaybookFault as fault:
            compiled = f"playbook {path} does not compile: {fault}"
        self._kept[catalog_id] = compiled
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return compiled

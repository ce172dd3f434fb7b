"""Reads how long an action may take, and which one goes first."""

from __future__ import annotations

from noetl_broker.playbook.amounts import PRIORITIES, SECONDS, read_integer, read_number
from noetl_broker.playbook.reading import Reading
from noetl_broker.playbook.tasks import Declared


def read_timeout(reading: Reading, declared: Declared) -> float | None:
    """Read the step's time limit; a tool's own `timeout` (of `http`) counts where it is a number on the step itself."""
    value, where = declared.lookup("timeout")
    if value is None:
        return None
    if "timeout" in declared.own and (where[0] == "workbook" or isinstance(value, str)):
        return None
    return read_number(reading, value, where, SECONDS)


def read_priority(reading: Reading, declared: Declared) -> int | None:
    """Read which jobs go first; None where neither the step nor its workbook action says."""
    value, where = declared.lookup("priority")
    return None if value is None else read_integer(reading, value, where, PRIORITIES)

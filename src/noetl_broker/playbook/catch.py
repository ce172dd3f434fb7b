"""Reads `catch` (what a step does when it failed for good) and `output` (what is kept of a result)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from noetl_broker.playbook.keywords import END
from noetl_broker.playbook.reader import TemplateSite
from noetl_broker.playbook.transitions import read_entries

if TYPE_CHECKING:
    from noetl_broker.playbook.header import WrittenStep
    from noetl_broker.playbook.model import Entry
    from noetl_broker.playbook.reader import Reading
    from noetl_broker.playbook.tasks import Declared
    from noetl_broker.template import Tree

CATCH: Final = "catch"
OUTPUT: Final = "output"


def read_catch(reading: Reading, written: WrittenStep, declared: Declared) -> tuple[Entry, ...]:
    """Read the entries of a step's `catch`, and add their arcs to the reading."""
    raw, location = written.raw.get(CATCH), (*written.location, CATCH)
    if raw is None:
        return ()
    if written.name == END:
        hint = "put it on the steps before, or put what fails into a step of its own"
        reading.report.error("end-with-catch", location, "`end` has a `catch`", hint)
        return ()
    if any(CATCH in layer.raw for layer in declared.layers[:-1]):
        hint = "write it on the step"
        reading.report.warning(
            "unused-key", declared.layers[0].location, "`catch` of a workbook action is not read", hint
        )
    return tuple(entry for entry, _ in read_entries(reading, written.name, raw, location, CATCH) if entry is not None)


def read_output(reading: Reading, name: str, declared: Declared, *, iterating: bool) -> Tree | None:
    """Read what is kept in place of the result of a step's action; None if it is the result itself."""
    value, location = declared.lookup(OUTPUT)
    if value is None:
        return None
    if iterating:
        message = f"`output` of the iterator `{name}` has no meaning: its result is the list of its items"
        reading.report.error(
            "bad-output", location, message, "choose in a later step, or in a block: task: {workflow: …}"
        )
        return None
    if not declared.traits.has_result:
        message = f"`output` of step `{name}` is not read: the step has no result of its own"
        reading.report.warning("unused-key", location, message, "remove it", key=True)
        return None
    return reading.tree(value, location, TemplateSite(step=name, role="next"))

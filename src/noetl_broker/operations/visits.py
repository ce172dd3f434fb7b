"""Visits as people name them: a step, or load#2 for its second visit."""

from __future__ import annotations

import re

from noetl_broker.errors import OperatorFault


def read_visit(step: str) -> tuple[str, int | None]:
    """A step's name, and the number of a visit where one is given; raises OperatorFault where that is no number."""
    name, mark, number = step.partition("#")
    if mark and not (number.isascii() and number.isdigit() and int(number) > 0):
        raise OperatorFault(f"{step} names no visit: write for example {name}#2 for the second")
    return name, int(number) if mark else None


def read_node(step: str) -> tuple[str, int | None, int | None]:
    """A step's name, the number of a visit, and the place of an item, of `load`, `load#2`, `load[7]` or `load#2[7]`.

    Raises OperatorFault where the number is none.
    """
    found = re.fullmatch(r"(?P<visit>.+)\[(?P<place>[0-9]{1,9})\]", step, re.DOTALL)
    if found is None:
        return *read_visit(step), None
    return *read_visit(found["visit"]), int(found["place"])

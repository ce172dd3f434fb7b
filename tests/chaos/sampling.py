"""How much the chaos tests try: a sample with `make test`, everything with `make chaos` (NOETL_CHAOS=long)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

LONG = os.environ.get("NOETL_CHAOS") == "long"
Thing = TypeVar("Thing")


def sample(things: Sequence[Thing], most: int) -> list[Thing]:
    """All of them with NOETL_CHAOS=long, otherwise `most` of them, evenly spread from the first to the last."""
    if LONG or len(things) <= most:
        return [*things]
    return [things[round(index * (len(things) - 1) / max(most - 1, 1))] for index in range(most)]

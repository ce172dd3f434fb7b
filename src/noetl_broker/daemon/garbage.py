"""Garbage is collected when a lane has ended a batch: in the middle of one a collection finds nothing of it.

What a batch makes is freed when it ends, without the collector, which took a tenth of a turn's time. What is left over,
rings of objects and what is kept, is counted by the interpreter, and collected when there is enough of it. What other
lanes hold in the middle of theirs is counted as well and would be walked over in vain: so enough is several times as
much as that, which is some 28,000 objects with three lanes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MOST_LEFT: Final = 100_000  # objects that came and did not go since the last collection


@contextmanager
def collected_between_batches() -> Iterator[None]:
    """Garbage is collected by `collect` alone; what is there at the beginning is taken to stay."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def collect() -> None:
    """Collect where enough was left over."""
    if gc.get_count()[0] > MOST_LEFT:
        gc.collect()

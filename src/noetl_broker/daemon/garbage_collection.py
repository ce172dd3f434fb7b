"""Garbage is collected between batches and never inside one.

The objects of a batch are freed by reference counts when it ends. A collection inside a batch frees nothing of it, and
took a tenth of a turn's time. The objects of the other lanes count too: about 28,000 with three lanes. So the threshold
is several times that.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

THRESHOLD: Final = 100_000  # objects that were made and not freed since the last collection


@contextmanager
def collected_between_batches() -> Iterator[None]:
    """Leave collection to `collect`. Objects that exist already are never looked at again."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def collect() -> None:
    """Collect if enough objects are left."""
    if gc.get_count()[0] > THRESHOLD:
        gc.collect()

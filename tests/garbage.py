"""Keeps what a test process has for good out of its garbage collections."""

from __future__ import annotations

import gc

YOUNG = 1  # the generation before the oldest


def freeze() -> None:
    """Leave all objects that exist now, such as the collected tests, out of later collections.

    A collection of all takes 0.1 s, and automatic ones are frequent.
    """
    gc.collect()
    gc.freeze()


def freeze_again() -> None:
    """Freeze as before, after `run` in this process: its end has unfrozen everything.

    Only what is young can be garbage: the rest was frozen before.
    """
    gc.collect(YOUNG)
    gc.freeze()

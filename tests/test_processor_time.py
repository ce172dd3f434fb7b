"""A limit of processor time is kept by work that is quick enough once, and by no work that never is."""

from __future__ import annotations

import pytest

from tests.processor_time import REFERENCE_SECONDS, _fixed_work, within


def test_work_that_always_takes_too_long_is_an_error() -> None:
    """Also on a machine that is slow: the limit grows only as the work does."""
    with pytest.raises(AssertionError, match="of processor time, at most"):
        within(REFERENCE_SECONDS, lambda: [_fixed_work() for _ in range(20)])


def test_work_that_is_delayed_once_is_none() -> None:
    """It is tried again, and its result is that of the last attempt."""
    lengths = iter((100, 1))
    assert len(within(REFERENCE_SECONDS * 20, lambda: [_fixed_work() for _ in range(next(lengths))])) == 1

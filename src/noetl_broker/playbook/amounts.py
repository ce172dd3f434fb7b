"""Reads the small values of a playbook: numbers with bounds, and words from a list."""

from __future__ import annotations

from typing import Any, NamedTuple

from noetl_broker.playbook.findings import Place, kind_of
from noetl_broker.playbook.reading import Reading


class Range(NamedTuple):
    """The least and the greatest value allowed."""

    least: float
    most: float

    def __str__(self) -> str:
        """Give the range as an author reads it."""
        return f"from {_plain(self.least)} to {_plain(self.most)}"


PRIORITIES = Range(-32_768, 32_767)  # a smallint of the queue
SECONDS = Range(0.001, 31_536_000)  # up to a year
DELAYS = Range(0, 31_536_000)  # seconds


def read_number(reading: Reading, value: Any, place: Place, allowed: Range, code: str = "bad-value") -> float | None:
    """Give a number in a range; None, and an error in the report, for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and allowed.least <= value <= allowed.most:
        return float(value)
    _refuse(reading, value, place, f"a number {allowed}", code)
    return None


def read_integer(reading: Reading, value: Any, place: Place, allowed: Range, code: str = "bad-value") -> int | None:
    """Give an integer in a range; None, and an error in the report, for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and allowed.least <= value <= allowed.most:
        return value
    _refuse(reading, value, place, f"an integer {allowed}", code)
    return None


def read_boolean(reading: Reading, value: Any, place: Place, code: str = "bad-value") -> bool | None:
    """Give a boolean; None, and an error in the report, for anything else."""
    if isinstance(value, bool):
        return value
    _refuse(reading, value, place, "true or false", code)
    return None


def read_word(
    reading: Reading, value: Any, place: Place, words: tuple[str, ...], code: str = "bad-value"
) -> str | None:
    """Give one of the words; None, and an error in the report, for anything else."""
    if isinstance(value, str) and value in words:
        return value
    what = value if isinstance(value, str) else kind_of(value)
    reading.report.error(
        code, place, f"`{place[-1]}` is {what}, not one of {', '.join(words)}", f"the default is {words[0]}"
    )
    return None


def _refuse(reading: Reading, value: Any, place: Place, wanted: str, code: str) -> None:
    what = repr(value) if isinstance(value, str | int | float) else kind_of(value)
    hint = "write it without quotes or template" if isinstance(value, str) else f"write {wanted}"
    reading.report.error(code, place, f"`{place[-1]}` is {what}, not {wanted}", hint)


def _plain(bound: float) -> str:
    return f"{bound:g}" if bound != int(bound) else str(int(bound))

"""Numbers as the database gives them back: one rule for documents, templates, results and the JSON codec.

jsonb keeps digits, not types: a float from 1e16 on comes back as an integer, and zero has no sign. A value in memory
must equal the value that was stored, or a replay decides differently. The rule:

- An integer of at most 256 bits is exact.
- A float below 1e16 is a float. From there on it is the integer of its digits, as long as that has at most 256 bits.
- A longer integer is a float if a float has the same digits. Otherwise it stays an integer.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import Final

INTEGER_LIMIT: Final = 1 << 256
WHOLE_FROM: Final = 1e16  # from here on a float is written without a fraction, in digits and an exponent
_DIGITS_WITHIN: Final = 77  # an integer of so many characters has fewer than 256 bits


def number_of(value: float) -> int | float:
    """Give the number that the database gives back for a finite float."""
    if -WHOLE_FROM < value < WHOLE_FROM:
        return value or 0.0  # zero has no sign
    whole = _digits_of(value)
    return whole if -INTEGER_LIMIT < whole < INTEGER_LIMIT else value


def read_integer(digits: str) -> int | float:
    """Give the number of a JSON text without fraction and exponent. Raises ValueError if Python refuses its length."""
    if len(digits) <= _DIGITS_WITHIN:
        return int(digits)
    whole = int(digits)
    if -INTEGER_LIMIT < whole < INTEGER_LIMIT:
        return whole
    try:
        value = float(whole)
    except OverflowError:
        return whole
    return value if _digits_of(value) == whole else whole


def read_real(digits: str) -> int | float:
    """Give the number of a JSON text with a fraction or an exponent. Raises ValueError if it is too large for a float.

    With an exponent that leaves no fraction it is an integer, as in jsonb: 1.5e3 is 1500.
    """
    value = float(digits)
    if not isfinite(value):
        raise ValueError(f"the number {digits:.40} is too large")
    if value and ("e" in digits or "E" in digits):
        exact = Decimal(digits)
        if int(exact.as_tuple().exponent) >= 0:
            return read_integer(f"{exact:f}")
    return number_of(value)


def _digits_of(value: float) -> int:
    """Give the integer that the shortest text of a whole float means, which may differ from its exact value."""
    return int(Decimal(repr(value)))

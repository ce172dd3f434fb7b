"""What becomes of a number in the database, so that it is that from the start.

jsonb keeps decimal digits and no kind: a float of 1e16 or more is written with an exponent and comes back as an
integer, and no zero has a sign. So a value that went through the database would be another than the one in memory, and
a replay would decide otherwise than the execution did. One rule for all numbers, wherever they come from:

- An integer of at most 256 bits is exact.
- A float below 1e16 is a float. From there on it is the integer of its digits, as long as that has at most 256 bits.
- A longer integer is a float where its digits are those of one, and else stays as it is.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import Final

INTEGER_LIMIT: Final = 1 << 256
WHOLE_FROM: Final = 1e16  # from here on a float is written without a fraction, in digits and an exponent
_DIGITS_WITHIN: Final = 77  # an integer of so many digits, or of a sign and one less, has fewer than 256 bits


def number_of(value: float) -> int | float:
    """Give the number that the database gives back of a finite float: see above."""
    if -WHOLE_FROM < value < WHOLE_FROM:
        return value or 0.0  # no zero has a sign
    whole = _digits_of(value)
    return whole if -INTEGER_LIMIT < whole < INTEGER_LIMIT else value


def read_integer(digits: str) -> int | float:
    """Give the number of a JSON text without fraction and exponent. Raises ValueError where Python reads no so long."""
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
    """Give the number of a JSON text with a fraction or an exponent. Raises ValueError where no float is as large.

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
    """The integer that the shortest text of a whole float writes; the float itself may be a nearby one."""
    return int(Decimal(repr(value)))

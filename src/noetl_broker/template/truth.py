"""When a condition counts as true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from noetl_broker.template.scope import JSON

FALSE_TEXTS: Final = frozenset({"", "false", "no", "off", "0", "none", "null"})
LONGEST_FALSE: Final = max(map(len, FALSE_TEXTS))


def is_true(value: JSON) -> bool:
    """Tell whether a condition that gave this value holds.

    False are Python-false values and the texts false, no, off, 0, none, null in any case, trimmed, and the empty text.
    All else is true.
    """
    if value is True or value is False:
        return value
    if isinstance(value, str):
        word = value.strip()
        return len(word) > LONGEST_FALSE or word.lower() not in FALSE_TEXTS
    return bool(value)

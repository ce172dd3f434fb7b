"""Text with escapes in place of invisible characters and of characters that move the cursor.

Names, types and messages come from playbooks, producers and servers. Unescaped, they could forge a line, move a
terminal's cursor, or turn the direction of writing.
"""

from __future__ import annotations

import re
from typing import Final

# Unicode's categories Cc, Cf, Cs, Co, Zl and Zp: controls, formats (direction of writing, zero width), surrogates,
# private characters, ends of lines. As ranges, because to look up each character's category takes a third of a second.
_CATEGORIES: Final = (
    r"\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\ud800-\uf8ff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff"
)
# Letters that are invisible.
_FILLERS: Final = r"\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
_HIDDEN: Final = re.compile(f"[{_CATEGORIES}{_FILLERS}]")
_HIDDEN_IN_LINES: Final = re.compile(rf"(?![\n\t])[{_CATEGORIES}{_FILLERS}]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ONE_BYTE, _TWO_BYTES = 0xFF, 0xFFFF


def visible(text: str) -> str:
    r"""Give a text on one line, with an escape such as `\x1b` for each invisible character."""
    return _HIDDEN.sub(_escape, text)


def visible_lines(text: str) -> str:
    """Give a text of several lines; newlines and tabs stay."""
    return _HIDDEN_IN_LINES.sub(_escape, text)


def visible_json(document: str) -> str:
    """Give JSON with the same value and no invisible characters in its strings."""
    return _HIDDEN_IN_LINES.sub(_escape_json, document)


def is_visible(text: str) -> bool:
    """Whether a text of several lines needs no escape."""
    return _HIDDEN_IN_LINES.search(text) is None


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code <= _ONE_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _TWO_BYTES else f"\\U{code:08x}"


def _escape_json(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= _TWO_BYTES:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"

"""Characters that are not visible become escapes."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from noetl_broker.visible import is_visible, visible, visible_json, visible_lines

HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
EVERYTHING = [chr(code) for code in range(sys.maxunicode + 1)]


def test_every_hidden_category_is_escaped() -> None:
    """By the Unicode table of this Python."""
    assert [
        hex(ord(letter))
        for letter in EVERYTHING
        if unicodedata.category(letter) in HIDDEN_CATEGORIES and visible(letter) == letter
    ] == []


def test_visible_characters_stay() -> None:
    """All letters, marks, numbers, signs and spaces, except those without a shape."""
    changed = {
        letter
        for letter in EVERYTHING
        if unicodedata.category(letter)[0] in "LMNPS" and len(letter.encode()) < 4 and visible(letter) != letter
    }
    assert changed == {*"\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"}
    assert visible("Größe × 3 → дело 東京 🎉 a b") == "Größe × 3 → дело 東京 🎉 a b"


@pytest.mark.parametrize(
    "hidden, shown",
    [
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[2J\x07\x85", "\\x1b[2J\\x07\\x85"),
        ("\u202etxt\u200b", "\\u202etxt\\u200b"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_an_escape_has_the_code_of_the_character(hidden: str, shown: str) -> None:
    """The escape of Python."""
    assert visible(hidden) == shown


def test_newlines_and_tabs_of_our_texts_stay() -> None:
    """Other control characters become escapes."""
    assert visible_lines("a\n\tb\r\x1b") == "a\n\tb\\r\\x1b"
    assert (is_visible("a\n\tb"), is_visible("a\u202e")) == (True, False)


def test_escaped_json_is_the_same_value() -> None:
    """The text can be printed to a terminal."""
    value = {"".join(letter for letter in EVERYTHING if unicodedata.category(letter) != "Cs"): ["\u202e", "\x7f"]}
    text = visible_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert is_visible(text)

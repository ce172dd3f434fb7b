"""Suggests a known word for one that is not: `did you mean …?`, within bounds, because to compare words is dear."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import SequenceMatcher

MOST_WORK = 1_000_000  # units for the hints of one document: about a second
LONGEST_SUGGESTED = 40  # characters of a word for which another is suggested: longer ones cost too much to compare
ALIKE = 0.7  # of two words, for one to be suggested in place of the other
FEW = 12  # words that a hint lists; a longer list helps nobody


class Suggestions:
    """The hints of one document; once the work for them is done, there are no more."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        """No work is done yet."""
        self._left = MOST_WORK

    def did_you_mean(self, word: str, known: Collection[str]) -> str:
        """Give a hint that names the closest of the known words, or lists them if they are few; else an empty text."""
        near = self._closest(word, known)
        if near:
            return f"did you mean `{near}`?"
        return f"known are: {', '.join(_in_order(known))}" if 0 < len(known) <= FEW else ""

    def _closest(self, word: str, known: Collection[str]) -> str:
        """Give the word that is most like this one; an empty text where none is, or to look for it costs too much."""
        self._left -= len(known)
        if self._left < 0 or len(word) > LONGEST_SUGGESTED:
            return ""
        best, alike = "", ALIKE
        matcher = SequenceMatcher(b=word)
        for name in _in_order(known):
            self._left -= len(word)
            if self._left < 0:
                return ""
            matcher.set_seq1(name[: 2 * LONGEST_SUGGESTED])
            if matcher.real_quick_ratio() < alike or matcher.quick_ratio() < alike:
                continue
            self._left -= len(word) * len(word)
            ratio = matcher.ratio()
            if (ratio, name) > (alike, best):
                best, alike = name, ratio
        return best


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Give one hint, as `Suggestions` gives it."""
    return Suggestions().did_you_mean(word, known)


def _in_order(words: Collection[str]) -> Sequence[str]:
    """Give words in the author's order, or by the alphabet where they have none."""
    return sorted(words) if isinstance(words, set | frozenset) else tuple(words)

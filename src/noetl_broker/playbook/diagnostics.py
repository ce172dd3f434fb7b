"""Findings about a playbook: what is wrong, where, and what to write instead."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import SequenceMatcher
from typing import Literal, NamedTuple, Protocol

from noetl_broker.errors import PlaybookFault
from noetl_broker.template import MAX_SOURCE_CHARS

Location = tuple[str | int, ...]  # keys and indices from the root of the document
Severity = Literal["error", "warning"]
Position = tuple[int, int]  # line and column, from 1
MOST_WORK = 1_000_000  # units for the hints of one document: about a second
LONGEST_SUGGESTED = 40  # characters: to compare longer words costs too much
ALIKE = 0.7  # least similarity of a suggested word
UNKNOWN_KEY = "unknown-key"  # a code of findings
SHORTEST_MISSPELT = 3  # letters; of shorter words, every other one is near
MEANT = {"if": "when", "json": "data", "assignees": "approvers"}  # words of other languages, or of old
FEW = 16  # known words that a hint lists
NOT_LISTED = "too-many-findings"  # code of the finding that counts the unlisted ones
MOST_FINDINGS = 1_000  # of each severity
PRINTABLE_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong; `line` and `column` count from 1, `hint` says what to write instead."""

    severity: Severity
    code: str
    message: str
    file: str
    line: int
    column: int
    path: str
    hint: str

    def __str__(self) -> str:
        """Give one line in the form that editors can follow."""
        remedy = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.message}{remedy}"

    def as_dict(self) -> dict[str, str | int]:
        """Give the finding as one JSON object."""
        return asdict(self)


class Place(NamedTuple):
    """Where something stands: file, line, column and path in the document."""

    file: str
    line: int
    column: int
    path: str

    def error(self, code: str, message: str, hint: str) -> Finding:
        """Give an error at this place."""
        return Finding(severity="error", code=code, message=message, hint=hint, **self._asdict())


class PlaybookError(PlaybookFault):
    """A playbook cannot be compiled; `findings` holds every error of it."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        first = self.findings[0]
        more = len(self.findings) - 1
        at_least = "at least " if self.findings[-1].code == NOT_LISTED else ""
        rest = f" (and {at_least}{more} more error{'s' if more > 1 else ''})" if more else ""
        super().__init__(f"{first.file}:{first.line}:{first.column}: {first.message}{rest}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybookRules:
    """The operator's rules: step types beyond the built-in ones, and the bounds of a document and its templates.

    With `any_step_type` every type that the broker does not run itself is an action: a registered playbook always runs.
    """

    extra_step_types: frozenset[str] = frozenset()
    any_step_type: bool = False
    max_document_bytes: int = 1 << 20
    max_depth: int = 100
    max_nodes: int = 100_000
    max_templates: int = 10_000
    template_max_source_chars: int = MAX_SOURCE_CHARS
    most_work: int = 3_000_000  # units of about a microsecond, for reading one document
    most_seconds: float = 10.0  # of the processor's time, for the same

    def of_registered(self) -> PlaybookRules:
        """Give the rules for a version in the catalog: it runs, whatever the types of its steps are."""
        return replace(self, any_step_type=True)


class Positions(Protocol):
    """Gives the position in the file of a location in the document."""

    def where(self, location: Location, *, key: bool = False) -> Position:
        """Give line and column, from 1, of the value at `location` (or of its key)."""


class Suggestions:
    """The hints of one document, bounded in work: past the bound there are none."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MOST_WORK

    def did_you_mean(self, word: str, known: Collection[str]) -> str:
        """Give a hint: the closest known word, or all of them if they are few; else an empty text."""
        near = meant if (meant := MEANT.get(word)) in known else self._closest(word, known)
        if near:
            return f"did you mean `{near}`?"
        return f"known are: {', '.join(_in_order(known))}" if 0 < len(known) <= FEW else ""

    def _closest(self, word: str, known: Collection[str]) -> str:
        """Give the most similar word; an empty text if none is similar, or the search costs too much."""
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
            misspelt = is_misspelt(word, name)
            if not misspelt and (matcher.real_quick_ratio() < alike or matcher.quick_ratio() < alike):
                continue
            self._left -= len(word) * len(word)
            ratio = max(matcher.ratio(), ALIKE) if misspelt else matcher.ratio()
            if (ratio, name) > (alike, best):
                best, alike = name, ratio
        return best


@dataclass(slots=True)
class Report:
    """The findings of one document, gathered while it is read."""

    file: str
    positions: Positions
    findings: dict[Finding, None] = field(default_factory=dict)  # a set that keeps its order
    kept: dict[Severity, int] = field(default_factory=lambda: {"error": 0, "warning": 0})
    dropped: dict[Severity, int] = field(default_factory=lambda: {"error": 0, "warning": 0})
    suggestions: Suggestions = field(default_factory=Suggestions)
    registering: bool = False

    def error(self, code: str, location: Location, message: str, hint: str = "", *, key: bool = False) -> None:
        """Add an error; `key`: at the position of the key, not of its value."""
        if self._has_room("error"):
            self._note("error", code, location, self.positions.where(location, key=key), (message, hint))

    def error_at(self, code: str, location: Location, position: Position, message: str, hint: str) -> None:
        """Add an error at a position of which the document has no value yet."""
        if self._has_room("error"):
            self._note("error", code, location, position, (message, hint))

    def warning(self, code: str, location: Location, message: str, hint: str = "", *, key: bool = False) -> None:
        """Add a warning."""
        if self._has_room("warning"):
            self._note("warning", code, location, self.positions.where(location, key=key), (message, hint))

    def warning_at(self, code: str, location: Location, position: Position, message: str, hint: str) -> None:
        """Add a warning at a position inside a value."""
        if self._has_room("warning"):
            self._note("warning", code, location, position, (message, hint))

    def refuse(self, code: str, location: Location, message: str, hint: str = "", *, key: bool = False) -> None:
        """Add an error of registration. It is a warning of a version in the catalog, which runs all the same."""
        add = self.error if self.registering else self.warning
        add(code, location, message, hint, key=key)

    def unknown_key(
        self, location: Location, message: str, known: Collection[str], hint: str = "", otherwise: str = "remove it"
    ) -> None:
        """Refuse a key that is not in `known`.

        `hint` replaces the known key that is suggested; `otherwise` is the hint if no known key is near.
        """
        near = hint or self.suggestions.did_you_mean(str(location[-1]), known)
        self.refuse(UNKNOWN_KEY, location, message, near or otherwise, key=True)

    def place(self, location: Location) -> Place:
        """Give the place of a value, or of the nearest one above it."""
        return Place(self.file, *self.positions.where(location), path_text(location))

    def is_full(self, severity: Severity) -> bool:
        """Whether no more findings of a severity are kept."""
        return self.kept[severity] >= MOST_FINDINGS

    def _has_room(self, severity: Severity) -> bool:
        """Whether one more is kept; if not, count it."""
        full = self.is_full(severity)
        self.dropped[severity] += full
        return not full

    def _note(
        self, severity: Severity, code: str, location: Location, position: Position, text: tuple[str, str]
    ) -> None:
        finding = Finding(
            severity=severity,
            code=code,
            message=text[0],
            file=self.file,
            line=position[0],
            column=position[1],
            path=path_text(location),
            hint=text[1],
        )
        if finding not in self.findings:  # an action is read once for each step that calls it
            self.findings[finding] = None
            self.kept[severity] += 1

    def did_you_mean(self, word: str, known: Collection[str]) -> str:
        """Give a hint for an unknown word; see `Suggestions`."""
        return self.suggestions.did_you_mean(word, known)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that prevent registration, in document order."""
        return tuple(found for found in self.sorted() if found.severity == "error")

    def sorted(self) -> tuple[Finding, ...]:
        """All findings in document order, and how many more there are."""
        found = sorted(self.findings, key=lambda found: (found.line, found.column))
        return (*found, *(self._more(severity, more) for severity, more in self.dropped.items() if more))

    def _more(self, severity: Severity, more: int) -> Finding:
        """Give the finding that counts the unlisted findings."""
        return Finding(
            severity=severity,
            code=NOT_LISTED,
            message=f"… and {more:,} more {severity}s",
            file=self.file,
            line=1,
            column=1,
            path="",
            hint="fix these, and check again",
        )


def path_text(location: Location) -> str:
    """Write a location as an author would: `workflow[2].next[0].when`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and PRINTABLE_KEY.issuperset(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def is_misspelt(word: str, known: str) -> bool:
    """Whether a word is a known one with one letter missing, added, replaced or swapped."""
    word, known = word.lower(), known.lower()
    if min(len(word), len(known)) < SHORTEST_MISSPELT or abs(len(word) - len(known)) > 1:
        return False
    start = next((at for at, (one, other) in enumerate(zip(word, known, strict=False)) if one != other), len(word))
    rest, wanted = word[start:], known[start:]
    return (
        rest[1:] == wanted
        or rest == wanted[1:]
        or rest[1:] == wanted[1:]
        or (rest[:2] == wanted[1::-1] and rest[2:] == wanted[2:])
    )


def json_type_name(value: object) -> str:
    """Name the type of a value for an error message."""
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        (dict, "a mapping"),
        (list, "a list"),
        (str, "a string"),
        ((int, float), "a number"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Give one hint, as `Suggestions` gives it."""
    return Suggestions().did_you_mean(word, known)


def _in_order(words: Collection[str]) -> Sequence[str]:
    """Give words in the author's order; sets in alphabetical order."""
    return sorted(words) if isinstance(words, set | frozenset) else tuple(words)

"""What is wrong with a playbook, and where: findings with a file, a line, a column, a path and a remedy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

from noetl_broker.errors import PlaybookFault
from noetl_broker.playbook.suggestions import Suggestions
from noetl_broker.template import MAX_SOURCE_CHARS

Place = tuple[str | int, ...]  # keys and indices from the root of the document
Severity = Literal["error", "warning"]
Position = tuple[int, int]  # line and column, from 1
NOT_LISTED = "too-many-findings"  # the code of the finding that counts the rest
MOST_FINDINGS = 1_000  # of each severity; a person reads no more, and each costs memory
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
        """Give the line that a person reads, in the form that editors can follow."""
        remedy = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.message}{remedy}"

    def as_dict(self) -> dict[str, str | int]:
        """Give the finding as one JSON object."""
        return asdict(self)


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
class Rules:
    """What the operator allows: step types beyond the built-in ones, and the bounds of a document and its templates."""

    extra_step_types: frozenset[str] = frozenset()
    max_document_bytes: int = 1 << 20
    max_depth: int = 100
    max_nodes: int = 100_000
    max_templates: int = 10_000
    template_max_source_chars: int = MAX_SOURCE_CHARS
    most_work: int = 3_000_000  # units of about a microsecond, for reading one document
    most_seconds: float = 10.0  # of the processor's time, for the same


class Positions(Protocol):
    """What knows where in the file a place of the document stands."""

    def where(self, place: Place, *, key: bool = False) -> Position:
        """Give line and column, from 1, of the value at `place` (or of its key)."""


@dataclass(slots=True)
class Report:
    """The findings of one document, gathered while it is read."""

    file: str
    positions: Positions
    findings: dict[Finding, None] = field(default_factory=dict)  # a set that keeps its order
    kept: dict[Severity, int] = field(default_factory=lambda: {"error": 0, "warning": 0})
    dropped: dict[Severity, int] = field(default_factory=lambda: {"error": 0, "warning": 0})
    suggestions: Suggestions = field(default_factory=Suggestions)

    def error(self, code: str, place: Place, message: str, hint: str = "", *, key: bool = False) -> None:
        """Note what prevents the playbook from being registered; `key`: it stands at the key, not at its value."""
        if self._has_room("error"):
            self._note("error", code, place, self.positions.where(place, key=key), (message, hint))

    def error_at(self, code: str, place: Place, position: Position, message: str, hint: str) -> None:
        """Note an error at a place that is not in the document yet."""
        if self._has_room("error"):
            self._note("error", code, place, position, (message, hint))

    def warning(self, code: str, place: Place, message: str, hint: str = "", *, key: bool = False) -> None:
        """Note what the author probably did not mean."""
        if self._has_room("warning"):
            self._note("warning", code, place, self.positions.where(place, key=key), (message, hint))

    def is_full(self, severity: Severity) -> bool:
        """Whether there are findings enough."""
        return self.kept[severity] >= MOST_FINDINGS

    def _has_room(self, severity: Severity) -> bool:
        """Whether one more is kept; else it is only counted."""
        full = self.is_full(severity)
        self.dropped[severity] += full
        return not full

    def _note(self, severity: Severity, code: str, place: Place, position: Position, text: tuple[str, str]) -> None:
        finding = Finding(
            severity=severity,
            code=code,
            message=text[0],
            file=self.file,
            line=position[0],
            column=position[1],
            path=path_text(place),
            hint=text[1],
        )
        if finding not in self.findings:  # a workbook action is read once for each step that calls it
            self.findings[finding] = None
            self.kept[severity] += 1

    def did_you_mean(self, word: str, known: Collection[str]) -> str:
        """Give a hint for a word that is not known; see `Suggestions`."""
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
        """Say at the head of the document that some findings are not listed."""
        return Finding(
            severity=severity,
            code=NOT_LISTED,
            message=f"… and {more:,} more {severity}s",
            file=self.file,
            line=1,
            column=1,
            path="",
            hint="mend these, and check again",
        )


def path_text(place: Place) -> str:
    """Write a place as an author would: `workflow[2].next[0].when`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and PRINTABLE_KEY.issuperset(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def kind_of(value: object) -> str:
    """Name the JSON type of a value in an author's words."""
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        (dict, "a mapping"),
        (list, "a list"),
        (str, "a string"),
        ((int, float), "a number"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "null")

"""Texts of playbooks line by line: with the findings beside their lines, and what differs between two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from noetl_broker.playbook.diagnostics import Finding

CONTEXT_LINES = 3


class SourceLine(NamedTuple):
    """A line with its number and what is wrong in it."""

    number: int
    text: str
    findings: Sequence[Finding]

    @property
    def severity(self) -> str | None:
        """The severity of its worst finding."""
        found = {finding.severity for finding in self.findings}
        return "error" if "error" in found else "warning" if found else None


class ComparedLine(NamedTuple):
    """A line of a difference with its numbers in both texts; of a `gap`, the text says how many lines are equal."""

    kind: Literal["same", "old", "new", "gap"]
    before: int | None
    after: int | None
    text: str


def lines_with_findings(content: str, findings: Sequence[Finding]) -> list[SourceLine]:
    """The lines of a text; a finding past its end stands at the last line."""
    lines = _lines(content)
    of_line: defaultdict[int, list[Finding]] = defaultdict(list)
    for finding in findings:
        of_line[max(1, min(finding.line, len(lines)))].append(finding)
    return [SourceLine(number, text, of_line.get(number, ())) for number, text in enumerate(lines, start=1)]


def compare_texts(before: str, after: str) -> list[ComparedLine]:
    """The differing lines, with a few equal lines around them; an empty list if the texts are equal."""
    old, new = _lines(before), _lines(after)
    found: list[ComparedLine] = []
    reached = 0
    for group in SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT_LINES):
        if group[0][1] > reached:
            found.append(_gap(group[0][1] - reached))
        for kind, old_from, old_to, new_from, new_to in group:
            if kind == "equal":
                for index, text in enumerate(old[old_from:old_to]):
                    found.append(ComparedLine("same", old_from + index + 1, new_from + index + 1, text))
            else:
                found += [ComparedLine("old", index + 1, None, old[index]) for index in range(old_from, old_to)]
                found += [ComparedLine("new", None, index + 1, new[index]) for index in range(new_from, new_to)]
        reached = group[-1][2]
    if found and reached < len(old):
        found.append(_gap(len(old) - reached))
    return found


def _gap(count: int) -> ComparedLine:
    return ComparedLine("gap", None, None, f"{count:,} equal line{'' if count == 1 else 's'}")


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")

"""Short documents for the tests of playbooks, and their findings."""

from __future__ import annotations

from textwrap import dedent

from noetl_broker.playbook import Finding, Playbook, PlaybookRules, check, compile_playbook

HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: weather, path: examples/weather}\n"
HEAD_LINES = 3
RULES = PlaybookRules()
OF_PROGRAMS = {"bad-code", "no-main", "missing-input", "unused-input"}


def compiled(body: str, rules: PlaybookRules = RULES) -> Playbook:
    """Compile a document with a default head."""
    return compile_playbook(HEAD + dedent(body), rules=rules)


def findings(body: str, rules: PlaybookRules = RULES) -> tuple[Finding, ...]:
    """Check a document with a default head; lines count from the first line of `body`."""
    return check((HEAD + dedent(body)).encode(), file="weather.yaml", rules=rules)


def findings_of(body: str, rules: PlaybookRules = RULES) -> list[str]:
    """Return each finding as `line:column severity code path: message (hint)`, with lines of `body`.

    Not those of programs, nor of a choice without `else`: most tests write `code: x`, and no `else`.
    """
    left_out = {*OF_PROGRAMS, "no-else"}
    return [as_line(found, -HEAD_LINES) for found in findings(body, rules) if found.code not in left_out]


def findings_of_programs(body: str) -> list[str]:
    """Return each finding in the same form, those of programs and choices too."""
    return [as_line(finding, -HEAD_LINES) for finding in findings(body)]


def document_findings(source: str | bytes, rules: PlaybookRules = RULES) -> list[str]:
    """Return each finding of a whole document in the same form."""
    data = source if isinstance(source, bytes) else dedent(source).encode()
    return [as_line(finding, 0) for finding in check(data, file="weather.yaml", rules=rules)]


def as_line(finding: Finding, shift: int) -> str:
    """Return a finding as one line."""
    return (
        f"{finding.line + shift}:{finding.column} {finding.severity} {finding.code} {finding.path}: "
        f"{finding.message} ({finding.hint})"
    )

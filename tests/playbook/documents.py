"""Short documents for the tests of playbooks, and what is said of them."""

from __future__ import annotations

from textwrap import dedent

from noetl_broker.playbook import Finding, Playbook, Rules, check, compile_playbook

HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: weather, path: examples/weather}\n"
HEAD_LINES = 3
RULES = Rules()


def compiled(body: str, rules: Rules = RULES) -> Playbook:
    """Compile a document whose head is given."""
    return compile_playbook(HEAD + dedent(body), rules=rules)


def findings(body: str, rules: Rules = RULES) -> tuple[Finding, ...]:
    """Check a document whose head is given; lines count from the first of `body`."""
    return check((HEAD + dedent(body)).encode(), file="weather.yaml", rules=rules)


def told(body: str, rules: Rules = RULES) -> list[str]:
    """Give each finding as `line:column severity code path: message (hint)`, lines counted from the first of `body`."""
    return [one(finding, -HEAD_LINES) for finding in findings(body, rules)]


def told_whole(source: str | bytes, rules: Rules = RULES) -> list[str]:
    """Give each finding of a whole document, in the same form."""
    data = source if isinstance(source, bytes) else dedent(source).encode()
    return [one(finding, 0) for finding in check(data, file="weather.yaml", rules=rules)]


def one(finding: Finding, shift: int) -> str:
    """Write one finding on one line."""
    return (
        f"{finding.line + shift}:{finding.column} {finding.severity} {finding.code} {finding.path}: "
        f"{finding.message} ({finding.hint})"
    )

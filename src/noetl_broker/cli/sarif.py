"""Findings as SARIF 2.1.0, the format that code hosts and editors read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from noetl_broker.playbook.codes import MEANINGS
from noetl_broker.playbook.diagnostics import Finding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
STDIN = "-"


def as_sarif(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """One run of this version of the program: a rule for each code, a result for each finding."""
    codes = sorted({found.code for found in findings})
    indexes = {code: index for index, code in enumerate(codes)}
    driver = {
        "name": "noetl-broker",
        "semanticVersion": version,
        "rules": [_rule(code, [found.hint for found in findings if found.code == code]) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(found, indexes[found.code]) for found in findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str, hints: Sequence[str]) -> dict[str, Any]:
    """Describe a code; its help has the hints of this run's findings."""
    meaning = MEANINGS.get(code, code)
    remedies = [f"- {hint}" for hint in dict.fromkeys(hints) if hint]
    return {
        "id": code,
        "shortDescription": {"text": meaning},
        "help": {"text": "\n".join([meaning, *remedies])},
    }


def _result(found: Finding, rule: int) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(found.file)},
            "region": {"startLine": found.line, "startColumn": found.column},
        }
    }
    if found.path:
        location["logicalLocations"] = [{"fullyQualifiedName": found.path}]
    remedy = f" ({found.hint})" if found.hint else ""
    return {
        "ruleId": found.code,
        "ruleIndex": rule,
        "level": found.severity,
        "message": {"text": found.message + remedy},
        "locations": [location],
    }


def _uri(file: str) -> str:
    """The address of a file: relative as it was named, else `file:`. A code host finds it in the checkout."""
    if file == STDIN:
        return "stdin"
    if PurePath(file).is_absolute():
        return Path(file).as_uri()
    return quote(PurePath(file).as_posix())

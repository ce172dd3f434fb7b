"""Findings as SARIF 2.1.0, the form in which code hosts and editors take what a linter found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from noetl_broker import __version__
from noetl_broker.playbook import Finding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
STDIN = "-"

# What each code means, for whoever reads the finding far from the program.
RULES: dict[str, str] = {
    "alias-bomb": "Aliases make the document far larger than its text.",
    "bad-inputs": "Inputs are a mapping, or one template that gives one.",
    "bad-iterator": "An iterator has a collection, an element and a task, and keys with bounds.",
    "bad-key": "A key of a mapping is a string.",
    "bad-name": "A name is a string that may stand in a node's id.",
    "bad-next": "`next` is a step's name, a mapping with a target, or a list of them.",
    "bad-retry": "`retry` is a boolean, a number of attempts, or a mapping of known keys with bounds.",
    "bad-template": "A text with templates in it compiles.",
    "bad-type": "The type of a step is one name.",
    "bad-value": "A value is of the kind and within the bounds that its key allows.",
    "bad-when": "A condition is one expression that the broker can decide.",
    "code-template": "Templates in program text are not rendered.",
    "doubled-text": "A program text stands under one of its words.",
    "duplicate-action": "The actions of the workbook have different names.",
    "duplicate-key": "A key stands once in a mapping.",
    "duplicate-step": "The steps of the workflow have different names.",
    "end-with-next": "Nothing comes after `end`.",
    "endless-loop": "A loop has a conditional way out.",
    "join-input": "Two transitions into one join give different inputs.",
    "long-name": "Names and paths are short enough for the indexes of the tables.",
    "merge-key": "Merge keys of YAML are not read.",
    "missing-key": "A key that is required is there.",
    "mixed-visits": "A template reads one visit's result, not the latest of many.",
    "next-to-start": "No transition leads back to `start`.",
    "no-code": "A python step has code.",
    "no-result": "A template reads the result of a step that can have one there.",
    "no-start": "The workflow has a step `start`.",
    "not-utf8": "The document is UTF-8.",
    "not-yaml": "The document is YAML.",
    "only-else": "An `else` stands in a list with a condition.",
    "overlapping-when": "Of two conditions at most one is true, unless both transitions are meant.",
    "router-ring": "A loop has a step with an action.",
    "several-documents": "A file holds one document.",
    "shadowed-name": "A step or an element does not hide a word that templates use.",
    "too-deep": "The document is not nested too deep.",
    "too-large": "The document is within the size limit.",
    "too-many-findings": "The document has no more than a thousand errors, and as many warnings.",
    "too-many-nodes": "The document has not too many values.",
    "unfinished-default": "What the broker evaluates reads no default that only a worker can finish.",
    "too-many-templates": "The document has not too many templates.",
    "too-much-work": "The document is read with a bounded amount of work.",
    "unfinished-input": "What the broker evaluates reads no input that only a worker can finish.",
    "unknown-action": "A workbook step names an action of the workbook.",
    "unknown-key": "Each key means something where it stands.",
    "unknown-name": "A template names a step, a workload key, an input or a scope word.",
    "unknown-step": "A transition leads to a step that exists.",
    "unknown-type": "A step's type is built in, or in the setting extra_step_types.",
    "unreachable": "A path from `start` leads to each step.",
    "unused-key": "Each key is read where it stands.",
    "worker-word": "What the broker evaluates names no word that only a worker knows.",
    "wrong-type": "A value is of the kind that its key asks for.",
    "wrong-value": "A value is the one that its key asks for.",
}


def as_sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    """Give one run with a rule for each code that was found, and a result for each finding."""
    codes = sorted({found.code for found in findings})
    places = {code: place for place, code in enumerate(codes)}
    driver = {
        "name": "noetl-broker",
        "semanticVersion": __version__,
        "rules": [_rule(code, [found.hint for found in findings if found.code == code]) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(found, places[found.code]) for found in findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str, hints: Sequence[str]) -> dict[str, Any]:
    """Describe a code; its help repeats what to write instead, as far as this run has found it."""
    meaning = RULES.get(code, code)
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
    """Give a file as it was named: relative, which a code host lays over its checkout, or as a file's address."""
    if file == STDIN:
        return "stdin"
    if PurePath(file).is_absolute():
        return Path(file).as_uri()
    return quote(PurePath(file).as_posix())

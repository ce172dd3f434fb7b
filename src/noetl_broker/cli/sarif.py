"""Findings as SARIF 2.1.0, the format that code hosts and editors read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from noetl_broker import __version__
from noetl_broker.playbook import Finding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
STDIN = "-"

# The meaning of each code.
RULES: dict[str, str] = {
    "alias-bomb": "Aliases make the document far larger than its text.",
    "bad-approval": "An approval has a title, a form and the time that a person has.",
    "bad-block": "A block stands on a playbook step, which has no other playbook and no version.",
    "bad-catch": "An entry of a catch has a target or a result, and a condition that compiles.",
    "bad-code": "The code of a python step must compile.",
    "bad-fail": "A step that fails has an error, and no other attempts.",
    "bad-form": "A form has a supported JSON Schema for each field.",
    "bad-inputs": "Inputs must be a mapping, or one template that gives a mapping.",
    "bad-iterator": "An iterator needs a collection, an element and a task; its other keys have bounds.",
    "bad-key": "A key of a mapping must be a string.",
    "bad-name": "A name must be a string without the characters that node ids reserve.",
    "bad-next": "`next` must be a step's name, a mapping with a target, or a list of them.",
    "bad-join": "`join` must be a word, or a mapping with `need` and `losers`; enough tokens must be able to arrive.",
    "bad-output": "An iterator has no output of its own.",
    "bad-path": "The path of a playbook has no mark of a block.",
    "bad-retry": "`retry` must be a boolean, a number of attempts, or a mapping of known keys with bounds.",
    "bad-schedule": "A schedule needs a name, and a cron text or a span.",
    "bad-schema": "A schema must have supported keywords of JSON Schema, with values of their types.",
    "bad-template": "A template must compile.",
    "bad-throttle": "A throttle has a name, a number of jobs or a rate, and stands where jobs are.",
    "bad-type": "A step must have one type, given as a name.",
    "bad-value": "A value must have the type of its key and be within its bounds.",
    "bad-wait": "A wait has one thing that it waits for; its other keys belong to that.",
    "bad-when": "A condition must be one expression that the broker can evaluate.",
    "code-template": "Templates in program text are not rendered.",
    "constant-key": "A limit should count by a value of the workload, or by none.",
    "dead-catch": "An entry of a catch can never be taken.",
    "deferred-read": "Only a field or an input of a worker's step may read what only a worker can render.",
    "doubled-text": "A program text must be given under one key only.",
    "duplicate-action": "The actions of a workbook must have different names.",
    "duplicate-key": "A mapping must not repeat a key.",
    "duplicate-step": "The steps of a workflow must have different names.",
    "end-with-catch": "The step `end` must not have a catch.",
    "end-with-next": "The step `end` must not have transitions.",
    "endless-loop": "A loop needs a conditional way out.",
    "join-input": "Two transitions into one join must give different inputs.",
    "long-name": "A name or path is too long for an index of the tables.",
    "merge-key": "YAML merge keys (`<<`) are not supported.",
    "missing-input": "Each parameter of `main` needs an input or a default.",
    "missing-key": "A required key is missing.",
    "mixed-visits": "A template reads the latest of several visits; it should read one visit's result.",
    "next-to-start": "A transition must not lead back to `start`.",
    "no-code": "A python step needs code.",
    "no-else": "If no condition of a choice is true, its branch ends without a word.",
    "no-main": "The code of a python step must define `main`.",
    "no-result": "A template reads the result of a step that has none at that point.",
    "no-start": "A workflow needs a step `start`.",
    "not-utf8": "The document must be UTF-8.",
    "not-yaml": "The document must be valid YAML.",
    "only-else": "An `else` needs a condition in the same list.",
    "overlapping-when": "Two conditions may be true at once, so both transitions may be taken.",
    "router-cycle": "A loop needs a step with an action.",
    "several-documents": "A file must hold one document.",
    "shadowed-name": "The name of a step or an element hides a word that templates use.",
    "too-deep": "The document is nested too deeply.",
    "too-large": "The document is larger than the limit.",
    "too-many-findings": "Only the first thousand errors and warnings each are listed.",
    "too-many-nodes": "The document has too many values.",
    "too-many-templates": "The document has too many templates.",
    "too-much-work": "The document takes too much work to read.",
    "unknown-action": "A workbook step must name an action of the workbook.",
    "unknown-key": "The key has no meaning at this place.",
    "unknown-name": "A template names something that is no step, workload key, input or scope word.",
    "unknown-playbook": "A playbook that a step calls should be registered before it runs.",
    "unknown-step": "A transition must lead to an existing step.",
    "unknown-type": "A step's type must be built in, or one of your own workers.",
    "unreachable": "No path from `start` leads to the step.",
    "unused-input": "An input is not read.",
    "unused-key": "The key is not read at this place.",
    "worker-word": "The broker cannot evaluate a word that only a worker knows.",
    "wrong-type": "The value has the wrong type for its key.",
    "wrong-value": "The value is not one that its key allows.",
}


def as_sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    """Give one run with a rule for each code and a result for each finding."""
    codes = sorted({found.code for found in findings})
    indexes = {code: index for index, code in enumerate(codes)}
    driver = {
        "name": "noetl-broker",
        "semanticVersion": __version__,
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
    """The address of a file: relative as it was named, so that a code host finds it in the checkout, else `file:`."""
    if file == STDIN:
        return "stdin"
    if PurePath(file).is_absolute():
        return Path(file).as_uri()
    return quote(PurePath(file).as_posix())

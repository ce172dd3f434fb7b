"""`validate --sarif`: findings in the format of code hosts and editors."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import noetl_broker
from noetl_broker.playbook import PlaybookRules, check
from noetl_broker.playbook.codes import MEANINGS
from tests.cli.conftest import Command, write_playbook

PACKAGE = Path(noetl_broker.__file__).parent
REPORTING = {"error", "error_at", "warning", "_error", "_fail", "fail"}
ODD = """\
workflow:
  - {step: start, next: nowhere}
  - {step: end, save: {data: 1}}
"""


def run_of(printed: str) -> dict[str, Any]:
    """Give the single run of a document."""
    document = json.loads(printed)
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    return dict(run)


def test_each_finding_is_a_result_with_its_place_and_its_rule(lone_command: Command) -> None:
    """Level, message with the remedy, line and column from 1, the path in the document; the rule has an example."""
    file = write_playbook(lone_command.folder, ODD)
    answer = lone_command("validate", "--sarif", file)
    assert answer.exit_code == 1
    run = run_of(answer.stdout)
    assert run["results"][0] == {
        "ruleId": "unknown-step",
        "ruleIndex": 0,
        "level": "error",
        "message": {"text": "there is no step `nowhere` (known are: start, end)"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": file.as_uri()},
                    "region": {"startLine": 5, "startColumn": 25},
                },
                "logicalLocations": [{"fullyQualifiedName": "workflow[0].next"}],
            }
        ],
    }
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == ["unknown-step", "unused-key"]
    text = "The key is not read at this place."
    remedy = "write type: save; without it, `data` is only the execution's result"
    assert rules[1] == {
        "id": "unused-key", "shortDescription": {"text": text}, "help": {"text": f"{text}\n- {remedy}"},
    }  # fmt: skip
    assert [result["level"] for result in run["results"]] == ["error", "warning"]
    strict = run_of(lone_command("validate", "--sarif", file, "--strict").stdout)
    assert [result["level"] for result in strict["results"]] == ["error", "error"]
    lone_command.refuses([(f"validate --sarif --json {file}", 2, "--json and --sarif exclude each other: give one")])


def test_a_relative_file_stays_relative(lone_command: Command) -> None:
    """So that a code host finds it in its checkout; special characters are escaped."""
    write_playbook(lone_command.folder, ODD, path="an odd one")
    location = run_of(lone_command("validate", "--sarif", "an odd one.yaml").stdout)["results"][0]["locations"][0]
    assert location["physicalLocation"]["artifactLocation"] == {"uri": "an%20odd%20one.yaml"}


def test_a_good_playbook_is_a_run_without_results(lone_command: Command) -> None:
    """With an empty list a code host closes earlier findings."""
    file = write_playbook(lone_command.folder, "workflow: [{step: start, next: end}, {step: end}]\n")
    answer = lone_command("validate", "--sarif", file)
    assert (answer.exit_code, run_of(answer.stdout)["results"]) == (0, [])


def test_every_code_has_a_rule() -> None:
    """The table has exactly the codes of the sources."""
    texts = {
        node.value
        for source in (PACKAGE / "playbook").rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert MEANINGS.keys() - texts == set()
    called = {
        node.args[0].value
        for source in (PACKAGE / "playbook").rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in REPORTING
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }
    assert called - MEANINGS.keys() == set()
    assert {found.code for found in check(b"- 1", file="list", rules=PlaybookRules())} <= MEANINGS.keys()

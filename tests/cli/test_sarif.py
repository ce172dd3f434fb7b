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


def test_each_finding_is_a_result_with_its_place(lone_command: Command) -> None:
    """Level, message with the remedy, line and column from 1, and the path in the document."""
    file = write_playbook(lone_command.folder, ODD)
    answer = lone_command("validate", "--sarif", file)
    assert answer.exit_code == 1
    assert run_of(answer.stdout)["results"][0] == {
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


def test_sarif_lists_the_rules_of_its_findings(lone_command: Command) -> None:
    """Each result points at its rule, which has an explanation and an example."""
    run = run_of(lone_command("validate", "--sarif", write_playbook(lone_command.folder, ODD)).stdout)
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == ["unknown-step", "unused-key"]
    assert rules[1] == {
        "id": "unused-key",
        "shortDescription": {"text": "The key is not read at this place."},
        "help": {
            "text": "The key is not read at this place.\n"
            "- write type: save; without it, `data` is only the execution's result"
        },
    }


def test_a_relative_file_stays_relative(lone_command: Command) -> None:
    """So that a code host finds it in its checkout; special characters are escaped."""
    write_playbook(lone_command.folder, ODD, path="an odd one")
    answer = lone_command.run("validate", "--sarif", "an odd one.yaml")
    location = run_of(answer.stdout)["results"][0]["locations"][0]
    assert location["physicalLocation"]["artifactLocation"] == {"uri": "an%20odd%20one.yaml"}


def test_strict_raises_the_level(lone_command: Command) -> None:
    """As in the other formats."""
    file = write_playbook(lone_command.folder, ODD)
    levels = [
        [result["level"] for result in run_of(lone_command("validate", "--sarif", file, *strict).stdout)["results"]]
        for strict in ((), ("--strict",))
    ]
    assert levels == [["error", "warning"], ["error", "error"]]


def test_a_good_playbook_is_a_run_without_results(lone_command: Command) -> None:
    """With an empty list a code host closes earlier findings."""
    file = write_playbook(lone_command.folder, "workflow: [{step: start, next: end}, {step: end}]\n")
    answer = lone_command("validate", "--sarif", file)
    assert (answer.exit_code, run_of(answer.stdout)["results"]) == (0, [])


def test_json_and_sarif_exclude_each_other(lone_command: Command) -> None:
    """Both together are a usage error."""
    answer = lone_command("validate", "--sarif", "--json", write_playbook(lone_command.folder, ODD))
    assert answer.exit_code == 2
    assert answer.stderr == "noetl-broker: --json and --sarif exclude each other: give one of them\n"


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

"""docs/editor.md: its commands run, and its settings name the file that they write."""

from __future__ import annotations

import json
import re
from pathlib import Path

from noetl_broker.playbook import PlaybookRules, check
from tests.docs.shell import run_script

PAGE = (Path(__file__).parents[2] / "docs" / "editor.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
EXAMPLE, SETTINGS = (
    re.findall(rf"^```{form}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0] for form in ("yaml", "json")
)
FILE = "noetl-playbook.schema.json"


def test_every_command_runs(tmp_path: Path) -> None:
    """In order, beside the page's playbook."""
    (tmp_path / "hello.yaml").write_text(EXAMPLE, encoding="utf-8")
    printed = [run_script(command, tmp_path).stdout for command in COMMANDS]
    schema = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert printed == ["", "", "hello.yaml: ok\n", ""]
    assert "dbt" in schema["$defs"]["StepModel"]["properties"]["type"]["enum"]
    assert json.loads((tmp_path / "findings.sarif").read_text(encoding="utf-8"))["runs"][0]["results"] == []


def test_the_example_and_the_settings_name_the_schema() -> None:
    """By the name that the first command writes."""
    assert EXAMPLE.splitlines()[0] == f"# yaml-language-server: $schema={FILE}"
    assert [*json.loads(SETTINGS)["yaml.schemas"]] == [f"./{FILE}"]
    assert check(EXAMPLE, file="page", rules=PlaybookRules()) == ()

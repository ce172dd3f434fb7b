"""docs/editor.md: its commands run, and its settings name the file that they write."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from noetl_broker.playbook import PlaybookRules, check

PAGE = (Path(__file__).parents[2] / "docs" / "editor.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
EXAMPLE, SETTINGS = (
    re.findall(rf"^```{form}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0] for form in ("yaml", "json")
)
FILE = "noetl-playbook.schema.json"


def test_every_command_runs(tmp_path: Path) -> None:
    """In order, beside the page's playbook."""
    (tmp_path / "hello.yaml").write_text(EXAMPLE, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NOETL_BROKER_", "PG"))}
    printed = [
        subprocess.run(
            ["/bin/sh", "-ec", command.replace("noetl-broker ", f"{sys.executable} -m noetl_broker ")],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in COMMANDS
    ]
    schema = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert printed == ["", "", "hello.yaml: ok\n", ""]
    assert "dbt" in schema["$defs"]["StepModel"]["properties"]["type"]["enum"]
    assert json.loads((tmp_path / "findings.sarif").read_text(encoding="utf-8"))["runs"][0]["results"] == []


def test_the_example_and_the_settings_name_the_schema() -> None:
    """By the name that the first command writes."""
    assert EXAMPLE.splitlines()[0] == f"# yaml-language-server: $schema={FILE}"
    assert [*json.loads(SETTINGS)["yaml.schemas"]] == [f"./{FILE}"]
    assert check(EXAMPLE, file="page", rules=PlaybookRules()) == ()

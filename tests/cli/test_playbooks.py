"""`validate` and `register`: findings for people and programs, and versions in the catalog."""

from __future__ import annotations

import json

from tests.cli.conftest import Command, rows, write_playbook
from tests.postgres import Database

GOOD = """\
workflow:
  - {step: start, next: end}
  - {step: end, result: {answer: 42}}
"""
BAD = """\
workflow:
  - {step: start, next: nowhere}
  - {step: end}
"""
# A loop that no condition leaves: runs, but was hardly meant.
ODD = """\
workflow:
  - {step: start, next: end}
  - {step: end}
  - {step: lonely, type: python, code: "def main(): return 1"}
"""


def test_a_good_playbook_is_ok(lone_command: Command) -> None:
    """It needs no database to say so."""
    file = write_playbook(lone_command.folder, GOOD)
    answer = lone_command("validate", file)
    assert (answer.exit_code, answer.stdout) == (0, f"{file}: ok\n")


def test_an_error_is_told_with_its_place(lone_command: Command) -> None:
    """In the form that editors follow: file, line, column, severity, sentence."""
    file = write_playbook(lone_command.folder, BAD)
    answer = lone_command("validate", file)
    assert answer.exit_code == 1
    assert answer.stdout.startswith(f"{file}:5:25: error: ")
    assert "nowhere" in answer.stdout


def test_of_thousands_of_errors_a_thousand_are_listed(lone_command: Command) -> None:
    """`register` and `validate` end in seconds, and say how many more there are."""
    targets = ", ".join(f"step_number_{number}" for number in range(12_000))
    steps = "".join(f"  - {{step: stop_number_{number}}}\n" for number in range(3_000))
    file = write_playbook(lone_command.folder, f"workflow:\n  - {{step: start, next: [{targets}]}}\n{steps}")
    answer = lone_command("validate", file)
    lines = answer.stdout.splitlines()
    assert (answer.exit_code, len(lines)) == (1, 1_001)
    assert lines[-1].endswith("error: … and 11,000 more errors (mend these, and check again)")


def test_findings_are_one_list_for_programs(lone_command: Command) -> None:
    """All files in one JSON list of flat objects."""
    files = [write_playbook(lone_command.folder, BAD, path=path) for path in ("a/one", "a/two")]
    answer = lone_command("validate", *files, "--json")
    findings = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert [finding["file"] for finding in findings] == [*map(str, files)]
    assert set(findings[0]) == {"severity", "code", "message", "file", "line", "column", "path", "hint"}


def test_warnings_pass_unless_strict(lone_command: Command) -> None:
    """`--strict` takes them as errors, and names them so."""
    file = write_playbook(lone_command.folder, ODD)
    plain, strict = lone_command("validate", file), lone_command("validate", "--strict", file)
    assert (plain.exit_code, strict.exit_code) == (0, 1)
    assert ": warning: " in plain.stdout
    assert ": error: " in strict.stdout


def test_a_file_that_is_not_there_is_2(lone_command: Command) -> None:
    """A usage error, not a finding."""
    answer = lone_command("validate", "missing.yaml")
    assert answer.exit_code == 2
    assert "missing.yaml" in answer.stderr


def test_registering_makes_a_version(command: Command, database: Database) -> None:
    """The row has the text, and from it the name, the kind and the document."""
    file = write_playbook(command.folder, GOOD)
    answer = command("register", file)
    assert (answer.exit_code, answer.stdout) == (0, "examples/story version 1\n")
    assert rows(
        database, "select path, version, kind, name, content, payload -> 'workflow' -> 1 from noetl.catalog"
    ) == [("examples/story", 1, "Playbook", "story", file.read_text(), {"step": "end", "result": {"answer": 42}})]


def test_the_same_text_makes_no_new_version(command: Command) -> None:
    """Changed text does."""
    file = write_playbook(command.folder, GOOD)
    command("register", file)
    unchanged = command("register", file)
    file.write_text(file.read_text() + "# changed\n")
    changed = command("register", file, "--json")
    assert unchanged.stdout == "examples/story version 1 (unchanged)\n"
    assert [(entry["version"], entry["new"]) for entry in json.loads(changed.stdout)] == [(2, True)]


def test_one_error_registers_nothing(command: Command, database: Database) -> None:
    """All files or none, so that a set of playbooks that call each other stays one set."""
    files = [write_playbook(command.folder, GOOD, path="a/good"), write_playbook(command.folder, BAD, path="a/bad")]
    answer = command("register", *files)
    assert answer.exit_code == 1
    assert "error: " in answer.stderr
    assert answer.stderr.endswith("nothing was registered\n")
    assert rows(database, "select path from noetl.catalog") == []


def test_registering_at_once_gives_each_text_its_version(command: Command, database: Database) -> None:
    """Two operators never get one number."""
    files = []
    for number in range(4):
        folder = command.folder / str(number)
        folder.mkdir()
        file = write_playbook(folder, GOOD)
        file.write_text(f"{file.read_text()}# {number}\n")
        files.append(file)
    processes = [command.start("register", file) for file in files]
    printed = sorted(process.communicate()[0] for process in processes)
    assert printed == [f"examples/story version {number}\n" for number in range(1, 5)]
    assert rows(database, "select count(distinct content) from noetl.catalog") == [(4,)]

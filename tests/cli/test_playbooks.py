"""`validate`, `register` and `schema`: findings for people and programs, versions in the catalog, keys for editors."""

from __future__ import annotations

import json

from noetl_broker.playbook.json_schema import playbook_schema
from tests.cli.conftest import NOWHERE, Command, rows, write_playbook
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
# A loop without an exit condition: valid, but hardly intended.
ODD = """\
workflow:
  - {step: start, next: end}
  - {step: end}
  - {step: lonely, type: python, code: "def main(): return 1"}
"""


def test_findings_have_file_line_and_column(lone_command: Command) -> None:
    """In the form that editors follow; for programs one list of flat objects for all files. No database is needed."""
    good = write_playbook(lone_command.folder, GOOD)
    answer = lone_command("validate", good)
    assert (answer.exit_code, answer.stdout) == (0, f"{good}: ok\n")
    files = [write_playbook(lone_command.folder, BAD, path=path) for path in ("a/one", "a/two")]
    answer = lone_command("validate", *files)
    assert (answer.exit_code, answer.stdout.startswith(f"{files[0]}:5:25: error: ")) == (1, True)
    assert "nowhere" in answer.stdout
    findings = lone_command.json("validate", *files)
    assert [finding["file"] for finding in findings] == [*map(str, files)]
    assert set(findings[0]) == {"severity", "code", "message", "file", "line", "column", "path", "hint"}
    # Warnings pass, unless they are made errors.
    odd = write_playbook(lone_command.folder, ODD)
    plain, strict = lone_command("validate", odd), lone_command("validate", "--strict", odd)
    assert (plain.exit_code, strict.exit_code) == (0, 1)
    assert (": warning: " in plain.stdout, ": error: " in strict.stdout) == (True, True)


def test_of_thousands_of_errors_a_thousand_are_listed(lone_command: Command) -> None:
    """`register` and `validate` end in seconds, and say how many more there are."""
    targets = ", ".join(f"step_number_{number}" for number in range(12_000))
    steps = "".join(f"  - {{step: stop_number_{number}}}\n" for number in range(3_000))
    file = write_playbook(lone_command.folder, f"workflow:\n  - {{step: start, next: [{targets}]}}\n{steps}")
    answer = lone_command("validate", file)
    lines = answer.stdout.splitlines()
    assert (answer.exit_code, len(lines)) == (1, 1_001)
    assert lines[-1].endswith("error: … and 11,000 more errors (fix these, and check again)")


def test_a_missing_file_is_a_usage_error(lone_command: Command) -> None:
    """No finding. For a directory, the error says what to give."""
    folder = lone_command.folder
    directory = f"{folder} is a directory: give files, such as {folder}/*.yaml"
    lone_command.refuses([
        ("validate missing.yaml", 2, "missing.yaml"),
        *((f"{name} {folder}", 2, directory) for name in ("validate", "register")),
    ])  # fmt: skip


def test_registering_makes_a_version(command: Command, database: Database) -> None:
    """The row has the text, and the name, kind and document from it. Only changed text makes another version."""
    file = write_playbook(command.folder, GOOD)
    answer = command("register", file)
    assert (answer.exit_code, answer.stdout) == (0, "examples/story version 1\n")
    assert rows(
        database, "select path, version, kind, name, content, payload -> 'workflow' -> 1 from noetl.catalog"
    ) == [("examples/story", 1, "Playbook", "story", file.read_text(), {"step": "end", "result": {"answer": 42}})]
    assert command("register", file).stdout == "examples/story version 1 (unchanged)\n"
    file.write_text(file.read_text() + "# changed\n")
    assert [(entry["version"], entry["new"]) for entry in command.json("register", file)] == [(2, True)]


def test_a_file_with_an_error_prevents_the_registration_of_all(command: Command, database: Database) -> None:
    """All files or none, so that a set of playbooks that call each other stays one set."""
    files = [write_playbook(command.folder, GOOD, path="a/good"), write_playbook(command.folder, BAD, path="a/bad")]
    answer = command("register", *files)
    assert answer.exit_code == 1
    assert "error: " in answer.stderr
    assert answer.stderr.endswith("nothing was registered\n")
    assert rows(database, "select path from noetl.catalog") == []


def test_registering_at_once_gives_each_text_its_version(command: Command, database: Database) -> None:
    """Two operators never get the same number."""
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


CALLS = """\
workflow:
  - {step: start, next: [a, b, c]}
  - {step: a, type: playbook, path: examples/child}
  - {step: b, type: playbook, path: examples/child, version: 3}
  - {step: c, type: playbook, path: examples/nobody}
"""


def test_validate_looks_for_called_playbooks_in_the_database(command: Command) -> None:
    """And among the files that are validated with it. Without a database nothing is said."""
    parent = write_playbook(command.folder, CALLS, path="examples/parent")
    child = write_playbook(command.folder, "workflow: [{step: start}]\n", path="examples/child")
    answer = command("validate", parent)
    assert answer.exit_code == 0
    assert answer.stdout.count("no playbook `examples/child` is registered") == 2
    assert command("validate", parent, child).stdout.count("is registered") == 1
    command("register", child)
    assert [line.partition(": ")[2] for line in command("validate", parent).stdout.splitlines()] == [
        "warning: the playbook `examples/child` has no version 3 (its latest version is 1)",
        "warning: no playbook `examples/nobody` is registered (register it before the playbook runs)",
    ]
    assert command("validate", "--strict", parent).exit_code == 1
    del command.environment["NOETL_BROKER_DSN"]
    assert "is registered" not in command("validate", parent).stdout


def test_validate_knows_the_step_types_of_the_database(command: Command) -> None:
    """It refuses nothing that `register` accepts. If no database answers, it says so, and checks what needs none."""
    file = write_playbook(command.folder, "workflow: [{step: start, next: a}, {step: a, type: resize}]\n", path="p")
    assert command("validate", file).exit_code == 1
    command("step-type", "add", "resize")
    assert command("validate", file).exit_code == 0
    calling = write_playbook(command.folder, CALLS, path="examples/parent")
    answer = command("validate", calling, "--dsn", NOWHERE)
    assert (answer.exit_code, "checked without the database" in answer.stderr) == (0, True)


def test_schema_prints_the_json_schema(lone_command: Command) -> None:
    """Indented by default, on one line with `--json`."""
    plain, compact = lone_command("schema"), lone_command("schema", "--json")
    assert (plain.exit_code, compact.exit_code) == (0, 0)
    assert json.loads(plain.stdout) == json.loads(compact.stdout) == playbook_schema()
    assert compact.stdout.count("\n") == 1
    assert plain.stdout.startswith('{\n  "')


def test_schema_includes_extra_step_types(lone_command: Command) -> None:
    """From any source of the setting."""
    config = lone_command.folder / "broker.yaml"
    config.write_text("extra_step_types: [dbt]\n", encoding="utf-8")
    schema = json.loads(lone_command("schema", "--config", config).stdout)
    assert schema == playbook_schema(frozenset({"dbt"}))


def test_a_bucket_refuses_a_playbook_with_its_places_and_remedies(
    lone_command: Command, installation: Database
) -> None:
    """All of them. `--new-home` lets a home change."""
    buckets = {"NOETL_BROKER_DSN": installation.dsn, "NOETL_BROKER_SCHEMA": installation.schema}
    file = write_playbook(lone_command.folder, GOOD)
    assert lone_command("register", file, **buckets).exit_code == 0
    text = file.read_text()
    file.write_text(text.replace("metadata: {", "metadata: {bucket: a, ") + "workbook: []\n")
    answer = lone_command("register", file, **buckets)
    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"{file}:3:")
    assert answer.stderr.endswith("(keep it, or register with --new-home)\nnoetl-broker: nothing was registered\n")
    assert lone_command("register", file, "--new-home", **buckets).exit_code == 0

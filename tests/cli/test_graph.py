"""`graph`: playbooks and executions as pictures."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import Command, plain_environment, rows, write_playbook
from tests.diagram.drawn import Drawing
from tests.postgres import Database

FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: [{when: "fetch.n > 1", step: end}, {else: [log]}]}
  - {step: log, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""
HEAD = '---\ntitle: "examples/fetch"\n---\nflowchart TD\n'


@pytest.fixture
def finished(command: Command, database: Database) -> int:
    """Run an execution to its end; give its id."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    started = int(command("start", "examples/fetch").stdout)
    command("run", "--drain")
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    rows(database, "select noetl.complete_job(%s, 'w1', 1, '{\"n\": 2}')", queue_id)
    command("run", "--drain")
    return started


def test_a_file_is_drawn_without_a_database(lone_command: Command) -> None:
    """As Mermaid by default."""
    answer = lone_command("graph", write_playbook(lone_command.folder, FETCH, path="examples/fetch"))
    assert (answer.exit_code, answer.stdout[: len(HEAD)]) == (0, HEAD)


def test_stdin_is_a_file(lone_command: Command) -> None:
    """Its name is a dash."""
    file = write_playbook(lone_command.folder, FETCH, path="examples/fetch")
    program = [sys.executable, "-m", "noetl_broker", "graph", "-"]
    answer = subprocess.run(program, input=file.read_bytes(), env=plain_environment(), capture_output=True, check=True)
    assert answer.stdout.decode().startswith(HEAD)


@pytest.mark.parametrize(
    "options,begins", [((), "<svg"), (("--format", "mermaid"), "---"), (("--format", "svg"), "<svg")]
)
def test_the_format_follows_the_suffix_unless_given(
    lone_command: Command, options: tuple[str, ...], begins: str
) -> None:
    """A name that ends in .svg gives an SVG."""
    file = write_playbook(lone_command.folder, FETCH)
    target = lone_command.folder / "picture.svg"
    answer = lone_command("graph", file, "--output", target, *options)
    assert (answer.exit_code, answer.output) == (0, "")
    assert target.read_text(encoding="utf-8").startswith(begins)


@pytest.mark.parametrize("name", ["picture.mmd", "picture.md", "picture"])
def test_these_suffixes_are_mermaid(lone_command: Command, name: str) -> None:
    """Mermaid's own tools read .mmd."""
    target = lone_command.folder / name
    lone_command("graph", write_playbook(lone_command.folder, FETCH), "--output", target)
    assert target.read_text(encoding="utf-8").startswith("---\n")


def test_a_path_of_the_catalog_is_drawn_in_its_version(command: Command) -> None:
    """The latest version, or the requested one."""
    for target in ("end", "log"):
        body = FETCH.replace("next: fetch}", f"next: {target}}}")
        command("register", write_playbook(command.folder, body, path="examples/fetch"))
    first, latest = command("graph", "examples/fetch", "--version", 1), command("graph", "examples/fetch")
    assert ('title: "examples/fetch version 1"' in first.stdout, "n0 --> n3" in first.stdout) == (True, True)
    assert ('title: "examples/fetch version 2"' in latest.stdout, "n0 --> n2" in latest.stdout) == (True, True)


def test_an_execution_is_drawn_with_its_path(command: Command, finished: int) -> None:
    """Transitions taken and not taken, and the status of each step."""
    drawing = Drawing(command("graph", finished, "--format", "svg").stdout)
    assert {(arc.source, arc.target): arc.fate for arc in drawing.arcs} == {
        ("start", "fetch"): "taken",
        ("fetch", "end"): "taken",
        ("fetch", "log"): "missed",
        ("log", "end"): "missed",
    }
    assert drawing.styles == {"start": "completed", "fetch": "completed", "log": "idle", "end": "completed"}
    assert any(word.startswith(f"execution {finished}: ✓ completed after ") for word in drawing.words)


def test_graph_json_has_nodes_and_arcs(command: Command, finished: int) -> None:
    """One document: for an execution with its state, times and outcomes."""
    found = json.loads(command("graph", finished, "--json").stdout)
    assert (found["execution_id"], found["path"], found["version"], found["status"]) == (
        str(finished),
        "examples/fetch",
        1,
        "COMPLETED",
    )
    assert [(node["step"], node["shape"], node["state"], node["visits"]) for node in found["nodes"]] == [
        ("start", "start", "completed", 1),
        ("fetch", "action", "completed", 1),
        ("log", "action", "unreached", 0),
        ("end", "end", "completed", 1),
    ]
    assert found["nodes"][1]["started_at"] < found["nodes"][1]["ended_at"]
    assert [
        (arc["from"], arc["to"], arc["manner"], arc["condition"], arc["taken"], arc["outcomes"])
        for arc in found["arcs"]
    ] == [
        ("start", "fetch", "plain", None, 1, None),
        ("fetch", "end", "when", "fetch.n > 1", 1, {"true": 1, "false": 0}),
        ("fetch", "log", "else", None, 0, None),
        ("log", "end", "plain", None, 0, None),
    ]


def test_graph_json_of_a_playbook_has_no_states(lone_command: Command) -> None:
    """Only what the playbook says."""
    found = json.loads(lone_command("graph", write_playbook(lone_command.folder, FETCH), "--json").stdout)
    assert "execution_id" not in found
    assert {*found["nodes"][1]}.isdisjoint({"state", "visits", "started_at"})
    assert "taken" not in found["arcs"][0]


@pytest.mark.parametrize(
    "arguments,code,sentence",
    [
        (
            ("nowhere.yaml",),
            2,
            "there is no file nowhere.yaml, and for a path of the catalog: no playbook nowhere.yaml is registered",
        ),
        (("examples/fitch",), 1, 'no playbook examples/fitch is registered; did you mean "examples/fetch"?'),
        (
            ("examples/fetch", "--version", "7"),
            1,
            "no playbook examples/fetch version 7 is registered; its latest version is 1",
        ),
        (("x" * 300,), 1, "no playbook " + "x" * 300 + " is registered"),
        (("5",), 1, "no execution 5; noetl-broker executions lists them"),
        (
            ("99999999999999999999",),
            2,
            "99999999999999999999 is not the id of an execution: ids go from 1 to {largest}",
        ),
        (
            ("5", "--version", "1"),
            2,
            "--version belongs to a PATH of the catalog; an execution keeps the version that it started with",
        ),
        (("{file}", "--version", "1"), 2, "--version belongs to a PATH of the catalog; a file has no versions"),
        (
            ("{file}", "--json", "--format", "svg"),
            2,
            "--json excludes --format and --output: it prints nodes and arcs, they draw them",
        ),
        (
            ("{file}", "--output", "picture.png"),
            2,
            "there is no format .png: name the file .svg, .mmd or .md, or give --format",
        ),
        (
            ("{file}", "--output", "no/where.svg"),
            2,
            "the file no/where.svg cannot be written: No such file or directory",
        ),
    ],
)
def test_graph_refuses_unknown_files_paths_and_formats(
    command: Command, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    """In one sentence, with a suggestion."""
    file = write_playbook(command.folder, FETCH, path="examples/fetch")
    command("register", file)
    answer = command("graph", *(argument.format(file=file) for argument in arguments))
    assert (answer.exit_code, answer.stderr) == (code, f"noetl-broker: {sentence.format(largest=2**63 - 1)}\n")


def test_a_playbook_with_errors_is_not_drawn(lone_command: Command) -> None:
    """The first error is printed with its place."""
    file = write_playbook(lone_command.folder, FETCH.replace("next: fetch}", "next: fitch}"))
    answer = lone_command("graph", file)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"noetl-broker: {file}:5:25: there is no step `fitch`")

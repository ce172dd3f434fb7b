"""`graph`: playbooks and executions as pictures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Command, begin, complete, plain_environment, write_playbook
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
    started = begin(command, database, FETCH, path="examples/fetch")
    complete(database, {"n": 2})
    return started


def test_a_file_is_drawn_without_a_database(lone_command: Command) -> None:
    """As Mermaid by default. A dash is standard input. In JSON there is only what the playbook says."""
    file = write_playbook(lone_command.folder, FETCH, path="examples/fetch")
    answer = lone_command("graph", file)
    assert (answer.exit_code, answer.stdout[: len(HEAD)]) == (0, HEAD)
    program = [sys.executable, "-m", "noetl_broker", "graph", "-"]
    piped = subprocess.run(program, input=file.read_bytes(), env=plain_environment(), capture_output=True, check=True)
    assert piped.stdout.decode() == answer.stdout
    found = lone_command.json("graph", file)
    assert "execution_id" not in found
    assert {*found["nodes"][1]}.isdisjoint({"state", "visits", "started_at"})
    assert "taken" not in found["arcs"][0]


@pytest.mark.parametrize(
    "name, options, begins",
    [
        ("picture.svg", (), "<svg"),
        ("picture.svg", ("--format", "mermaid"), "---"),
        ("picture.svg", ("--format", "svg"), "<svg"),
        *((name, (), "---\n") for name in ("picture.mmd", "picture.md", "picture")),
    ],
)
def test_the_format_follows_the_suffix_unless_given(
    lone_command: Command, name: str, options: tuple[str, ...], begins: str
) -> None:
    """A name that ends in .svg gives an SVG, any other Mermaid."""
    target = lone_command.folder / name
    answer = lone_command("graph", write_playbook(lone_command.folder, FETCH), "--output", target, *options)
    assert (answer.exit_code, answer.output) == (0, "")
    assert target.read_text(encoding="utf-8").startswith(begins)


def test_a_path_of_the_catalog_is_drawn_in_its_version(command: Command) -> None:
    """The latest version, or the requested one."""
    for target in ("end", "log"):
        body = FETCH.replace("next: fetch}", f"next: {target}}}")
        command("register", write_playbook(command.folder, body, path="examples/fetch"))
    first, latest = command("graph", "examples/fetch", "--version", 1), command("graph", "examples/fetch")
    assert ('title: "examples/fetch version 1"' in first.stdout, "n0 --> n3" in first.stdout) == (True, True)
    assert ('title: "examples/fetch version 2"' in latest.stdout, "n0 --> n2" in latest.stdout) == (True, True)


def test_an_execution_is_drawn_with_its_path(command: Command, finished: int) -> None:
    """Transitions taken and not taken, and the status of each step. JSON has its state, times and outcomes too."""
    drawing = Drawing(command("graph", finished, "--format", "svg").stdout)
    assert {(arc.source, arc.target): arc.fate for arc in drawing.arcs} == {
        ("start", "fetch"): "taken",
        ("fetch", "end"): "taken",
        ("fetch", "log"): "missed",
        ("log", "end"): "missed",
    }
    assert drawing.styles == {"start": "completed", "fetch": "completed", "log": "idle", "end": "completed"}
    assert any(word.startswith(f"execution {finished}: ✓ completed after ") for word in drawing.words)
    found = command.json("graph", finished)
    head = [found[key] for key in ("execution_id", "path", "version", "status")]
    assert head == [str(finished), "examples/fetch", 1, "COMPLETED"]
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


def test_graph_refuses_unknown_files_paths_and_formats(command: Command) -> None:
    """In one sentence, with a suggestion. Of a playbook with errors the first is printed with its place."""
    file = write_playbook(command.folder, FETCH, path="examples/fetch")
    command("register", file)
    wrong = write_playbook(command.folder, FETCH.replace("next: fetch}", "next: fitch}"), path="examples/wrong")
    registered = "is registered; its latest version is 1"
    only_a_path = "--version belongs to a PATH of the catalog;"
    command.refuses(
        [
            ("nowhere.yaml", 2, "there is no file nowhere.yaml, and for a path of the catalog: no playbook nowhere"),
            ("examples/fitch", 1, 'no playbook examples/fitch is registered; did you mean "examples/fetch"?'),
            ("examples/fetch --version 7", 1, f"no playbook examples/fetch version 7 {registered}"),
            ("x" * 300, 1, "no playbook " + "x" * 300 + " is registered"),
            ("9" * 20, 2, "9" * 20),
            ("5 --version 1", 2, f"{only_a_path} an execution keeps the version that it started with"),
            (f"{file} --version 1", 2, f"{only_a_path} a file has no versions"),
            (f"{file} --json --format svg", 2, "--json excludes --format and --output: it prints nodes and arcs"),
            (f"{file} --output picture.png", 2, "no format .png: name the file .svg, .mmd or .md, or give --format"),
            (f"{file} --output no/where.svg", 2, "the file no/where.svg cannot be written: No such file or directory"),
            (str(wrong), 1, f"{wrong}:5:25: there is no step `fitch`"),
        ],
        "graph",
    )

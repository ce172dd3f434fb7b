"""docs/graph.md: its commands run, and its tables and pictures are those of the program.

`python -m tests.docs.test_graph_page` draws the pictures again.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from noetl_broker.diagram.build import picture_of_execution, picture_of_playbook
from noetl_broker.diagram.labels import STATES
from noetl_broker.diagram.model import Picture, as_document
from noetl_broker.diagram.svg import render_svg
from noetl_broker.playbook import Playbook, PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from tests.docs.shell import run_script
from tests.paths import path_of
from tests.postgres import Database

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "graph.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
STORY = """
    > execution_start
    > action_completed assess {"amount": 120, "vip": false}
    > action_completed automatic {"handled": "automatically", "fee": 3}
    > action_completed book {"booked": 123, "handled": "automatically"}
"""


def diamond() -> Playbook:
    """The playbook of the page."""
    return compile_playbook((playbooks_folder() / "diamond.yaml").read_bytes(), rules=PlaybookRules())


def pictures() -> dict[str, Picture]:
    """The pictures of the page, by file."""
    return {
        "graph.svg": picture_of_playbook(diamond()),
        "graph-execution.svg": picture_of_execution(diamond(), path_of(diamond(), STORY)),
    }


def rows_of_table(header: str) -> list[list[str]]:
    """The cells of the table with this header."""
    [body] = re.findall(rf"^\| {re.escape(header)} \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]


@pytest.mark.parametrize("file", pictures())
def test_the_pictures_are_up_to_date(file: str) -> None:
    """Exactly."""
    assert (DOCS / file).read_text(encoding="utf-8") == render_svg(pictures()[file])


def test_the_page_shows_the_pictures() -> None:
    """Each has a text of at least 20 characters."""
    assert re.findall(r"!\[[^\]]{20,}\]\((.*?)\)", PAGE) == [*pictures()]


def test_every_command_runs(database: Database, tmp_path: Path) -> None:
    """In a folder with the examples; one is in the catalog."""
    shutil.copytree(playbooks_folder(), tmp_path / "playbooks")
    run_script("\n".join(["noetl-broker register playbooks/diamond.yaml", *COMMANDS]), tmp_path, database)
    assert {file.suffix for file in tmp_path.glob("diamond.*")} == {".svg", ".mmd"}


def test_the_table_of_states_is_that_of_the_program() -> None:
    """Each state has its symbol and its words."""
    listed = dict(rows_of_table("symbol | state"))
    assert {look.symbol for look in STATES.values()} == listed.keys()
    assert [
        look for look in STATES.values() if not {*look.words.split()} <= {*re.findall(r"\w+,?", listed[look.symbol])}
    ] == []


def test_the_table_of_keys_is_that_of_the_program() -> None:
    """Exactly the keys of an execution's document."""
    document = as_document(pictures()["graph-execution.svg"])
    nodes, arcs = document.pop("nodes"), document.pop("arcs")
    listed: dict[str, list[str]] = {}
    for keys, of, _ in rows_of_table("key | of | what"):
        listed.setdefault(of, []).extend(re.findall(r"`(\w+)`", keys))
    assert {of: sorted(keys) for of, keys in listed.items()} == {
        "": sorted(document),
        "node": sorted(nodes[0]),
        "arc": sorted(arcs[0]),
    }


if __name__ == "__main__":
    for name, picture in pictures().items():
        (DOCS / name).write_text(render_svg(picture), encoding="utf-8")

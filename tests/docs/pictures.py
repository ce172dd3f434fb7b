"""Draws the pictures of docs/how-to/graph.md and docs/how-to/cookbook.md: `make docs`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from noetl_broker.diagram.build import picture_of_execution, picture_of_playbook
from noetl_broker.diagram.model import Picture
from noetl_broker.playbook import Playbook, PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from tests.docs.pages import DOCS, read_page
from tests.paths import path_of

STORY = """
    > execution_start
    > action_completed assess {"amount": 120, "vip": false}
    > action_completed automatic {"handled": "automatically", "fee": 3}
    > action_completed book {"booked": 123, "handled": "automatically"}
"""


def pictures() -> Iterator[tuple[Path, Picture]]:
    """Yield each picture with its file."""
    diamond = _example("diamond")
    yield DOCS / "pictures" / "graph.svg", picture_of_playbook(diamond)
    yield DOCS / "pictures" / "graph-execution.svg", picture_of_execution(diamond, path_of(diamond, STORY))
    for name in re.findall(r"^\[`playbooks/(\w+)\.yaml`\]", read_page("cookbook"), re.MULTILINE):
        yield DOCS / "how-to" / "cookbook" / f"{name}.svg", picture_of_playbook(_example(name))


def _example(name: str) -> Playbook:
    return compile_playbook((playbooks_folder() / f"{name}.yaml").read_bytes(), rules=PlaybookRules())

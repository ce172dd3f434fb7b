"""docs/cookbook.md: its excerpts are parts of the examples, and its pictures show them.

`python -m tests.docs.test_cookbook_page` draws the pictures again.
"""

from __future__ import annotations

import re
from textwrap import indent

import pytest

from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.svg import render_svg
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from tests.playbooks.outside import PREPARE
from tests.test_tidy import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "cookbook.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^\[`playbooks/(\w+)\.yaml`\].*?^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


def drawn(name: str) -> str:
    """Return the picture of an example."""
    playbook = compile_playbook((playbooks_folder() / f"{name}.yaml").read_bytes(), rules=PlaybookRules())
    return render_svg(picture_of_playbook(playbook))


@pytest.mark.parametrize("name", RECIPES)
def test_the_picture_is_up_to_date(name: str) -> None:
    """Exactly."""
    assert f"](cookbook/{name}.svg)" in PAGE
    picture = (DOCS / "cookbook" / f"{name}.svg").read_text(encoding="utf-8")
    assert picture == drawn(name), "run python -m tests.docs.test_cookbook_page"


@pytest.mark.parametrize("name", RECIPES)
def test_the_excerpt_is_part_of_the_example(name: str) -> None:
    """Without the indentation."""
    text = (playbooks_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    assert indent(RECIPES[name], "  ", lambda line: bool(line.strip())) in text


def test_the_trigger_is_the_one_that_is_tested() -> None:
    """The statements, whatever their indentation."""
    [statements] = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert " ".join(statements.split()).rstrip(";") in " ".join(PREPARE["payment"].split())


def test_each_picture_has_its_recipe() -> None:
    """And nothing else is in the folder."""
    assert {file.stem for file in (DOCS / "cookbook").iterdir()} == RECIPES.keys()


if __name__ == "__main__":
    (DOCS / "cookbook").mkdir(exist_ok=True)
    for recipe in RECIPES:
        (DOCS / "cookbook" / f"{recipe}.svg").write_text(drawn(recipe), encoding="utf-8")

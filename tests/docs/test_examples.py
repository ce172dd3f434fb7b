"""The playbooks of the pages compile, their stories are what the core decides, and templates give what is shown."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from textwrap import indent

import pytest

from noetl_broker.history.story import play_story
from noetl_broker.playbook import PlaybookRules, check, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.template import Moment, Scope, StepResult, compile_text
from tests.docs.pages import PAGES, README, code_blocks, read_page

TEXTS = {name: read_page(name) for name in PAGES} | {"README.md": README}
# What most examples leave out.
HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: page, path: page}\n"
STORY = re.compile(r"^```yaml workflow\n([^`]*)^```\n+```story\n(.*?)^```", re.DOTALL | re.MULTILINE)
RULES = PlaybookRules(extra_step_types=frozenset({"resize"}))  # of the page about Python


def playbooks(page: str) -> list[str]:
    """Return the playbooks of a page; an example without `workflow` is a part of one."""
    whole = [text for text in code_blocks(page, "yaml") if "apiVersion:" in text]
    return whole + [HEAD + text for text in code_blocks(page, "yaml workflow")]


@pytest.mark.parametrize("name", [name for name, page in TEXTS.items() if playbooks(page)])
def test_the_playbooks_of_a_page_compile(name: str) -> None:
    """They have no error, and no warning that the pages about playbooks do not name."""
    for text in playbooks(TEXTS[name]):
        findings = check(text.encode(), file="page", rules=RULES)
        assert [str(found) for found in findings if found.severity == "error"] == []
        assert [found.code for found in findings if not any(f"`{found.code}`" in page for page in TEXTS.values())] == []


@pytest.mark.parametrize("name", [name for name, page in TEXTS.items() if "```story\n" in page])
def test_the_stories_of_a_page_are_what_the_core_decides(name: str) -> None:
    """Exactly, from the events of each story."""
    stories = STORY.findall(TEXTS[name])
    assert len(stories) == TEXTS[name].count("```story\n")
    for body, story in stories:
        assert play_story(compile_playbook(HEAD + body, rules=PlaybookRules()), story.strip()) == story.strip()


def test_the_replay_that_is_shown_is_what_the_core_decides() -> None:
    """Of one of the examples."""
    story = TEXTS["replay"].partition("$ noetl-broker replay 95")[2].partition("\n")[2].partition("\nexecution ")[0]
    diamond = compile_playbook((playbooks_folder() / "diamond.yaml").read_bytes(), rules=PlaybookRules())
    assert play_story(diamond, story) == story


RECIPES = dict(
    re.findall(r"^\[`playbooks/(\w+)\.yaml`\].*?^```yaml\n(.*?)^```", TEXTS["cookbook"], re.DOTALL | re.MULTILINE)
)


@pytest.mark.parametrize("name", RECIPES)
def test_the_excerpt_of_a_recipe_is_part_of_the_example(name: str) -> None:
    """Without the indentation: tests/playbooks runs the examples."""
    text = (playbooks_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    assert indent(RECIPES[name], "  ", lambda line: bool(line.strip())) in text


TEMPLATES = [
    re.split(r"(?<!\\)\|", row.strip("|"))
    for name in ("playbooks", "playbook-rules")
    for row in TEXTS[name].split("| template | gives |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
]


@pytest.mark.parametrize("template, gives", TEMPLATES)
def test_a_template_gives_what_the_page_says(template: str, gives: str) -> None:
    """With the step and the workload of the page."""
    scope = Scope(
        inputs={},
        steps={"get": StepResult({"temp": 30, "items": [1, 2], "code": "007"})}.get,
        words={},
        workload=lambda: {"limit": 25},
        is_step=("get", "alert"),
        moment=Moment(execution_id=1, turn=1, at=datetime(2026, 1, 1, tzinfo=UTC)),
    )
    source = template.strip(" `").replace("\\|", "|")
    assert compile_text(source, "page").evaluate(scope) == json.loads(gives.strip(" `"))

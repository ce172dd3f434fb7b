"""The pages about playbooks: examples compile, stories are what the core decides, tables are those of the code."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from noetl_broker.broker import draft, iterators
from noetl_broker.history.story import play_story
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.keywords import INPUT_WORDS, OWN_KEYS
from noetl_broker.playbook.lint.lint import check
from noetl_broker.settings import Settings
from noetl_broker.template import Moment, Scope, StepResult, budget, compile_text, engine, grammar
from tests.docs.pages import read_page

PAGES = ("playbooks", "joins", "iterators", "child-playbooks", "failures", "undo", "playbook-rules", "step-types")
PAGE = "\n".join(map(read_page, PAGES))
# What most examples leave out.
HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: page, path: page}\n"
STORY = r"^```yaml workflow\n([^`]*)^```\n+```story\n(.*?)^```"
EXAMPLES = [
    (HEAD if kind else "") + body
    for kind, body in re.findall(r"^```yaml( workflow)?\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
]
STORIES = [(HEAD + body, story.strip()) for body, story in re.findall(STORY, PAGE, re.DOTALL | re.MULTILINE)]
GET: dict[str, Any] = {"temp": 30, "items": [1, 2], "code": "007"}


def _table(head: str) -> dict[str, str]:
    """Return the first two columns of all tables whose first line is `head`."""
    tables = PAGE.split(f"{head}\n|---|---|\n")[1:]
    rows = [row for table in tables for row in table.split("\n\n")[0].splitlines()]
    cells = (re.split(r"(?<!\\)\|", row.strip("|")) for row in rows)
    return {first.strip(): second.strip() for first, second in cells}


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_compiles(example: str) -> None:
    """They have no error, and no warning that the pages do not name."""
    findings = check(example.encode(), file="page", rules=PlaybookRules())
    assert [str(found) for found in findings if found.severity == "error"] == []
    assert [found.code for found in findings if f"`{found.code}`" not in PAGE] == []


@pytest.mark.parametrize("example, story", STORIES)
def test_every_story_is_what_the_core_decides(example: str, story: str) -> None:
    """Exactly, from the events of the story."""
    assert play_story(compile_playbook(example, rules=PlaybookRules()), story) == story


def test_every_story_and_example_is_found() -> None:
    """By the patterns of this file."""
    assert len(STORIES) == PAGE.count("```story\n")
    assert len(EXAMPLES) == PAGE.count("```yaml")


def test_every_step_type_of_the_pages_exists() -> None:
    """The types of the introduction."""
    named = {name for first in _table("| type | what it does |") for name in re.findall(r"`(\w+)`", first)}
    assert named <= {*OWN_KEYS, "workbook"}


def test_the_words_for_inputs_are_in_order() -> None:
    """The weakest first."""
    assert f"`{' < '.join(INPUT_WORDS)}`" in PAGE.replace("\n", " ")


@pytest.mark.parametrize("template, gives", _table("| template | gives |").items())
def test_every_template_gives_what_the_page_says(template: str, gives: str) -> None:
    """With the step and the workload of the page."""
    scope = Scope(
        inputs={},
        steps={"get": StepResult(GET)}.get,
        words={},
        workload=lambda: {"limit": 25},
        is_step=("get", "alert"),
        moment=Moment(execution_id=1, turn=1, at=datetime(2026, 1, 1, tzinfo=UTC)),
    )
    source = template.strip("`").replace("\\|", "|")
    assert compile_text(source, "page").evaluate(scope) == json.loads(gives.strip("`"))


def test_the_bounds_of_templates_are_those_of_the_code() -> None:
    """By the name of a setting, a rule or a constant."""
    settings = Settings.model_fields
    constants = {
        **vars(budget),
        **vars(grammar),
        **vars(engine),
        **vars(draft),
        **vars(iterators),
        **asdict(PlaybookRules()),
    }
    written = {re.findall(r"`(\w+)`", name)[0]: int(value) for name, value in _table("| bound | value |").items()}
    assert {name: settings[name].default if name in settings else constants[name] for name in written} == written


def test_the_page_for_the_first_days_is_short() -> None:
    """What is rare has a page of its own."""
    assert len(read_page("playbooks").splitlines()) <= 350

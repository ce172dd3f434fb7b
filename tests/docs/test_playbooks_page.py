"""The page about playbooks keeps its word: its examples compile, its stories are told so, its tables are the code's."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.broker import draft, iterators
from noetl_broker.broker.story import play
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.findings import Rules
from noetl_broker.playbook.lint import check
from noetl_broker.playbook.vocabulary import CONTROL_TYPES, INPUT_WORDS, OWN_KEYS
from noetl_broker.settings import Settings
from noetl_broker.template import Moment, Scope, StepResult, compile_text, engine, fuel, grammar

PAGE = (Path(__file__).parents[2] / "docs" / "playbooks.md").read_text(encoding="utf-8")
# What the page says that its later examples leave out.
HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: page, path: page}\n"
STORY = r"^```yaml workflow\n([^`]*)^```\n+```story\n(.*?)^```"
EXAMPLES = [
    (HEAD if kind else "") + body
    for kind, body in re.findall(r"^```yaml( workflow)?\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
]
STORIES = [(HEAD + body, told.strip()) for body, told in re.findall(STORY, PAGE, re.DOTALL | re.MULTILINE)]
GET: dict[str, Any] = {"temp": 30, "items": [1, 2], "code": "007"}


def _table(head: str) -> dict[str, str]:
    """Give a table of the page, by its first two columns; `head` is the first line of it."""
    rows = PAGE.split(f"{head}\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    cells = (re.split(r"(?<!\\)\|", row.strip("|")) for row in rows)
    return {first.strip(): second.strip() for first, second in cells}


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_compiles(example: str) -> None:
    """The whole document, and those that leave out its first lines, with no warnings but those that the page names."""
    findings = check(example.encode(), file="page", rules=Rules())
    assert [str(found) for found in findings if found.severity == "error"] == []
    assert [found.code for found in findings if f"`{found.code}`" not in PAGE] == []


@pytest.mark.parametrize("example, told", STORIES)
def test_every_story_is_what_the_core_tells(example: str, told: str) -> None:
    """To the letter, from the events of the story alone."""
    assert play(compile_playbook(example, rules=Rules()), told) == told


def test_no_story_and_no_example_is_left_out() -> None:
    """The patterns of this test find all of them."""
    assert len(STORIES) == PAGE.count("```story\n")
    assert len(EXAMPLES) == PAGE.count("```yaml")


def test_the_table_of_types_is_the_one_of_the_code() -> None:
    """Each type with its own keys, in whatever order."""
    written: dict[str, frozenset[str]] = {}
    for names, keys in _table("| type | its own keys |").items():
        for name in re.findall(r"`(\w+)`", names):
            written[name] = frozenset(re.findall(r"`(\w+)`", keys))
    assert written == dict(OWN_KEYS)
    assert written.keys() >= CONTROL_TYPES


def test_the_words_for_inputs_stand_in_their_order() -> None:
    """The weakest first."""
    assert f"`{' < '.join(INPUT_WORDS)}`" in PAGE.replace("\n", " ")


@pytest.mark.parametrize("template, gives", _table("| template | gives |").items())
def test_every_template_gives_what_the_page_says(template: str, gives: str) -> None:
    """With the step and the workload that the page names."""
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
    """Each by the name that a setting, a rule or a constant has."""
    settings = Settings.model_fields
    constants = {**vars(fuel), **vars(grammar), **vars(engine), **vars(draft), **vars(iterators), **asdict(Rules())}
    written = {re.findall(r"`(\w+)`", name)[0]: int(value) for name, value in _table("| bound | value |").items()}
    assert {name: settings[name].default if name in settings else constants[name] for name in written} == written

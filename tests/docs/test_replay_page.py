"""docs/replay.md: options, story, differences and invariants are those of the program."""

from __future__ import annotations

import re

from noetl_broker.cli.replay.command import replay
from noetl_broker.cli.schema import schema
from noetl_broker.history.compare import Comparison
from noetl_broker.history.story import play_story
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.verify import CHECKS, TABLES, TURNS
from tests.docs.pages import read_page, table_rows
from tests.forks import history_of
from tests.history.test_compare import DIVERGENCES

PAGE = read_page("replay")
DIAMOND = (playbooks_folder() / "diamond.yaml").read_text(encoding="utf-8")
STORY = PAGE.partition("$ noetl-broker replay 95")[2].partition("\n")[2].partition("\nexecution ")[0]


def test_every_option_is_explained() -> None:
    """Options that all commands share are not."""
    shared = {option for parameter in schema.params for option in parameter.opts} | {"--dsn", "--schema"}
    options = [option for parameter in replay.params for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if option not in PAGE and option not in shared] == []


def test_the_shown_story_is_the_one_of_the_example() -> None:
    """Exactly."""
    assert play_story(compile_playbook(DIAMOND, rules=PlaybookRules()), STORY) == STORY


def test_every_kind_of_difference_is_explained() -> None:
    """The kinds are those of the tests of `--against`."""
    listed = {cell for line in re.findall(r"^\| ([^|]+) \|", PAGE, re.MULTILINE) for cell in line.split(", ")}
    assert {divergence.what for *_, divergence in DIVERGENCES} - listed == set()


def test_the_edited_playbook_differs_as_shown() -> None:
    """The history whose amount is 1500 takes another step."""
    history = history_of(compile_playbook(DIAMOND, rules=PlaybookRules()), """
        > execution_start {"amount": 1500}
        > action_completed assess {"amount": 1500, "vip": true}
    """)  # fmt: skip
    edited = DIAMOND.replace("assess.vip }}", "assess.amount >= 2000 }}")
    comparison = Comparison(history, compile_playbook(edited, rules=PlaybookRules()))
    *_, found = map(comparison.apply, history.turns)
    assert found is not None
    step, what, because, was, instead = (getattr(found, name) for name in ("step", "what", "because", "was", "instead"))
    assert re.search(r"\s{2,}".join(map(re.escape, ("1", step, what, because, was, instead))), PAGE)


def test_every_invariant_is_listed() -> None:
    """With its sentence, by number."""
    listed = [tuple(row) for row in table_rows(PAGE, "| invariant |")]
    checks = sorted((*CHECKS, TABLES, TURNS), key=lambda check: int(check.invariant.removeprefix("I")))
    assert listed == [(check.invariant, check.sentence) for check in checks]

"""What the page about operations says of `replay` is what it does."""

from __future__ import annotations

import re
from pathlib import Path

from noetl_broker.broker.against import Comparing
from noetl_broker.broker.story import play
from noetl_broker.cli.frame import COMMON
from noetl_broker.cli.replay import replay
from noetl_broker.playbook import Rules, compile_playbook
from noetl_broker.resources import playbooks_folder
from tests.broker.test_against import PARTINGS
from tests.histories import history_of

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
DIAMOND = (playbooks_folder() / "diamond.yaml").read_text(encoding="utf-8")
STORY = PAGE.partition("$ noetl-broker replay 95")[2].partition("\n")[2].partition("\nexecution ")[0]


def test_every_option_is_explained() -> None:
    """Those that all commands share are explained elsewhere."""
    shared = len(COMMON)
    options = [option for parameter in replay.params[:-shared] for option in parameter.opts if option.startswith("--")]
    section = PAGE.partition("## Replay")[2]
    assert [option for option in options if option not in section] == []


def test_the_story_is_the_examples() -> None:
    """To the letter."""
    assert play(compile_playbook(DIAMOND, rules=Rules()), STORY) == STORY


def test_every_kind_of_parting_is_explained() -> None:
    """As the tests of partings know them."""
    told = {cell for line in re.findall(r"^\| ([^|]+) \|", PAGE, re.MULTILINE) for cell in line.split(", ")}
    assert {parting.what for *_, parting in PARTINGS} - told == set()


def test_the_table_of_the_edited_playbook_is_true() -> None:
    """The history whose amount is 1500 parts as the page shows it."""
    history = history_of(compile_playbook(DIAMOND, rules=Rules()), """
        > execution_start {"amount": 1500}
        > action_completed assess {"amount": 1500, "vip": true}
    """)  # fmt: skip
    edited = DIAMOND.replace("assess.vip }}", "assess.amount >= 2000 }}")
    comparing = Comparing(history, compile_playbook(edited, rules=Rules()))
    *_, found = map(comparing.take, history.turns)
    assert found is not None
    step, what, because, was, instead = (
        getattr(found.parting, name) for name in ("step", "what", "because", "was", "instead")
    )
    assert re.search(r"\s{2,}".join(map(re.escape, ("1", step, what, because, was, instead))), PAGE)

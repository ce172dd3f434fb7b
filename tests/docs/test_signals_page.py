"""docs/signals.md: its playbook decides as its story says, and its limits are right."""

import re

from noetl_broker.broker.model import MAX_SIGNALS
from noetl_broker.broker.signals import MOST_TRIED
from noetl_broker.daemon.matcher import MAX_HOPS
from noetl_broker.history.story import play_story
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.playbook.plain_values import KEY_BYTES, NAME_CHARS
from noetl_broker.playbook.signals import MOST_NAMES
from tests.docs.test_playbooks_page import HEAD, STORY
from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "signals.md").read_text(encoding="utf-8")


def test_the_story_is_what_the_core_decides() -> None:
    """Exactly, from its events."""
    [(body, story)] = re.findall(STORY, PAGE, re.DOTALL | re.MULTILINE)
    assert play_story(compile_playbook(HEAD + body, rules=PlaybookRules()), story.strip()) == story.strip()


def test_the_limits_are_those_of_the_program() -> None:
    """Names, keys, payloads, kept signals, hops."""
    assert f"up to {MOST_NAMES} names" in PAGE
    assert f"a name of {NAME_CHARS} characters, a key of {KEY_BYTES:,} bytes, a payload of 2 MiB" in PAGE
    assert f"{MAX_SIGNALS:,} kept signals" in PAGE
    assert f"a turn tries {MOST_TRIED};" in PAGE
    assert f"past {MAX_HOPS} it starts nothing" in PAGE

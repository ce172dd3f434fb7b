"""docs/approvals.md: its playbook decides as its story says."""

import re

from noetl_broker.history.story import play_story
from noetl_broker.playbook import PlaybookRules, compile_playbook
from tests.docs.test_playbooks_page import HEAD, STORY
from tests.test_tidy import ROOT

PAGE = (ROOT / "docs" / "approvals.md").read_text(encoding="utf-8")


def test_the_story_is_what_the_core_decides() -> None:
    """Exactly, from its events."""
    [(body, story)] = re.findall(STORY, PAGE, re.DOTALL | re.MULTILINE)
    assert play_story(compile_playbook(HEAD + body, rules=PlaybookRules()), story.strip()) == story.strip()

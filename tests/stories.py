"""Stories as tests: a workflow, the events that come in, and everything that comes of them."""

from __future__ import annotations

from textwrap import dedent

from noetl_broker.broker.model import Rules
from noetl_broker.broker.story import play_turns, read_events, tell
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.playbook.model import Playbook


def playbook(body: str, *, metadata: str = "") -> Playbook:
    """A playbook named `story` with this workload and workflow; `metadata` such as "max_visits: 3"."""
    extra = f", {metadata}" if metadata else ""
    head = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{name: story, path: story{extra}}}\n"
    return compile_playbook(head + dedent(body), rules=PlaybookRules())


def assert_story(body: str, story: str, *, metadata: str = "", rules: Rules | None = None) -> None:
    """The events of the story (its lines with `>`) through the core give the story, to the letter.

    And no turn changes what came in or what others said.
    """
    expected = dedent(story).strip()
    events = [*read_events(expected)]
    given, turns, told = repr(events), [], []
    for turn in play_turns(playbook(body, metadata=metadata), events, rules=rules):
        turns.append(turn)
        told.append(repr(turn))
    assert tell((event, decision) for event, decision, _ in turns) == expected
    assert (repr(events), [*map(repr, turns)]) == (given, told)

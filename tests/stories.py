"""Stories as tests: a workflow, its events, and everything that the core decides on them."""

from __future__ import annotations

from textwrap import dedent

from noetl_broker.broker.model.rules import Rules
from noetl_broker.history.story import format_story, play_story, play_turns, read_events
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Playbook


def dedented(text: str) -> str:
    """Return the lines of a text in a test, without indentation and without empty lines around them."""
    return dedent(text).strip("\n")


def document(body: str, *, path: str = "story", metadata: str = "") -> str:
    """Return the text of a playbook with this workload and workflow; `metadata` such as "max_visits: 3"."""
    extra = f", {metadata}" if metadata else ""
    head = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{name: {path}, path: {path}{extra}}}\n"
    return head + dedent(body)


def playbook(body: str, *, metadata: str = "") -> Playbook:
    """Return a playbook named `story`; arguments as of `document`."""
    return compile_playbook(document(body, metadata=metadata), rules=PlaybookRules())


def assert_story(body: str, story: str, *, metadata: str = "", rules: Rules | None = None) -> None:
    """Assert that the core decides exactly this story, and that no turn changes an event or an earlier decision."""
    expected = dedent(story).strip()
    events = [*read_events(expected)]
    events_before, turns, turns_before = repr(events), [], []
    for turn in play_turns(playbook(body, metadata=metadata), events, rules=rules):
        turns.append(turn)
        turns_before.append(repr(turn))
    told = format_story((event, decision) for event, decision, _ in turns)
    assert told.splitlines() == expected.splitlines()
    assert (repr(events), [*map(repr, turns)]) == (events_before, turns_before)


def last_turn(body: str, story: str, *, metadata: str = "", rules: Rules | None = None) -> list[str]:
    """Return what the core decides on the last event of a story, line by line."""
    told = play_story(playbook(body, metadata=metadata), story, rules=rules)
    return [line.strip() for line in told.rpartition("\n> ")[2].splitlines()[1:]]


def lines_of(text: str) -> list[str]:
    """Return the lines of a text in a test, each without indentation."""
    return [line.strip() for line in text.strip().splitlines()]

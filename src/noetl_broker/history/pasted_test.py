"""A recorded execution as a test to paste, with its playbook and its story."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from textwrap import indent
from typing import Any

import yaml

from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.rules import Rules
from noetl_broker.errors import HistoryFault
from noetl_broker.history.record import History
from noetl_broker.history.story import PortableStory, portable_story
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.playbook.model import Playbook
from noetl_broker.visible import is_visible

HEAD = ("apiVersion", "kind", "metadata", "name", "path")  # the keys that a test's own playbook gets from its helper
WIDTH = 110
MARGIN = " " * 8


def pasted_test(history: History, taken: list[tuple[Event, Decision]], rules: PlaybookRules) -> dict[str, Any]:
    """The document about a test that repeats these turns; `parts_at` is the first turn in which it diverges.

    `rules` are the limits under which the playbook is read. Raises HistoryFault for an execution without a story.
    """
    playbook = history.playbook
    if isinstance(playbook, str):
        raise HistoryFault(history.execution_id, playbook)
    try:
        story = portable_story(playbook, taken, history.rules)
    except ValueError as error:
        raise HistoryFault(history.execution_id, f"it has no story: {error}") from error
    body = _body(playbook, rules)
    return {
        "execution_id": history.execution_id,
        "path": history.path,
        "test": _test(history, playbook, body, story),
        "body": body,
        "story": story.text,
        "parts_at": story.diverges_at,
    }


def _test(history: History, playbook: Playbook, body: str, story: PortableStory) -> str:
    name = re.sub(r"\W+", "_", playbook.name).strip("_").lower()
    status = history.ended.status if history.ended else "RUNNING"
    turns = story.text.count("\n> ") + 1
    arguments = [_literal(body), _literal(story.text)]
    metadata = playbook.document.get("metadata")
    extra = {key: item for key, item in metadata.items() if key not in HEAD} if isinstance(metadata, dict) else {}
    if extra:
        arguments.append(f"metadata={', '.join(f'{key}: {json.dumps(item)}' for key, item in extra.items())!r}")
    changed = {key: item for key, item in asdict(history.rules).items() if item != getattr(Rules(), key)}
    if changed:
        arguments.append(f"rules=Rules({', '.join(f'{key}={item!r}' for key, item in changed.items())})")
    lines = "\n".join(f"        {argument}," for argument in arguments)
    return (
        f"def test_execution_{history.execution_id}_of_{name}() -> None:\n"
        f'    """As it was recorded: {status} after {turns} turns."""\n'
        f"    assert_story(\n{lines}\n    )\n"
    )


def _literal(text: str) -> str:
    """A text as a Python literal over several lines, indented as an argument is: the reader takes the margin away."""
    for quotes in ('"""', "'''") if is_visible(text) else ():
        if quotes not in text:
            return f"r{quotes}\n{indent(text, MARGIN)}\n{MARGIN}{quotes}"
    return repr(text)


def _body(playbook: Playbook, rules: PlaybookRules) -> str:
    """The playbook without its head, written so that a reader gets the same values again."""
    body = {key: item for key, item in playbook.document.items() if key not in HEAD}
    text = yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=False)
    head = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: story, path: story}\n"
    read = compile_playbook(head + text, rules=rules).document
    if all(read.get(key) == item for key, item in body.items()):
        return text.rstrip("\n")
    return "\n".join(f"{key}: {json.dumps(item, ensure_ascii=False)}" for key, item in body.items())


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: text of several lines stands as it is."""


def _dump_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _dump_text)

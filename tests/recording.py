"""Golden histories: recorded executions as JSON, without ids and times, so that recording again changes nothing.

A file holds the executions of one run (an example and its children): the playbooks that they ran on, the events that
came in, and everything that the core decided on each. `make golden` records (tests/golden/record.py), and a test takes
them through the core again (tests/playbooks/test_golden.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.history import History
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import EXECUTION_START, JSON, Decision, Event, Rules, Turn, stored_rules
from noetl_broker.broker.state import ExecutionState, encode
from noetl_broker.broker.story import STORY_START
from noetl_broker.playbook import Playbook, compile_playbook
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.resources import playbooks_folder
from tests.playbooks.test_examples import RUNS

FOLDER = Path(__file__).parent / "golden"


def examples() -> dict[str, str]:
    """The texts of all examples by their paths."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(playbooks_folder().glob("*.yaml"))]
    return {compile_playbook(text, rules=PlaybookRules()).path: text for text in texts}


def runs() -> list[tuple[str, str, JSON]]:
    """Each example with the payloads that are tried with it: the name of the golden file, the path, the payload."""
    found: list[tuple[str, str, JSON]] = []
    for path in examples():
        name = path.rpartition("/")[2]
        payloads = [payload for run, payload, _ in RUNS if run == name] or [{}]
        found += [(f"{name}-{number}", path, payload) for number, payload in enumerate(payloads, 1)]
    return found


def as_document(histories: list[History], texts: dict[str, str]) -> dict[str, Any]:
    """The golden document of the executions of one run, the oldest first; `texts` are their playbooks by path."""
    ordinals = {history.execution_id: number for number, history in enumerate(histories, 1)}
    executions = []
    for history in histories:
        events = [_renumbered(_sparse(_told(turn.event)), ordinals) for turn in history.turns]
        execution = _plain({"path": history.path, "rules": history.rules.pinned(), "events": events})
        executions.append({**execution, **decide(execution, texts, ordinals[history.execution_id])})
    paths = sorted({str(history.path) for history in histories})
    return {"playbooks": {path: texts[path].splitlines() for path in paths}, "executions": executions}


def decide(execution: dict[str, Any], texts: dict[str, str], ordinal: int) -> dict[str, Any]:
    """What the core decides on the events of an execution, and the state that it ends in."""
    playbook = compile_playbook(texts[execution["path"]], rules=PlaybookRules())
    events = [Event(**event) for event in execution["events"]]
    decisions, state = [], ExecutionState()
    for decision, after in _decisions(playbook, events, stored_rules(execution["rules"]), ordinal):
        decisions.append(_sparse(decision))
        state = after
    return _plain({"decisions": decisions, "state": encode(state)})


def write(name: str, document: dict[str, Any]) -> None:
    """Write a golden history to its file."""
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    """Read a golden history from its file."""
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document


def _decisions(
    playbook: Playbook, events: list[Event], rules: Rules, ordinal: int
) -> Iterator[tuple[Decision, ExecutionState]]:
    known, state = Known(rules, complete=True), ExecutionState()
    for number, event in enumerate(events, 1):
        turn = Turn(ordinal, number, STORY_START + timedelta(seconds=number))
        state, decision = take_turn(playbook, state, event, turn, known)
        remember(known, event, turn, decision)
        yield decision, state


def _told(event: Event) -> Event:
    """The event with what the core reads of it alone."""
    parent = event.meta.get("parent") if isinstance(event.meta, dict) else None
    context = event.context
    if event.kind == EXECUTION_START and isinstance(context, dict):
        context = {"workload": context.get("workload")}
    elif not event.kind.startswith("execution"):
        context = None
    return event._replace(meta={"parent": parent} if parent else None, context=context)


def _sparse(value: Any) -> Any:
    """A named tuple as an object without what has its default, and so on inward."""
    if hasattr(value, "_asdict"):
        defaults = value._field_defaults
        return {
            name: _sparse(item)
            for name, item in value._asdict().items()
            if name not in defaults or item != defaults[name]
        }
    if isinstance(value, dict):
        return {key: _sparse(item) for key, item in value.items()}
    return [_sparse(item) for item in value] if isinstance(value, (list, tuple)) else value


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it is when it was written and read again."""
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def _renumbered(value: Any, ordinals: dict[int, int]) -> Any:
    """The value with the ids of executions replaced by their places in the run, without Python's own tracebacks."""
    if isinstance(value, dict):
        return {key: _renumbered(item, ordinals) for key, item in value.items() if key != "traceback"}
    if isinstance(value, list):
        return [_renumbered(item, ordinals) for item in value]
    return ordinals.get(value, value) if type(value) is int else value

"""Golden histories: recorded executions as JSON, without ids and times, so that recording again changes nothing.

A file has the executions of one run, an example and its children: playbooks, events, and what the core decided on each
event. `make golden` records them (tests/golden/record.py). tests/playbooks/test_golden.py decides them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from noetl_broker.broker.core import Session
from noetl_broker.broker.event_types import APPROVAL_DECIDED, EXECUTION_SIGNAL, EXECUTION_START, TIMER_DUE
from noetl_broker.broker.model import JSON, Decision, Event, Rules, stored_rules
from noetl_broker.broker.on_failure import KEY as ON_FAILURE
from noetl_broker.broker.state import ExecutionState, encode
from noetl_broker.history.record import History
from noetl_broker.history.story import STORY_START
from noetl_broker.playbook import Playbook, compile_playbook
from noetl_broker.playbook.blocks import MARK
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.durations import moment_text
from noetl_broker.resources import playbooks_folder
from tests.playbooks.test_examples import RUNS

OF_CONTEXT = frozenset({APPROVAL_DECIDED, TIMER_DUE, EXECUTION_SIGNAL})  # events whose context decides

# Examples that also run with a payload that makes them fail.
FAILING = {"watched_import": {"rows": 0}, "order_refund": {"address": ""}, "order_by_hand": {"address": ""}}
PAUSED = "fan_out_join"  # this example is also run with a pause after its first turn
FOLDER = Path(__file__).parent / "golden"


def examples() -> dict[str, str]:
    """Return the texts of all examples by path."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(playbooks_folder().glob("*.yaml"))]
    return {compile_playbook(text, rules=PlaybookRules()).path: text for text in texts}


def runs() -> list[tuple[str, str, JSON]]:
    """Return each run of an example: the name of its golden file, the path, the payload."""
    found: list[tuple[str, str, JSON]] = []
    for path in examples():
        name = path.rpartition("/")[2]
        payloads = [payload for run, payload, _ in RUNS if run == name] or [{}]
        found += [(f"{name}-{number}", path, payload) for number, payload in enumerate(payloads, 1)]
        if name in FAILING:
            found.append((f"{name}-failed", path, FAILING[name]))
        if name == PAUSED:
            found.append((f"{name}-paused", path, payloads[0]))
    return found


def as_document(histories: list[History], texts: dict[str, str]) -> dict[str, Any]:
    """Return the golden document of one run; its executions are sorted by age, `texts` are playbooks by path."""
    ordinals = {history.execution_id: number for number, history in enumerate(histories, 1)}
    executions = []
    for history in histories:
        events = [_renumbered(_sparse(_read_fields(turn.event)), ordinals) for turn in history.turns]
        execution = _plain({"path": history.path, "rules": history.rules.pinned(), "events": events})
        executions.append({**execution, **decide(execution, texts, ordinals[history.execution_id])})
    paths = sorted({str(history.path).partition(MARK)[0] for history in histories})
    return {"playbooks": {path: texts[path].splitlines() for path in paths}, "executions": executions}


def decide(execution: dict[str, Any], texts: dict[str, str], ordinal: int) -> dict[str, Any]:
    """Return what the core decides on the events of an execution, and the last state."""
    path = execution["path"]
    playbook = compile_playbook(texts[path.partition(MARK)[0]], path=path, rules=PlaybookRules())
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
    session = Session(playbook, rules, execution_id=ordinal)
    for number, event in enumerate(events, 1):
        decision = session.apply(event, STORY_START + timedelta(seconds=number))
        yield decision, session.state


def _read_fields(event: Event) -> Event:
    """Return the event with only those fields that the core reads."""
    parent = event.meta.get("parent") if isinstance(event.meta, dict) else None
    context = event.context
    if event.kind == EXECUTION_START and isinstance(context, dict):
        context = {"workload": context.get("workload")}
    elif event.kind in OF_CONTEXT:
        context = _without_moments(context)
    elif not event.kind.startswith("execution"):
        context = None
    meta = {"parent": parent} if parent else {}
    if isinstance(event.meta, dict) and ON_FAILURE in event.meta:
        meta[ON_FAILURE] = event.meta[ON_FAILURE]
    return event._replace(meta=meta or None, context=context)


def _without_moments(context: JSON) -> JSON:
    """Return what an event says about a wait, with one moment for all, and without ids and names of the database."""
    kept = {key: value for key, value in context.items() if key not in {"signal_id", "session_user"}}
    return {key: moment_text(STORY_START) if key in {"at", "due_at"} else value for key, value in kept.items()}


def _sparse(value: Any) -> Any:
    """Return a named tuple as an object without defaults, at each level."""
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
    """Return the document as it is after writing and reading it."""
    plain: dict[str, Any] = json.loads(json.dumps(document, default=moment_text))
    return plain


def _renumbered(value: Any, ordinals: dict[int, int]) -> Any:
    """Return the value with execution ids replaced by their places in the run, without Python tracebacks."""
    if isinstance(value, dict):
        return {key: _renumbered(item, ordinals) for key, item in value.items() if key != "traceback"}
    if isinstance(value, list):
        return [_renumbered(item, ordinals) for item in value]
    return ordinals.get(value, value) if type(value) is int else value

"""Golden histories: recorded executions as JSON, without ids and times, so that recording again changes nothing.

One run of each example that shows a decision which no other example shows (`RECORDED`): a file has the executions of
that run, the example and its children: playbooks, events, and what the core decided on each event. `make golden`
records them (tests/golden/record.py). tests/playbooks/test_golden.py decides them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from noetl_broker.broker.core import Session
from noetl_broker.broker.flow.on_failure import KEY as ON_FAILURE
from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import APPROVAL_DECIDED, EXECUTION_SIGNAL, EXECUTION_START, TIMER_DUE
from noetl_broker.broker.model.rules import Rules, stored_rules
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import ExecutionState, encode
from noetl_broker.history.record import History
from noetl_broker.history.story import STORY_START
from noetl_broker.playbook import Playbook, compile_playbook
from noetl_broker.playbook.blocks import MARK
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.resources import playbooks_folder
from noetl_broker.template.durations import moment_text

OF_CONTEXT = frozenset({APPROVAL_DECIDED, TIMER_DUE, EXECUTION_SIGNAL})  # events whose context decides

# By the name of the example, and of its file: the payload of the run.
RECORDED: dict[str, JSON] = {
    "conditional": {},  # a condition and `else`
    "customer_jobs": {"amount": 5},  # a place
    "diamond": {},  # branches that meet again
    "distributed_iterator": {},  # items of jobs, one fails
    "error_handling": {},  # a failure that is caught
    "fan_out_deadline": {},  # what had come when the time was over
    "fan_out_join": {"words": ["ab", "c"]},  # a pause, and a join that waits for all
    "flaky_api": {},  # retries of items, and how many may fail
    "iterator": {},  # items that one worker repeats
    "iterator_playbook": {},  # items of child playbooks, sorted and chosen
    "loop": {"rounds": 4},  # visits
    "nested_child": {},  # children of children, and a child that is tried again
    "nested_iterator": {},  # items of children with items of their own
    "nightly_report": {"schedule": {"name": "examples/nightly_report#nightly", "at": "2026-11-28T02:00:00+01:00"}},
    "order_approval": {},  # a decision of a person
    "order_by_hand": {"address": ""},  # an undo by a child that waits for a person
    "order_refund": {"address": ""},  # undos of steps
    "payment": {},  # signals
    "payment_or_three_days": {"patience": 0.1},  # a wait that loses against another
    "place_order": {"order": {"order_id": "", "total": -1}},  # a child that refuses its workload
    "poll_until_ready": {"pause": 0.1},  # waits in a loop
    "quarantine": {},  # failures of items that are caught
    "reminder": {},  # a wait that fails after its time, and is repeated
    "retry": {},  # retries
    "ship_items": {},  # items of blocks
    "ten_calls_a_second": {"orders": [1, 2]},  # a limit of jobs
    "two_offers": {},  # a join that cancels what has lost
    "watched_import": {"rows": 0},  # a failure that starts another playbook
    "workbook": {},  # actions of the workbook
}
PAUSED = "fan_out_join"  # this example is run with a pause after its first turn
LINE = 160  # characters: what is longer stands on several lines
FOLDER = Path(__file__).parent / "golden"


def examples() -> dict[str, str]:
    """Return the texts of all examples by path."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(playbooks_folder().glob("*.yaml"))]
    return {compile_playbook(text, rules=PlaybookRules()).path: text for text in texts}


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
    (FOLDER / f"{name}.json").write_text(in_lines(document) + "\n", encoding="utf-8")


def in_lines(value: Any, margin: str = "", before: str = "") -> str:
    """Return a value as JSON, after `before`: on one line if it fits there, else each of its parts on its own lines."""
    line = f"{margin}{before}{json.dumps(value, ensure_ascii=False)}"
    if len(line) <= LINE or not isinstance(value, (dict, list)):
        return line
    if isinstance(value, dict):
        parts = [
            in_lines(part, f"{margin} ", f"{json.dumps(key, ensure_ascii=False)}: ") for key, part in value.items()
        ]
    else:
        parts = [in_lines(part, f"{margin} ") for part in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return "\n".join((f"{margin}{before}{first}", ",\n".join(parts), f"{margin}{last}"))


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
    """Return a named tuple as an object without defaults, at each level; the effects of a decision with their kinds."""
    if hasattr(value, "_asdict"):
        defaults = value._field_defaults
        fields = {
            name: item for name, item in value._asdict().items() if name not in defaults or item != defaults[name]
        }
        if "effects" in fields:
            fields["effects"] = [{type(effect).__name__: effect} for effect in fields["effects"]]
        return {name: _sparse(item) for name, item in fields.items()}
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

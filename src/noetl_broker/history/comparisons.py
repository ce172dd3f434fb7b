"""A back-test: the executions that would differ on an edited playbook, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

from noetl_broker.errors import HistoryFault
from noetl_broker.history.compare import Comparison
from noetl_broker.history.decision_diff import Divergence, Note
from noetl_broker.history.record import History, HistoryPart, RecordedTurn
from noetl_broker.playbook import Playbook
from noetl_broker.playbook.blocks import MARK, part_of

MOST_GROUPS = 1000  # divergences that are counted apart
MOST_EXAMPLES = 5
KEYS = ("step", "what", "because", "was", "instead")


class Comparisons:
    """Counts the executions that diverge, grouped by step and reason.

    `ways_only`: other inputs of a job are not a difference.
    """

    def __init__(self, playbook: Playbook, *, ways_only: bool) -> None:
        self.executions = self.same = self.running = self.diverged = 0
        self.notes: Counter[Note] = Counter()
        self.unreadable: Counter[str] = Counter()
        self._playbook, self._ways_only = playbook, ways_only
        self._groups: dict[tuple[str, ...], dict[str, Any]] = {}
        self._comparison: Comparison | None = None

    def take(self, part: HistoryPart) -> None:
        """Compare a history, or a part of one, up to its first divergence."""
        if part.first:
            self.executions += 1
            self._comparison = self._begin(part.history)
        comparison = self._comparison
        if comparison is None:
            return
        try:
            for recorded in part.readable_turns():
                found = comparison.apply(recorded)
                if found is not None:
                    self._diverge(part.history, recorded, found)
                    self._comparison = None
                    return
        except HistoryFault as fault:
            self.unreadable[fault.reason] += 1
            self._comparison = None
            return
        if part.last:
            self.same += 1
            self.running += part.history.ended is None
            self.notes.update(comparison.notes.keys())

    def as_document(self, seconds: float) -> dict[str, Any]:
        """All of it, compared in so many seconds, as one JSON object; the most frequent divergences first."""
        return {
            "path": self._playbook.path,
            "executions": self.executions,
            "same": self.same,
            "still_running": self.running,
            "parting": self.diverged,
            "executions_per_second": round(self.executions / max(seconds, 1e-6), 1),
            "groups": sorted(self._groups.values(), key=lambda group: -group["executions"]),
            "notes": [{**note._asdict(), "executions": count} for note, count in self.notes.most_common()],
            "unreadable": [{"reason": reason, "executions": count} for reason, count in self.unreadable.most_common()],
        }

    def _begin(self, history: History) -> Comparison | None:
        try:
            part = part_of(self._playbook, history.path)
            if part is None:
                self.unreadable["the other playbook does not have its block"] += 1
                return None
            return Comparison(history, part, ways_only=self._ways_only)
        except HistoryFault as fault:
            self.unreadable[fault.reason] += 1
            return None

    def _diverge(self, history: History, recorded: RecordedTurn, divergence: Divergence) -> None:
        self.diverged += 1
        key = (divergence.step, divergence.what, divergence.because, divergence.was, divergence.instead)
        if key not in self._groups and len(self._groups) == MOST_GROUPS:
            key = ("", "more divergences", "", "", "")
        new = {**dict(zip(KEYS, key, strict=True)), "executions": 0, "examples": []}
        group = self._groups.setdefault(key, new)
        group["executions"] += 1
        if len(group["examples"]) < MOST_EXAMPLES:
            example = {"execution_id": history.execution_id, "turn": recorded.turn.number}
            group["examples"].append({**example, "event_id": recorded.event_id, "values": divergence.values})


def compared_paths(playbook: Playbook, path: str | None) -> list[str]:
    """The paths of the executions that are compared with a playbook: this one, or its own and those of its blocks."""
    if path is not None:
        return [path]
    return [playbook.path, f"{playbook.path}{MARK}*"] if playbook.blocks else [playbook.path]

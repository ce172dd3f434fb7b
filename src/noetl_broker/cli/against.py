"""What `replay --against FILE` tells: which executions would have gone another way on an edited playbook, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noetl_broker.broker.against import Comparing, Found
from noetl_broker.broker.contrast import Note
from noetl_broker.broker.history import History
from noetl_broker.cli import output
from noetl_broker.cli.frame import Call
from noetl_broker.cli.walking import Chosen, Pace, walk
from noetl_broker.errors import EXIT_FAILED, HistoryFault, OperatorFault
from noetl_broker.playbook import Playbook, check, compile_playbook
from noetl_broker.store.histories import Filter, Part

MOST_GROUPS = 1000  # ways of parting that are told apart
MOST_EXAMPLES = 5
LONGEST_VALUE = 80  # characters; --json has all


def read_edited(call: Call, file: Path) -> Playbook | None:
    """The playbook to compare with; None where it has errors, which are then told."""
    try:
        source = file.read_bytes()
    except OSError as error:
        raise OperatorFault(f"the file {file} cannot be read: {error.strerror or error}") from error
    findings = check(source, file=str(file), rules=call.playbook_rules)
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in errors:
        output.note(str(finding))
    return None if errors else compile_playbook(source, file=str(file), rules=call.playbook_rules)


async def compare(call: Call, chosen: Chosen, file: Path, *, ways_only: bool) -> int:
    """Take the chosen histories (of none chosen: all of the file's playbook) against the file; gives the exit code."""
    playbook = read_edited(call, file)
    if playbook is None:
        output.note(f"noetl-broker: {file} has errors, so nothing was compared")
        return EXIT_FAILED
    if not chosen.ids and chosen.which.path is None:
        chosen = Chosen(which=Filter(path=playbook.path, status=chosen.which.status, since=chosen.which.since))
    summary = Summary(playbook, file, ways_only=ways_only)
    async for part in walk(call, chosen):
        summary.take(part)
    return summary.close(call)


@dataclass(slots=True)
class Group:
    """Executions that part in the same way: how many, and a few of them."""

    executions: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


class Summary:
    """What was compared so far: which executions part, grouped by where and why."""

    def __init__(self, playbook: Playbook, file: Path, *, ways_only: bool) -> None:
        self._playbook, self._file, self._ways_only = playbook, file, ways_only
        self._pace = Pace()
        self._same = self._running = self._parted = 0
        self._groups: dict[tuple[str, ...], Group] = {}
        self._notes: Counter[Note] = Counter()
        self._unreadable: Counter[str] = Counter()
        self._comparing: Comparing | None = None

    def take(self, part: Part) -> None:
        """A history, or a part of one; what follows a parting is passed over."""
        if part.first:
            self._pace.executions += 1
            self._comparing = self._begin(part.history)
        comparing = self._comparing
        if comparing is None:
            return
        try:
            for recorded in part.readable_turns():
                found = comparing.take(recorded)
                if found is not None:
                    self._part(part.history, found)
                    self._comparing = None
                    return
        except HistoryFault as fault:
            self._unreadable[fault.reason] += 1
            self._comparing = None
            return
        if part.last:
            self._same += 1
            self._running += part.history.ended is None
            self._notes.update(comparing.notes.keys())

    def close(self, call: Call) -> int:
        """Tell the sum; gives the exit code."""
        if call.as_json:
            output.show_json(self._as_json())
        else:
            self._show()
        if not self._pace.executions and not call.as_json:
            output.note("no execution was compared; noetl-broker executions lists what there is")
        return EXIT_FAILED if self._parted or self._unreadable else 0

    def _begin(self, history: History) -> Comparing | None:
        try:
            return Comparing(history, self._playbook, ways_only=self._ways_only)
        except HistoryFault as fault:
            self._unreadable[fault.reason] += 1
            return None

    def _part(self, history: History, found: Found) -> None:
        self._parted += 1
        parting = found.parting
        key = (parting.step, parting.what, parting.because, parting.was, parting.instead)
        if key not in self._groups and len(self._groups) == MOST_GROUPS:
            key = ("", "more ways of parting", "", "", "")
        group = self._groups.setdefault(key, Group())
        group.executions += 1
        if len(group.examples) < MOST_EXAMPLES:
            example = {"execution_id": history.execution_id, "turn": found.turn, "event_id": found.event_id}
            group.examples.append({**example, "values": parting.values})

    def _sorted(self) -> list[tuple[tuple[str, ...], Group]]:
        return sorted(self._groups.items(), key=lambda item: -item[1].executions)

    def _as_json(self) -> dict[str, Any]:
        names = ("step", "what", "because", "was", "instead")
        return {
            "file": str(self._file),
            "path": self._playbook.path,
            "executions": self._pace.executions,
            "same": self._same,
            "still_running": self._running,
            "parting": self._parted,
            "executions_per_second": round(self._pace.per_second, 1),
            "groups": [
                {**dict(zip(names, key, strict=True)), "executions": group.executions, "examples": group.examples}
                for key, group in self._sorted()
            ],
            "notes": [{**note._asdict(), "executions": count} for note, count in self._notes.most_common()],
            "unreadable": [{"reason": reason, "executions": count} for reason, count in self._unreadable.most_common()],
        }

    def _show(self) -> None:
        groups = self._sorted()
        if groups:
            columns = ("executions", "at step", "what", "because", "was", "instead", "for example")
            rows = [(group.executions, *key, group.examples[0]["execution_id"]) for key, group in groups]
            output.show_table(columns, rows)
            output.say()
        for key, group in groups:
            for place, (was, now) in list(group.examples[0]["values"].items())[:MOST_EXAMPLES]:
                told = [output.compact_json(value, longest=LONGEST_VALUE) for value in (was, now)]
                output.say(
                    f"{key[0]}: {place} was {told[0]}, would be {told[1]} (in {group.examples[0]['execution_id']})"
                )
        for note, count in self._notes.most_common():
            output.say(f"noted in {count}: {note.step}: {note.what}")
        for reason, count in self._unreadable.most_common():
            output.say(f"not compared: {count} ({reason})")
        running = f" ({self._running} of them still running)" if self._running else ""
        output.say(
            f"{self._pace.executions} executions against {self._file}: {self._same} go the same way{running}, "
            f"{self._parted} part ({self._pace.per_second:,.0f} executions/s)"
        )

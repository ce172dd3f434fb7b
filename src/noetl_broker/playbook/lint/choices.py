"""Warns of a `catch` or `next` that can never be taken, and of a choice without an `else`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.inputs import trees_of
from noetl_broker.playbook.lint.overlapping_conditions import alternatives, are_exhaustive
from noetl_broker.playbook.model import Entry, Playbook, Step
from noetl_broker.playbook.reader import Reading


def warn_dead_catches(reading: Reading, playbook: Playbook, locations: Mapping[str, Location]) -> None:
    """Warn of each entry of a `catch` that can never be taken, with the reason."""
    for name, step in playbook.steps.items():
        location = (*locations[name][:-1], "catch")
        if step.catch and not can_fail(step):
            _warn(reading, location, "the step cannot fail: it has no action and no template", "remove it")
            continue
        single = not isinstance(step.raw.get("catch"), list)
        for number, reason in _never_taken(step):
            _warn(reading, location if single else (*location, number), reason, "move it up, or remove it")


def _warn(reading: Reading, location: Location, reason: str, hint: str) -> None:
    reading.report.warning("dead-catch", location, f"this catch can never be taken: {reason}", hint)


def can_fail(step: Step) -> bool:
    """Whether a visit of the step can fail: it has an action, a template, or a join that may come short."""
    if step.has_action and step.wait is None and step.signal is None:
        return True
    if step.need > 1 or any(entry.condition is not None for entry in step.next):
        return True
    levels = (step.inputs, *(target.inputs for entry in step.next for target in (*entry.then, *entry.otherwise)))
    trees = [tree for level in levels for _, tree in trees_of(level)]
    if step.output is not None:
        trees.append(step.output)
    if step.wait is not None:
        if step.wait.timeout is not None or step.wait.signals is not None:
            return True
        trees += [tree for tree in (step.wait.duration, step.wait.until) if tree is not None]
    if step.signal is not None:
        trees += [tree for tree in (step.signal.name, step.signal.key, step.signal.payload) if tree is not None]
    return any(not tree.constant for tree in trees)


def _never_taken(step: Step) -> Iterator[tuple[int, str]]:
    """The entries that are never taken, each with the reason."""
    before: list[Entry] = []
    for number, entry in enumerate(step.catch):
        reason = _reason(entry, before)
        if reason:
            yield number, reason
        before.append(entry)


def _reason(entry: Entry, before: list[Entry]) -> str:
    """Why an entry is never taken; empty if it may be."""
    always = next((number for number, one in enumerate(before, 1) if one.condition is None), None)
    if always is not None:
        return f"entry {always} has no `when`, so it is always taken"
    sources = [one.condition.source for one in before if one.condition is not None]
    own = None if entry.condition is None else entry.condition.source
    if own in sources:
        return f"entry {sources.index(own) + 1} has the same condition"
    if own is not None and alternatives(own) == []:
        return "its condition is always false"
    return "one of the conditions before it is always true" if sources and are_exhaustive(sources) else ""


def warn_next_of_fails(reading: Reading, playbook: Playbook, locations: Mapping[str, Location]) -> None:
    """Warn of each `next` of a step that always fails."""
    for name, step in playbook.steps.items():
        if step.fail is not None and step.next and step.on_error != "continue":
            reading.report.warning(
                "unused-key",
                (*locations[name][:-1], "next"),
                f"the `next` of the fail step `{name}` is never taken: the step always fails",
                "write it under `catch`, or add on_error: continue",
                key=True,
            )


def warn_open_choices(reading: Reading, playbook: Playbook, locations: Mapping[str, Location]) -> None:
    """Warn of each choice without an `else`: where no condition is true, its branch ends there."""
    for name, step in playbook.steps.items():
        if not step.next or any(entry.kind != "when" or entry.otherwise for entry in step.next):
            continue
        sources = [entry.condition.source for entry in step.next if entry.condition is not None]
        reading.work.spend(sum(map(len, sources)))
        if not are_exhaustive(sources):
            reading.report.warning(
                "no-else",
                (*locations[name][:-1], "next"),
                f"the choice after the step `{name}` has no `else`: if no condition is true, its branch ends there",
                "add an entry such as {else: [end]}",
                key=True,
            )

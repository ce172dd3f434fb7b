"""Reads `next` and `catch` (a string, a mapping, or a list of them) into entries and arcs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.inputs import merge, raw_inputs, read_inputs
from noetl_broker.playbook.keys import TEXT, WHEN, Key, Keys, entries_of, holds, one_or_list, ref
from noetl_broker.playbook.keywords import ENTRY_WORDS, ERROR, START
from noetl_broker.playbook.model import NO_INPUTS, Arc, Branch, Entry, Inputs, Target
from noetl_broker.playbook.reader import COST_OF_COPY, Reading, TemplateSite
from noetl_broker.playbook.step_keys import INPUTS
from noetl_broker.template import Template

EntryList = Literal["next", "catch"]
NO_LEVEL: Mapping[str, Any] = {}
ENTRY_ONLY = (*ENTRY_WORDS, "then", "else")
TEXTS = ("desc", "description")
TARGET = Keys(
    model="TargetModel",
    about="Where a transition leads, with inputs for the step.",
    is_open=True,
    others=(*TEXTS, *ENTRY_ONLY),
    keys=(
        *INPUTS,
        Key("step", holds(TEXT), "The name of the step."),
        Key("name", holds(TEXT), "The same as `step`."),
    ),
)
TARGETS = holds(*one_or_list(TEXT, ref(TARGET.model)))
THEN = Key("then", TARGETS, "Several targets.")
ENTRY = Keys(
    model="EntryModel",
    about="One entry of `next`: a target or `then`, a condition, and `else`.",
    word="next",
    is_open=True,
    others=TEXTS,
    keys=(
        *TARGET.keys,
        Key("when", WHEN, "The entry fires only if this is true."),
        Key("condition", WHEN, "The same as `when`."),
        Key("pass", WHEN, "The same as `when`."),
        THEN,
        Key(
            "else",
            TARGETS,
            "Where to go if no condition is true; beside a `when`, if that is false.",
        ),
    ),
)
CATCH = Keys(
    model="CatchModel",
    about="One entry of `catch`: a target or `then`, and perhaps a condition.",
    word="catch",
    is_open=True,
    others=(*TEXTS, "condition", "pass"),
    keys=(
        *TARGET.keys,
        Key("when", WHEN, "The entry is taken only if this is true; finds `error`."),
        THEN,
    ),
)


def read_next(reading: Reading, source: str, raw: Any, location: Location) -> tuple[Entry, ...]:
    """Read the transitions of one step, and add its arcs to the reading in document order."""
    read = read_entries(reading, source, raw, location, "next")
    entries = tuple(entry for entry, _ in read if entry is not None)
    if len(entries) == len(read) and not any(entry.kind == "when" for entry in entries):
        for entry, where in read:
            if entry is not None and entry.kind == "else":
                message = f"`next` of step `{source}` has an `else` but no condition"
                hint = 'add an entry with a condition: {when: "{{ … }}", step: …}'
                reading.report.error("only-else", (*where, "else"), message, hint, key=True)
    return entries


def read_entries(
    reading: Reading, source: str, raw: Any, location: Location, word: EntryList
) -> list[tuple[Entry | None, Location]]:
    """Read the entries under `next` or `catch` of one step, each with its location; None for a wrong one."""
    if raw is None:
        return []
    read = [
        (_EntryReader(reading, source, index, word).read(item, where), where)
        for index, (item, where) in enumerate(entries_of(raw, location))
    ]
    reading.broken = reading.broken or any(entry is None for entry, _ in read)
    return read


class _EntryReader:
    """Reads one entry of one step's `next` or `catch`."""

    def __init__(self, reading: Reading, source: str, index: int, word: EntryList) -> None:
        self.reading, self.source, self.index, self.word = reading, source, index, word
        names = frozenset({ERROR}) if word == "catch" else frozenset()
        self.part = TemplateSite(step=source, role="next", names=names)
        self.condition: str | None = None
        self.defaults = NO_INPUTS  # the entry's inputs, for each of its targets
        self.level = NO_LEVEL  # the mapping of the entry

    def read(self, raw: Any, location: Location) -> Entry | None:
        """Read the entry; report errors and give None if it is wrong."""
        if isinstance(raw, str):
            target = self._target(raw, location, "plain")
            return None if target is None else Entry(kind="plain", then=(target,))
        if not isinstance(raw, dict):
            self._error(
                "bad-next", location, f"an entry of `{self.word}` is {json_type_name(raw)}", "write {step: name}"
            )
            return None
        (ENTRY if self.word == "next" else CATCH).refuse_unknown(self.reading, raw, location)
        words = [word for word in ENTRY_WORDS if word in raw]
        if len(words) > 1:
            self._error("bad-when", (*location, words[1]), f"`{words[1]}` repeats `{words[0]}`", "keep one")
        condition = None
        if words:
            where = (*location, words[0])
            condition = self.reading.condition(raw[words[0]], where, self.part)
            self.condition = str(raw[words[0]])
        self.defaults, self.level = read_inputs(self.reading, raw, location, self.part), raw
        entry = self._with_targets(raw, location, condition, conditional=bool(words))
        return None if words and condition is None else entry

    def _with_targets(
        self, raw: Mapping[str, Any], location: Location, condition: Template | None, *, conditional: bool
    ) -> Entry | None:
        itself = "step" in raw or "name" in raw
        problem = self._shape_problem(raw, itself=itself, conditional=conditional)
        if problem is not None:
            key, message, hint = problem
            self._error("bad-next", (*location, key) if key else location, message, hint)
            return None
        branch: Branch = "then" if conditional else "plain"
        if self.word == "catch":
            branch = "catch"
        then: tuple[Target | None, ...] = ()
        if itself:
            then = (self._target(raw, location, branch, inputs=self.defaults),)
        elif "then" in raw:
            then = self._targets(raw["then"], (*location, "then"), branch)
        otherwise = self._targets(raw["else"], (*location, "else"), "else") if "else" in raw else ()
        if not then and not otherwise:
            self._error("bad-next", location, f"an entry of `{self.word}` has no target", "add step: name")
            return None
        if None in then or None in otherwise:
            return None
        return Entry(
            kind="when" if conditional else "plain" if then else "else",
            condition=condition,
            then=tuple(target for target in then if target is not None),
            otherwise=tuple(target for target in otherwise if target is not None),
        )

    def _shape_problem(self, raw: Mapping[str, Any], *, itself: bool, conditional: bool) -> tuple[str, str, str] | None:
        """Give the key, the message and the hint for keys that exclude each other; None if there are none."""
        if self.word == "catch" and "else" in raw:
            return "else", "an entry of `catch` has an `else`", "make it the last entry, without a `when`"
        if itself and "then" in raw:
            return "then", "an entry has both a target and `then`", "put all targets under `then`"
        if "else" in raw and not conditional and (itself or "then" in raw):
            return "else", "`else` has no condition beside it", "add `when`, or make it its own entry"
        if not itself and "then" not in raw and "else" not in raw:
            return "", f"an entry of `{self.word}` has no target", "add step: name"
        return None

    def _targets(self, raw: Any, location: Location, branch: Branch) -> tuple[Target | None, ...]:
        if not isinstance(raw, list):
            return (self._target(raw, location, branch),)
        return tuple(self._target(item, (*location, index), branch) for index, item in enumerate(raw))

    def _target(self, raw: Any, location: Location, branch: Branch, *, inputs: Inputs | None = None) -> Target | None:
        """Read one target and add its arc; `inputs` are given if the entry itself is the target."""
        own: Mapping[str, Any] = raw if isinstance(raw, dict) else NO_LEVEL
        key = "step" if "step" in own or "name" not in own else "name"
        name, where = (own.get(key), (*location, key)) if isinstance(raw, dict) else (raw, location)
        if not isinstance(name, str) or not name:
            shown = "empty" if isinstance(name, str) else json_type_name(name)
            self._error(
                "bad-next", where, f"a target of `{self.word}` is {shown}", "write a step's name, or {step: name}"
            )
            return None
        self.reading.work.spend(1 + COST_OF_COPY * len(self.defaults.keys))  # each target has its own copy of them
        if inputs is None:
            inputs = merge(self.defaults, self._own_inputs(own, location))
        if not self._exists(name, where):
            return None
        arc = Arc(
            ordinal=len(self.reading.arcs),
            source=self.source,
            target=name,
            entry=self.index,
            branch=branch,
            condition=self.condition,
            inputs=raw_inputs(self.level, own),
        )
        self.reading.arcs.append(arc)
        return Target(arc=arc.ordinal, step=name, inputs=inputs)

    def _own_inputs(self, own: Mapping[str, Any], location: Location) -> Inputs:
        for word in ENTRY_ONLY:
            if word in own:
                message = f"a target has no `{word}` of its own"
                self._error("bad-next", (*location, word), message, f"make it an entry of `{self.word}`")
        TARGET.refuse_unknown(self.reading, own, location, word=self.word)
        return read_inputs(self.reading, own, location, self.part)

    def _exists(self, name: str, location: Location) -> bool:
        if name == START:
            message = f"`{self.word}` of step `{self.source}` leads back to `start`"
            self._error("next-to-start", location, message, "lead to the step after `start`")
            return False
        if name not in self.reading.steps:
            hint = (
                self.reading.report.did_you_mean(name, self.reading.steps) or "add the step, or remove the transition"
            )
            self._error("unknown-step", location, f"there is no step `{name}`", hint)
            return False
        return True

    def _error(self, code: str, location: Location, message: str, hint: str) -> None:
        self.reading.broken = True
        self.reading.report.error(code, location, message, hint)

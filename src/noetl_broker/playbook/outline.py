"""Reads the top of a document: its required keys, its metadata, and the names of its steps and actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from noetl_broker.playbook.amounts import PRIORITIES, SECONDS, Range, read_integer, read_number
from noetl_broker.playbook.findings import Place, kind_of
from noetl_broker.playbook.model import Raw
from noetl_broker.playbook.reading import Reading
from noetl_broker.playbook.vocabulary import METADATA_KEYS, ROOT_KEYS, START

API_VERSION: Final = "noetl.io/v1"
KIND: Final = "Playbook"
VISITS = Range(1, 2_147_483_647)
FORBIDDEN_IN_NAMES = frozenset("#:")
KEYS_OF_A_STEP: Final = ("next", "next_mode", "join", "result")
LONGEST_NAME: Final = 255  # characters: names and paths stand in indexes, whose rows Postgres bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A step as written; `index` counts the steps that could be read, from 0."""

    name: str
    index: int
    raw: Raw
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The document's frame: what it is called, and where its parts stand."""

    name: str
    path: str
    steps: tuple[Written, ...]
    workload: Raw
    workload_place: Place
    max_visits: int | None
    deadline: float | None
    priority: int | None
    document: Raw


def read_outline(reading: Reading, document: Any) -> Outline | None:
    """Read the frame and note all names in the reading; None if there is no workflow to go on with."""
    report = reading.report
    if not isinstance(document, dict):
        report.error("wrong-type", (), f"the document is {kind_of(document)}", "a playbook is a mapping of keys")
        return None
    for key in document:
        if key not in ROOT_KEYS:
            hint = report.did_you_mean(key, ROOT_KEYS)
            report.warning("unknown-key", (key,), f"the key `{key}` means nothing in a playbook", hint, key=True)
    _require(reading, document, "apiVersion", API_VERSION)
    _require(reading, document, "kind", KIND)
    metadata = _metadata(reading, document)
    name, path = _identity(reading, document, metadata)
    workload, workload_place = _part(reading, document, ("workload", "spec"), dict)
    reading.actions = _actions(reading, document)
    workflow, place = _part(reading, document, ("workflow", "steps"), list)
    if workflow is None:
        if "workflow" not in document and "steps" not in document:
            report.error(
                "missing-key", (), "the playbook has no `workflow`", "write workflow: [{step: start, next: …}]"
            )
        return None
    steps = _steps(reading, workflow, place)
    reading.steps = {step.name: step.index for step in steps}
    if START not in reading.steps:
        report.error("no-start", place, "the workflow has no step `start`", "add {step: start, next: …}", key=True)
    deadline = metadata.get("deadline")
    return Outline(
        name=name,
        path=path,
        steps=steps,
        workload=workload or {},
        workload_place=workload_place,
        max_visits=_integer(reading, metadata, "max_visits", VISITS),
        deadline=None if deadline is None else read_number(reading, deadline, ("metadata", "deadline"), SECONDS),
        priority=_integer(reading, metadata, "priority", PRIORITIES),
        document=document,
    )


def _require(reading: Reading, document: Raw, key: str, wanted: str) -> None:
    value = document.get(key)
    if value == wanted:
        return
    hint = f"write {key}: {wanted}"
    if value is None:
        reading.report.error("missing-key", (), f"the playbook has no `{key}`", hint)
    else:
        shown = value if isinstance(value, str) else kind_of(value)
        reading.report.error("wrong-value", (key,), f"`{key}` is {shown}, not {wanted}", hint)


def _metadata(reading: Reading, document: Raw) -> Raw:
    value, place = _part(reading, document, ("metadata",), dict)
    for key in value or ():
        if key not in METADATA_KEYS:
            hint = reading.report.did_you_mean(key, METADATA_KEYS)
            reading.report.warning(
                "unknown-key", (*place, key), f"the key `{key}` means nothing in `metadata`", hint, key=True
            )
    return value or {}


def _identity(reading: Reading, document: Raw, metadata: Raw) -> tuple[str, str]:
    found: dict[str, str] = {}
    for key in ("name", "path"):
        for place, holder in ((("metadata", key), metadata), ((key,), document)):
            value = holder.get(key)
            if value is None or key in found:
                continue
            if isinstance(value, str) and value.strip():
                found[key] = value.strip()
                _check_length(reading, found[key], place, f"the `{key}`")
            else:
                shown = "empty" if isinstance(value, str) else kind_of(value)
                reading.report.error("wrong-type", place, f"`{key}` is {shown}", f"write {key}: a name")
                found[key] = "?"
    if not found:
        reading.report.error(
            "missing-key",
            ("metadata",),
            "the playbook has neither `metadata.name` nor `metadata.path`",
            "write metadata: {name: …, path: folder/name}",
            key=True,
        )
        return "?", "?"
    path = found.get("path") or found["name"]
    return found.get("name") or path.rpartition("/")[2], path


def _part(reading: Reading, document: Raw, words: tuple[str, ...], kind: type) -> tuple[Any, Place]:
    """Give a part of the document under one of its names; None, with an error in the report, if of another type."""
    given = [word for word in words if document.get(word) is not None]
    if not given:
        for word in words:
            if word in document and kind is list:
                reading.report.error("wrong-type", (word,), f"`{word}` is null", "write a list of steps")
        return None, (words[0],)
    if len(given) > 1:
        reading.report.error(
            "duplicate-key", (given[1],), f"`{given[1]}` says again what `{given[0]}` says", "keep one", key=True
        )
    word, value = given[0], document[given[0]]
    if isinstance(value, kind):
        return value, (word,)
    wanted = "a list" if kind is list else "a mapping"
    reading.report.error("wrong-type", (word,), f"`{word}` is {kind_of(value)}, not {wanted}", f"write {wanted}")
    return None, (word,)


def _integer(reading: Reading, metadata: Raw, key: str, allowed: Range) -> int | None:
    value = metadata.get(key)
    return None if value is None else read_integer(reading, value, ("metadata", key), allowed)


def _actions(reading: Reading, document: Raw) -> dict[str, tuple[Raw, Place]]:
    workbook, place = _part(reading, document, ("workbook",), list)
    actions: dict[str, tuple[Raw, Place]] = {}
    for index, raw in enumerate(workbook or ()):
        where = (*place, index)
        name = _named(reading, raw, where, ("name", "step", "task"), "an action of the workbook")
        if name is None:
            continue
        if name in actions:
            reading.report.error("duplicate-action", where, f"the workbook has two actions `{name}`", "rename one")
        else:
            actions[name] = (raw, where)
            _warn_of_step_keys(reading, name, raw, where)
    return actions


def _warn_of_step_keys(reading: Reading, name: str, raw: Raw, place: Place) -> None:
    """Warn of what says how steps follow each other, on an action that stands in no workflow."""
    for key in KEYS_OF_A_STEP:
        if raw.get(key) is not None:
            message = f"`{key}` of the workbook action `{name}` is not read"
            reading.report.warning("unused-key", (*place, key), message, "write it on the step that calls it", key=True)


def _steps(reading: Reading, workflow: list[Any], place: Place) -> tuple[Written, ...]:
    steps: dict[str, Written] = {}
    for index, raw in enumerate(workflow):
        where = (*place, index)
        name = _named(reading, raw, where, ("step", "name"), "a step")
        if name is None:
            reading.broken = True
            continue
        key = "step" if "step" in raw else "name"
        if name in steps:
            first, _ = reading.report.positions.where(steps[name].place)
            message = f"there are two steps `{name}`, the first on line {first}"
            reading.report.error("duplicate-step", (*where, key), message, "rename one of them")
            continue
        _check_name(reading, name, (*where, key))
        steps[name] = Written(name=name, index=len(steps), raw=raw, place=where)
    return tuple(steps.values())


def _named(reading: Reading, raw: Any, place: Place, words: tuple[str, ...], what: str) -> str | None:
    if not isinstance(raw, dict):
        reading.report.error("wrong-type", place, f"{what} is {kind_of(raw)}, not a mapping", f"write {words[0]}: name")
        return None
    for word in words:
        value = raw.get(word)
        if value is None:
            continue
        if isinstance(value, str) and value.strip():
            _check_length(reading, value, (*place, word), f"the name of {what}")
            return value
        shown = "empty" if isinstance(value, str) else kind_of(value)
        reading.report.error("wrong-type", (*place, word), f"the name of {what} is {shown}", f"write {word}: name")
        return None
    reading.report.error("missing-key", place, f"{what} has no `{words[0]}`", f"write {words[0]}: name")
    return None


def _check_length(reading: Reading, name: str, place: Place, what: str) -> None:
    if len(name) > LONGEST_NAME:
        message = f"{what} has {len(name)} characters; it may have {LONGEST_NAME}"
        reading.report.error("long-name", place, message, "shorten it, and say the rest in `desc`")


def _check_name(reading: Reading, name: str, place: Place) -> None:
    bad = [sign for sign in name if sign in FORBIDDEN_IN_NAMES or not sign.isprintable()]
    if bad:
        reading.report.error(
            "bad-name", place, f"the step name {name!r} has the character {bad[0]!r}", "use letters, digits and _"
        )
    elif not name.isidentifier():
        reading.report.warning(
            "bad-name",
            place,
            f"the step name `{name}` is not an identifier, so templates reach it only by results['{name}']",
            "use letters, digits and _",
        )

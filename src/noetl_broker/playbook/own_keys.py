"""Refuses wrong keys of a task at registration: unknown ones, and missing or wrong ones of its type.

A template is checked when it is rendered. A version of the catalog runs whatever its keys are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

from noetl_broker.playbook.blocks import KEY as BLOCK
from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.durations import DURATION_FORMS, parse_duration
from noetl_broker.playbook.joins import hint_for_misplaced_key
from noetl_broker.playbook.keywords import (
    BROKER_KEYS,
    HTTP_METHODS,
    IGNORED_KEYS,
    INPUT_WORDS,
    ITERATION_KEYS,
    SAVE_KEYS,
    SAVE_MODES,
    SQL_TEXTS,
    SQL_TYPES,
)
from noetl_broker.playbook.kinds import StepKind
from noetl_broker.playbook.plain_values import shown_value
from noetl_broker.playbook.reader import Reading, strings
from noetl_broker.playbook.tasks import Declared

REMEDIES_OF_BLOCKS: Mapping[StepKind, str] = {"iterator": "write it in the task"}
# A task of a type needs one of these keys; the text is an example for the first.
NEEDED: Final[Mapping[str, tuple[tuple[tuple[str, ...], str], ...]]] = {
    "http": ((("url", "endpoint"), "https://…"),),
    **dict.fromkeys(SQL_TYPES, ((SQL_TEXTS, "select …"),)),
    "transfer": ((("source",), "{…}"), (("target",), "{…}")),
    "secrets": ((("secret_name", "names"), "NAME"),),
    "save": ((("data", "statement", *INPUT_WORDS, *SAVE_KEYS), "{column: value}"),),
    "sleep": ((("seconds", "duration", *INPUT_WORDS), "5"),),
    "container": ((("image",), "name:tag"),),
}


class Form(NamedTuple):
    """The form of a key's value: a test, its name in an error, and the words if only these are allowed."""

    fits: Callable[[Any], bool]
    wanted: str
    words: Collection[str] = ()


def one_of(words: Collection[str]) -> Form:
    """Give the form of a fixed word, in any case."""
    known = {word.lower() for word in words}
    return Form(
        lambda value: isinstance(value, str) and value.strip().lower() in known, f"one of {', '.join(words)}", words
    )


def _is_duration(value: Any) -> bool:
    try:
        parse_duration(value)
    except ValueError:
        return False
    return True


TEXT: Final = Form(lambda value: isinstance(value, str), "a text")
MAPPING: Final = Form(lambda value: isinstance(value, dict), "a mapping")
BOOLEAN: Final = Form(lambda value: isinstance(value, bool), "true or false")
DURATION: Final = Form(_is_duration, DURATION_FORMS)
FORMS: Final[Mapping[str, Mapping[str, Form]]] = {
    "http": {
        "url": TEXT,
        "endpoint": TEXT,
        "method": one_of(HTTP_METHODS),
        "headers": MAPPING,
        "verify_ssl": BOOLEAN,
        "follow_redirects": BOOLEAN,
    },
    "secrets": {"secret_name": TEXT},
    "save": {"table": TEXT, "mode": one_of(tuple(SAVE_MODES))},
    "sleep": {"seconds": DURATION, "duration": DURATION},
    "container": {"image": TEXT},
}


def refuse_wrong_keys(reading: Reading, name: str, declared: Declared, *, iterating: bool = False) -> None:
    """Refuse unknown keys of a task, and missing or wrong keys of its type; people's own types may have any."""
    if declared.is_foreign:
        return
    keys = BROKER_KEYS.union(INPUT_WORDS, declared.own, SAVE_KEYS)
    if declared.traits.has_job:
        keys |= {"auth"}
    _refuse_unknown(reading, name, declared, keys | ITERATION_KEYS if iterating else keys)
    for one_needed, example in NEEDED.get(declared.type, ()):
        if all(declared.lookup(key)[0] is None for key in one_needed):
            first, where = one_needed[0], declared.layers[-1].location
            message = f"the {declared.type} step `{name}` has no `{first}`"
            reading.report.refuse("missing-key", where, message, f"write {first}: {example}")
    for key, form in FORMS.get(declared.type, {}).items():
        _refuse_wrong(reading, *declared.lookup(key), form)


def _refuse_wrong(reading: Reading, value: Any, location: Location, form: Form) -> None:
    if value is None or form.fits(value) or (isinstance(value, str) and any(strings(value, location))):
        return
    hint = f"write {form.wanted}"
    if form.words and isinstance(value, str):
        near = reading.report.did_you_mean(value, form.words)
        hint = near if near.startswith("did") else hint
    message = f"`{location[-1]}` is {shown_value(value):.80}, not {form.wanted}"
    reading.report.refuse("bad-value", location, message, hint)


def _refuse_unknown(reading: Reading, name: str, declared: Declared, known: frozenset[str]) -> None:
    """Refuse unknown keys; the job of a registered version still contains them."""
    for layer in declared.layers:
        for key in layer.raw:
            if key in known:
                continue
            if key == BLOCK:
                message = f"the step `{name}` has a `{key}`, and its type is {declared.type}"
                remedy = REMEDIES_OF_BLOCKS.get(declared.kind, "write type: playbook")
                reading.report.error("bad-type", (*layer.location, key), message, remedy, key=True)
                continue
            message = f"unknown key `{key}` on the {declared.type} step `{name}`"
            hint = of_join = hint_for_misplaced_key(layer.raw, key)
            if of_join:
                message = f"`{key}` is a key of `join`, and stands beside it on step `{name}`"
            elif key == "pass":
                hint = "the step always runs: put the condition into the `next` of the step before it"
            elif key in IGNORED_KEYS:
                hint = "remove it: it belongs to another dialect"
            otherwise = "remove it, or write it under `args` if it is an input"
            reading.report.unknown_key((*layer.location, key), message, known, hint, otherwise)

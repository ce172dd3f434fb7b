"""Reads what a playbook says of signals: the names and keys of waits, `signal` steps, `metadata.on_signal`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keywords import SIGNAL
from noetl_broker.playbook.model import OnSignal, Raw, SignalSpec
from noetl_broker.playbook.plain_values import KEY_BYTES, NAME_CHARS
from noetl_broker.playbook.reader import Reading, TemplateSite, strings
from noetl_broker.playbook.tasks import Declared
from noetl_broker.template import Template, Tree

SIGNAL_PART_NAMES: Final = frozenset({SIGNAL})  # what a `when` about a signal finds besides
MOST_NAMES: Final = 20  # of signals, that one wait names
NAME_FORMS: Final = f"a text of 1 to {NAME_CHARS} characters"
NAMES_FORMS: Final = f"{NAME_FORMS}, or a list of up to {MOST_NAMES} such texts"
KEY_FORMS: Final = f"a text of up to {KEY_BYTES} bytes, a number or a boolean"
KEY: Final = "key"
ON_SIGNAL_KEYS: Final = ("signal", "when")


def signal_name(value: Any) -> str:
    """The name of a signal; raises ValueError for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARS:
        raise ValueError(NAME_FORMS)
    return value


def signal_names(value: Any) -> tuple[str, ...]:
    """The names of a wait, from one name or a list; raises ValueError."""
    names = value if isinstance(value, list) else [value]
    if not 0 < len(names) <= MOST_NAMES:
        raise ValueError(NAMES_FORMS)
    return tuple(dict.fromkeys(map(signal_name, names)))


def signal_key(value: Any) -> str:
    """The key of a signal as text: a number or a boolean is its JSON text. Raises ValueError."""
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str) or len(value.encode()) > KEY_BYTES:
        raise ValueError(KEY_FORMS)
    return value


def read_names(reading: Reading, value: Any, location: Location, part: TemplateSite) -> Tree | None:
    """Compile the names that a wait is for."""
    if value is None:
        return None
    if not any(strings(value, location)):
        _check(reading, value, location, signal_names, NAMES_FORMS)
    return reading.tree(value, location, part)


def read_key(reading: Reading, declared: Declared, part: TemplateSite) -> Tree | None:
    """Compile a key; None if there is none. A null is an error: it may be a forgotten value."""
    value, location = declared.lookup(KEY)
    if value is None:
        if any(KEY in layer.raw for layer in declared.layers):
            message = f"`{KEY}` is null, not {KEY_FORMS}"
            reading.report.error("bad-value", location, message, "write a key, or leave it out to mean this execution")
        return None
    if not any(strings(value, location)):
        _check(reading, value, location, signal_key, KEY_FORMS)
    return reading.tree(value, location, part)


def read_signal(reading: Reading, name: str, declared: Declared) -> SignalSpec | None:
    """Read a `signal` step; report an error and give None if it names no signal."""
    part = TemplateSite(step=name, role="fields")
    signal, location = declared.lookup("signal")
    if signal is None:
        message = f"the signal step `{name}` names no signal"
        reading.report.error("missing-key", declared.layers[-1].location, message, "write signal: name-of-the-signal")
        return None
    if not any(strings(signal, location)):
        _check(reading, signal, location, signal_name, NAME_FORMS)
    for key in ("retry", "timeout"):
        value, where = declared.lookup(key)
        if value is not None:
            reading.report.error("bad-wait", where, f"`{key}` of the signal step `{name}` has no meaning", "remove it")
    payload, where = declared.lookup("payload")
    return SignalSpec(
        name=reading.tree(signal, location, part),
        key=read_key(reading, declared, part),
        payload=None if payload is None else reading.tree(payload, where, part),
    )


def read_on_signal(reading: Reading, metadata: Raw) -> tuple[OnSignal, ...]:
    """Read `metadata.on_signal`, one declaration or a list; report the faults and leave out the faulty ones."""
    value, location = metadata.get("on_signal"), ("metadata", "on_signal")
    if value is None:
        return ()
    given = value if isinstance(value, list) else [value]
    locations: list[Location] = (
        [(*location, index) for index in range(len(given))] if isinstance(value, list) else [location]
    )
    found: dict[str, OnSignal] = {}
    for raw, where in zip(given, locations, strict=True):
        for one in _read_one(reading, raw, where):
            if one.signal in found:
                message = f"`on_signal` names the signal {one.signal!r} twice"
                reading.report.error("duplicate-key", where, message, "join the conditions with `or`")
            found[one.signal] = one
    return tuple(found.values())


def _read_one(reading: Reading, raw: Any, location: Location) -> Iterator[OnSignal]:
    if not isinstance(raw, dict) or raw.get("signal") is None:
        what = "names no signal" if isinstance(raw, dict) else f"is {json_type_name(raw)}"
        hint = 'write on_signal: {signal: name, when: "{{ signal.payload.x }}"}'
        reading.report.error("bad-value", location, f"`on_signal` {what}", hint)
        return
    for key in raw:
        if key not in ON_SIGNAL_KEYS:
            hint = reading.report.did_you_mean(key, ON_SIGNAL_KEYS)
            reading.report.error("unknown-key", (*location, key), f"unknown key `{key}` in `on_signal`", hint, key=True)
    name, where = raw["signal"], (*location, "signal")
    if any(strings(name, where)):
        reading.report.error("bad-value", where, "`signal` of `on_signal` is a template", "write the name itself")
        return
    if not _check(reading, name, where, signal_name, NAME_FORMS):
        return
    yield OnSignal(signal=name, when=_read_condition(reading, raw.get("when"), (*location, "when")))


def _read_condition(reading: Reading, when: Any, location: Location) -> Template | None:
    """Compile the condition of an `on_signal`, which reads nothing but the signal."""
    if when is None:
        return None
    condition = reading.condition(when, location, TemplateSite(step=None, role="workload", names=SIGNAL_PART_NAMES))
    for name in sorted(condition.names - SIGNAL_PART_NAMES if condition is not None else ()):
        message = f"`when` of `on_signal` reads `{name}`; it can read `{SIGNAL}` alone: its name, key, payload and at"
        reading.report.error("bad-when", location, message, "write {{ signal.payload.x }}, or decide in a step")
    return condition


def _check(reading: Reading, value: Any, location: Location, parse: Any, forms: str) -> bool:
    try:
        parse(value)
    except ValueError:
        reading.report.error("bad-value", location, f"`{location[-1]}` is {value!r:.80}, not {forms}", f"write {forms}")
        return False
    return True

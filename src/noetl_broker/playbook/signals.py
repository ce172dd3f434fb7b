"""Reads what a playbook says of signals: the names and keys of waits, `signal` steps, `metadata.on_signal`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keys import (
    BOOL,
    KEY_BYTES,
    NAME_CHARS,
    NUMBER,
    TEXT,
    TREE,
    WHEN,
    Form,
    Key,
    Keys,
    Layers,
    read_keys,
)
from noetl_broker.playbook.keywords import SIGNAL
from noetl_broker.playbook.model import OnSignal, Raw, SignalSpec
from noetl_broker.playbook.reader import TemplateSite, strings

if TYPE_CHECKING:
    from noetl_broker.playbook.reader import Reading

SIGNAL_PART_NAMES: Final = frozenset({SIGNAL})  # what a `when` about a signal finds besides
MOST_NAMES: Final = 20  # of signals, that one wait names
NAME_FORMS: Final = f"a text of 1 to {NAME_CHARS} characters"
NAMES_FORMS: Final = f"{NAME_FORMS}, or a list of up to {MOST_NAMES} such texts"
KEY_FORMS: Final = f"a text of up to {KEY_BYTES} bytes, a number or a boolean"
ON_SIGNAL: Final[Location] = ("metadata", "on_signal")


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


NAME_SCHEMA: Final = {"maxLength": NAME_CHARS, "minLength": 1, "type": "string"}
NAME: Final = Form(NAME_FORMS, signal_name, (NAME_SCHEMA,), templates="parts", compiled=True)
NAMES: Final = Form(NAMES_FORMS, signal_names, templates="parts", compiled=True)
KEY_VALUE: Final = Form(KEY_FORMS, signal_key, (TEXT, NUMBER, BOOL), templates="parts", compiled=True)
KEY: Final = Key("key", KEY_VALUE, null=False)  # a null may be a forgotten value
SIGNAL_KEYS: Final = (Key("signal", NAME, field="name"), KEY, Key("payload", TREE))
ON_SIGNAL_KEYS: Final = Keys(
    model="OnSignalModel",
    about="Signals that start the playbook.",
    word="on_signal",
    keys=(
        Key("signal", NAME._replace(templates="none", compiled=False), "The name of the signals.", required="name"),
        Key("when", WHEN, "Only signals for which this is true; reads `signal`.", names=SIGNAL_PART_NAMES),
    ),
)


def read_signal(reading: Reading, declared: Layers, site: TemplateSite) -> SignalSpec | None:
    """Read a `signal` step; report an error and give None if it names no signal."""
    if declared.lookup("signal")[0] is None:
        message = f"the signal step `{site.step}` names no signal"
        reading.report.error("missing-key", declared.layers[-1].location, message, "write signal: name-of-the-signal")
        return None
    return SignalSpec(**read_keys(reading, SIGNAL_KEYS, declared, site))


def read_on_signal(reading: Reading, metadata: Raw) -> tuple[OnSignal, ...]:
    """Read `metadata.on_signal`, one declaration or a list; report the faults and leave out the faulty ones."""
    value = metadata.get("on_signal")
    given = [((*ON_SIGNAL, index), one) for index, one in enumerate(value)] if isinstance(value, list) else []
    if value is not None and not isinstance(value, list):
        given = [(ON_SIGNAL, value)]
    found: dict[str, OnSignal] = {}
    for where, raw in given:
        one = _read_one(reading, raw, where)
        if one is not None and one.signal in found:
            message = f"`on_signal` names the signal {one.signal!r} twice"
            reading.report.error("duplicate-key", where, message, "join the conditions with `or`")
        if one is not None:
            found[one.signal] = one
    return tuple(found.values())


def _read_one(reading: Reading, raw: Any, location: Location) -> OnSignal | None:
    if not isinstance(raw, dict) or raw.get("signal") is None:
        what = "names no signal" if isinstance(raw, dict) else f"is {json_type_name(raw)}"
        hint = 'write on_signal: {signal: name, when: "{{ signal.payload.x }}"}'
        reading.report.error("bad-value", location, f"`on_signal` {what}", hint)
        return None
    where = (*location, "signal")
    if any(strings(raw["signal"], where)):
        reading.report.error("bad-value", where, "`signal` of `on_signal` is a template", "write the name itself")
        return None
    found = ON_SIGNAL_KEYS.read_mapping(reading, raw, location, TemplateSite(step=None, role="workload"))
    if found is None or "signal" not in found:
        return None
    when = found.get("when")
    for name in sorted(when.names - SIGNAL_PART_NAMES if when is not None else ()):
        message = f"`when` of `on_signal` reads `{name}`; it can read `{SIGNAL}` alone: its name, key, payload and at"
        reading.report.error(
            "bad-when", (*location, "when"), message, "write {{ signal.payload.x }}, or decide in a step"
        )
    return OnSignal(**found)

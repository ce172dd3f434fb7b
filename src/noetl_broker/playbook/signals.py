"""Reads what a playbook says of signals: the names and keys of waits, `signal` steps, `metadata.on_signal`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.keys import (
    BOOL,
    KEY_BYTES,
    NAME,
    NAME_CHARS,
    NUMBER,
    TEXT,
    TREE,
    WHEN,
    Form,
    Key,
    Keys,
    Layers,
    entries_of,
    read_keys,
    that,
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


NAMES: Final = Form(NAMES_FORMS, signal_names, templates="parts", compiled=True)
KEY_VALUE: Final = Form(KEY_FORMS, signal_key, (TEXT, NUMBER, BOOL), templates="parts", compiled=True)
KEY: Final = Key("key", KEY_VALUE, null=False)  # a null may be a forgotten value
SENT: Final = Form(NAME_FORMS, signal_name, templates="parts", compiled=True)
STARTING: Final = NAME._replace(parse=that(lambda value: NAME.fits(value) and not any(strings(value, ()))))
SIGNAL_KEYS: Final = (Key("signal", SENT, field="name"), KEY, Key("payload", TREE))
ON_SIGNAL_KEYS: Final = Keys(
    model="OnSignalModel",
    about="Signals that start the playbook.",
    word="on_signal",
    example='{signal: name, when: "{{ signal.payload.x }}"}',
    keys=(
        Key("signal", STARTING, "The name of the signals.", required="name"),
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
    found: dict[str, OnSignal] = {}
    site = TemplateSite(step=None, role="workload")
    value = metadata.get("on_signal")
    for raw, where in entries_of(value, ON_SIGNAL) if value is not None else ():
        if isinstance(raw, dict) and raw.get("signal") is None:
            hint = f"write on_signal: {ON_SIGNAL_KEYS.example}"
            reading.report.error("bad-value", where, "`on_signal` names no signal", hint)
            continue
        keys = ON_SIGNAL_KEYS.read_mapping(reading, raw, where, site) or {}
        if "signal" not in keys:
            continue
        one = OnSignal(**keys)
        if one.signal in found:
            message = f"`on_signal` names the signal {one.signal!r} twice"
            reading.report.error("duplicate-key", where, message, "join the conditions with `or`")
        found[one.signal] = one
        for name in sorted(one.when.names - SIGNAL_PART_NAMES if one.when is not None else ()):
            message = f"`when` of `on_signal` reads `{name}`; it can read `signal` alone: its name, key, payload and at"
            hint = "write {{ signal.payload.x }}, or decide in a step"
            reading.report.error("bad-when", (*where, "when"), message, hint)
    return tuple(found.values())

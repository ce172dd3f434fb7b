"""Reads a `wait` step: what it waits for, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.durations import DURATION_FORMS, MOMENT_FORMS, parse_duration, parse_moment
from noetl_broker.playbook.model import WaitSpec
from noetl_broker.playbook.reader import Reading, TemplateSite, strings
from noetl_broker.playbook.signals import SIGNAL_PART_NAMES, read_key, read_names
from noetl_broker.playbook.tasks import Declared
from noetl_broker.template import Tree

WAIT_FOR = ("for", "until", "signal")
OF_SIGNALS = ("key", "when", "since", "timeout")


def read_wait(reading: Reading, name: str, declared: Declared) -> WaitSpec | None:
    """Read what a `wait` step waits for; report an error and give None unless it is exactly one thing."""
    part = TemplateSite(step=name, role="fields")
    given = [key for key in WAIT_FOR if declared.lookup(key)[0] is not None]
    if len(given) != 1:
        location = declared.lookup(given[1])[1] if given else declared.layers[-1].location
        what = f"has {' and '.join(f'`{key}`' for key in given)}" if given else "does not say what it waits for"
        hint = "write one of for: 3d, until: a moment, signal: a name"
        reading.report.error("bad-wait", location, f"the wait step `{name}` {what}", hint)
        return None
    value, where = declared.lookup("retry")
    if value is not None:
        reading.report.error("bad-wait", where, f"`retry` of the wait step `{name}` has no meaning", "remove it")
    if given != ["signal"]:
        _refuse_keys_of_signals(reading, name, declared)
        return WaitSpec(
            duration=_read(reading, declared, "for", part, parse_duration, DURATION_FORMS),
            until=_read(reading, declared, "until", part, parse_moment, MOMENT_FORMS),
        )
    when, location = declared.lookup("when")
    of_when = TemplateSite(step=name, role="fields", names=SIGNAL_PART_NAMES)
    return WaitSpec(
        signals=read_names(reading, *declared.lookup("signal"), part),
        key=read_key(reading, declared, part),
        when=None if when is None else reading.condition(when, location, of_when),
        since=_read(reading, declared, "since", part, parse_duration, DURATION_FORMS),
        timeout=_read(reading, declared, "timeout", part, parse_duration, DURATION_FORMS),
    )


def _refuse_keys_of_signals(reading: Reading, name: str, declared: Declared) -> None:
    for key in OF_SIGNALS:
        value, where = declared.lookup(key)
        if value is not None:
            hint = "remove it, or wait for a signal"
            reading.report.error("bad-wait", where, f"`{key}` of the wait step `{name}` needs `signal`", hint)


def _read(
    reading: Reading, declared: Declared, key: str, part: TemplateSite, parse: Callable[[Any], object], forms: str
) -> Tree | None:
    """Compile a duration or a moment, which may be a template."""
    value, where = declared.lookup(key)
    return None if value is None else read_parsed(reading, value, where, part, parse, forms)


def read_parsed(
    reading: Reading, value: Any, where: Location, part: TemplateSite, parse: Callable[[Any], object], forms: str
) -> Tree:
    """Compile a value that `parse` accepts, or a template; report anything else as an error."""
    if not (isinstance(value, str) and any(strings(value, where))):
        try:
            parse(value)
        except ValueError:
            kind = "moment" if forms is MOMENT_FORMS else "duration"
            reading.report.error("bad-value", where, f"`{where[-1]}` is {value!r:.80}, not a {kind}", f"write {forms}")
    return reading.tree(value, where, part)

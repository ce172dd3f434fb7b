"""Reads a `wait` step: what it waits for, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.playbook.keys import DURATION, WHEN, Key, Layers, parsed, read_keys
from noetl_broker.playbook.model import WaitSpec
from noetl_broker.playbook.reader import TemplateSite
from noetl_broker.playbook.signals import KEY, NAMES, SIGNAL_PART_NAMES
from noetl_broker.template.durations import MOMENT_FORMS, parse_moment

if TYPE_CHECKING:
    from noetl_broker.playbook.reader import Reading

OF_TIME = (
    Key("for", DURATION, field="duration"),
    Key("until", parsed("a moment", MOMENT_FORMS, parse_moment)),
)
OF_SIGNALS = (
    Key("signal", NAMES, field="signals"),
    KEY,
    Key("when", WHEN, names=SIGNAL_PART_NAMES),
    Key("since", DURATION),
    Key("timeout", DURATION),
)
WAIT_FOR = ("for", "until", "signal")


def read_wait(reading: Reading, declared: Layers, site: TemplateSite) -> WaitSpec | None:
    """Read what a `wait` step waits for; report an error and give None unless it is exactly one thing."""
    given = [key for key in WAIT_FOR if declared.lookup(key)[0] is not None]
    if len(given) != 1:
        location = declared.lookup(given[1])[1] if given else declared.layers[-1].location
        what = f"has {' and '.join(f'`{key}`' for key in given)}" if given else "does not say what it waits for"
        hint = "write one of for: 3d, until: a moment, signal: a name"
        reading.report.error("bad-wait", location, f"the wait step `{site.step}` {what}", hint)
        return None
    of_signal = given == ["signal"]
    for key in OF_SIGNALS if not of_signal else ():
        value, where = declared.lookup(key.name)
        if value is not None:
            message = f"`{key.name}` of the wait step `{site.step}` needs `signal`"
            reading.report.error("bad-wait", where, message, "remove it, or wait for a signal")
    keys = OF_SIGNALS if of_signal else OF_TIME
    return WaitSpec(**read_keys(reading, keys, declared, site))

"""Reads `metadata.on_failure` and `on_late`: the playbooks that start when an execution has failed or is late."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from noetl_broker.playbook.blocks import MARK
from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.keys import A_MAPPING, Form, Key, Keys
from noetl_broker.playbook.model import OnFailure, Raw
from noetl_broker.playbook.reader import NO_NAMES, CallOfPath, Reading, TemplateSite

PATH: Final = "folder/of/the/playbook"


def _parse_path(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "{{" in value or "{%" in value or MARK in value:
        raise ValueError(value)
    return value.strip()


PATH_KEY: Final = Key(
    "path",
    Form(
        "the path of a playbook, without a template or a block",
        _parse_path,
        ({"minLength": 1, "type": "string"},),
        f"write path: {PATH}",
    ),
    "The path of the playbook; its latest version starts.",
    required=PATH,
)
ARGS: Final = A_MAPPING._replace(hint="write args: {name: value}")
KEYS: Final = Keys(
    model="OnFailureModel",
    about="The playbook that starts when an execution has failed.",
    word="on_failure",
    example=f"{{path: {PATH}}}",
    keys=(PATH_KEY, Key("args", ARGS, "Added to its payload; templates read `error`.")),
)
LATE_KEYS: Final = Keys(
    model="OnLateModel",
    about="The playbook that starts when an execution or a step is late.",
    word="on_late",
    example=KEYS.example,
    keys=(PATH_KEY, Key("args", ARGS, "Added to its payload.")),
)


class Alarm(NamedTuple):
    """A key of the metadata: `given` is what the payload has beside `args`, `seen` what their templates find."""

    keys: Keys
    given: tuple[str, ...]
    seen: frozenset[str]


ON_FAILURE: Final = Alarm(KEYS, ("execution_id", "path", "step", "error", "compensation"), frozenset({"error"}))
ON_LATE: Final = Alarm(LATE_KEYS, ("execution_id", "path", "step", "visit", "since"), NO_NAMES)


def read_alarm(reading: Reading, metadata: Raw, alarm: Alarm = ON_FAILURE) -> OnFailure | None:
    """Read it; report an error and give None for a wrong one."""
    word = alarm.keys.word
    raw: Any = metadata.get(word)
    site = TemplateSite(step=None, role="workload", names=alarm.seen)
    here: Location = ("metadata", word)
    found = None if raw is None else alarm.keys.read_mapping(reading, raw, here, site)
    if found is None:
        return None
    args, location = found.get("args", {}), (*here, "args")
    for key in alarm.given:
        if key in args:
            message = f"`args` of `{word}` has the key `{key}`, which the broker gives"
            reading.report.error("bad-value", (*location, key), message, "rename it", key=True)
    trees = {key: reading.tree(value, (*location, key), site) for key, value in args.items()}
    if "path" not in found:
        return None
    reading.calls.append(CallOfPath((*here, "path"), raw["path"], None))
    return OnFailure(path=found["path"], args=trees)

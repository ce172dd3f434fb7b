"""Reads `metadata.on_failure`: the playbook that starts when an execution has failed."""

from __future__ import annotations

from typing import Any, Final

from noetl_broker.playbook.blocks import MARK
from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.model import OnFailure, Raw
from noetl_broker.playbook.reader import CallOfPath, Reading, TemplateSite, strings
from noetl_broker.template import Tree

LOCATION: Final[Location] = ("metadata", "on_failure")
CODE: Final = "bad-value"
KEYS: Final = ("path", "args")
GIVEN: Final = ("execution_id", "path", "step", "error", "compensation")  # what the payload has beside `args`
SEEN: Final = frozenset({"error"})  # what the templates of `args` find beside the workload and results


def read_on_failure(reading: Reading, metadata: Raw) -> OnFailure | None:
    """Read it; report an error and give None for a wrong one."""
    raw = metadata.get("on_failure")
    if raw is None:
        return None
    report = reading.report
    if not isinstance(raw, dict):
        message = f"`on_failure` is {json_type_name(raw)}, not a mapping"
        report.error(CODE, LOCATION, message, "write on_failure: {path: folder/of/the/playbook}")
        return None
    for key in raw:
        if key not in KEYS:
            hint = report.did_you_mean(key, KEYS)
            report.error("unknown-key", (*LOCATION, key), f"unknown key `{key}` in `on_failure`", hint, key=True)
    path = _read_path(reading, raw)
    args = _read_args(reading, raw.get("args"))
    return None if path is None else OnFailure(path=path, args=args)


def _read_path(reading: Reading, raw: Raw) -> str | None:
    path, location = raw.get("path"), (*LOCATION, "path")
    message = ""
    if path is None:
        message, location = "`on_failure` has no `path`", LOCATION
    elif not isinstance(path, str) or not path.strip():
        message = f"`path` is {path!r:.80}, not the path of a playbook"
    elif any(strings(path, location)):
        message = "`path` of `on_failure` is a template"
    elif MARK in path:
        message = f"`path` of `on_failure` is {path!r:.80}, which names a block"
    if message or path is None:
        reading.report.error(CODE, location, message, "write path: folder/of/the/playbook")
        return None
    reading.calls.append(CallOfPath(location, path, None))
    return str(path).strip()


def _read_args(reading: Reading, args: Any) -> dict[str, Tree]:
    location = (*LOCATION, "args")
    if args is None:
        return {}
    if not isinstance(args, dict):
        reading.report.error(
            CODE, location, f"`args` is {json_type_name(args)}, not a mapping", "write args: {name: value}"
        )
        return {}
    for key in GIVEN:
        if key in args:
            message = f"`args` of `on_failure` has the key `{key}`, which the broker gives"
            reading.report.error(CODE, (*location, key), message, "rename it", key=True)
    part = TemplateSite(step=None, role="workload", names=SEEN)
    return {key: reading.tree(value, (*location, key), part) for key, value in args.items()}

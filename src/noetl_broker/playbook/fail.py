"""Reads a `fail` step: the error with which it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.playbook.diagnostics import json_type_name
from noetl_broker.playbook.keywords import ERROR, ERROR_KEYS
from noetl_broker.playbook.model import FailSpec
from noetl_broker.playbook.reader import TemplateSite

if TYPE_CHECKING:
    from noetl_broker.playbook.reader import Reading
    from noetl_broker.playbook.tasks import Declared

CODE = "bad-fail"
MEANINGLESS = ("retry", "timeout")


def read_fail(reading: Reading, name: str, declared: Declared) -> FailSpec:
    """Read the error of a `fail` step; a wrong part is reported and left out."""
    for key in MEANINGLESS:
        value, where = declared.lookup(key)
        if value is not None:
            reading.report.error(CODE, where, f"`{key}` of the fail step `{name}` has no meaning", "remove it")
    error, location = declared.lookup(ERROR)
    if isinstance(error, str):
        error, locations = {"message": error}, {"message": location}
    elif error is None:
        return FailSpec()
    elif not isinstance(error, dict):
        hint = "write error: {type: declined, message: why}"
        reading.report.error(CODE, location, f"`error` is {json_type_name(error)}, not a mapping", hint)
        return FailSpec()
    else:
        locations = {key: (*location, key) for key in error}
    for key in error:
        if key not in ERROR_KEYS:
            hint = reading.report.did_you_mean(key, ERROR_KEYS)
            reading.report.error(CODE, locations[key], f"unknown key `{key}` in `error`", hint, key=True)
    part = TemplateSite(step=name, role="fields")
    trees = {key: reading.tree(error[key], locations[key], part) for key in ERROR_KEYS if error.get(key) is not None}
    return FailSpec(**trees)

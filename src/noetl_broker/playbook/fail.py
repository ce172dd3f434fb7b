"""Reads a `fail` step: the error with which it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.playbook.keys import TREE, Key, Keys, Layers
from noetl_broker.playbook.keywords import ERROR
from noetl_broker.playbook.model import FailSpec
from noetl_broker.playbook.reader import TemplateSite

if TYPE_CHECKING:
    from noetl_broker.playbook.reader import Reading

CODE = "bad-fail"
KEYS = Keys(
    model="ErrorModel",
    about="The error of a `fail` step.",
    word=ERROR,
    example="{type: declined, message: why}",
    code=CODE,
    keys=(Key("type", TREE), Key("message", TREE), Key("status_code", TREE)),
)


def read_fail(reading: Reading, declared: Layers, site: TemplateSite) -> FailSpec:
    """Read the error of a `fail` step, a text or a mapping; a wrong part is reported and left out."""
    error, location = declared.lookup(ERROR)
    if error is None:
        return FailSpec()
    if isinstance(error, str):
        return FailSpec(message=reading.tree(error, location, site))
    return FailSpec(**KEYS.read_mapping(reading, error, location, site) or {})

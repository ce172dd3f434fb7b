"""The undefined value of templates, and the names of types in its messages.

This module is never compiled: its class has an interpreted base, and mypyc gives such a class too little memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2 import StrictUndefined
from jinja2.runtime import LoopContext
from jinja2.utils import missing

from noetl_broker.template.scope import Results


class Missing(StrictUndefined):
    """An undefined value: only `.key`, `default` and `is defined` accept it; every other use raises."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is missing:
            return f"`{self._undefined_name}` is undefined: no input, step with a result or workload key has that name"
        holder = template_type_name(self._undefined_obj)
        return f"`{self._undefined_name}` is undefined: there is no such key in a {holder}"


def template_type_name(value: object) -> str:
    """Give the type of a value in the terms of playbooks."""
    names = {bool: "boolean", int: "number", float: "number", str: "text", type(None): "null", LoopContext: "loop"}
    if type(value) in names:
        return names[type(value)]
    if isinstance(value, Mapping | Results):
        return "mapping"
    if isinstance(value, list | tuple | range | Iterator):
        return "list"
    return type(value).__name__.lower()

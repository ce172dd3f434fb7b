"""A template in which values stand in place of some names: it means the same where nobody knows these."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Final

from jinja2 import nodes
from jinja2.exceptions import TemplateRuntimeError

from noetl_broker.template import engine
from noetl_broker.template.allowance import MAX_SOURCE_CHARS, Allowance
from noetl_broker.template.compiled import reason
from noetl_broker.template.fault import TemplateError
from noetl_broker.template.render import compile_text
from noetl_broker.template.tree import read_by_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from noetl_broker.template.scope import JSON

BLANK: Final = "whitespace"
CONSTANTS: Final = {None: "none", True: "true", False: "false"}
# A name that follows these is no variable's: it is a key's, a filter's, a test's, or says what a block is.
NO_VARIABLE_AFTER: Final = frozenset({".", "|", "is", "{%", "{%-", "{%+"})
IS_NOT: Final = ("is", "not")
# In steps of an evaluation: parsing twice what is short, and each further value.
COST, COST_OF_ITEM = 3_000, 100


def closed(source: str, at: str, values: Mapping[str, JSON], allowance: Allowance) -> str:
    """Give a template in which these values are written where it read their names; else it is the same text.

    They are data: nothing that stands in them is evaluated. Raises TemplateError where the text grows past what a
    template may be, or the turn past its allowance, and where a name means something else in a part of it.
    """
    names = read_by_text(source)[0] & values.keys()
    if not names:
        return source
    try:
        text = _written(source, at, {name: f"({_literal(values[name])})" for name in names})
        allowance.spend(COST + COST_OF_ITEM * text.count(","))
        allowance.hand_on(len(text))
        left = compile_text(text, at, max_source_chars=None).names if _compiles(source) else read_by_text(text)[0]
    except (TemplateRuntimeError, RecursionError) as fault:
        raise TemplateError(reason(fault), source, at) from fault
    except TemplateError as fault:
        raise _refused(fault.message, source, at) from fault
    if not left <= read_by_text(source)[0] - names or _assigned(text) & names:
        raise _refused(f"it gives a name of its own to one of {', '.join(sorted(names))}", source, at)
    return text


def _written(source: str, at: str, values: Mapping[str, str]) -> str:
    parts: list[str] = []
    room = MAX_SOURCE_CHARS
    for name, text in _variables(source):
        part = values.get(name, text)
        room -= len(part)
        if room < 0:
            names = ", ".join(sorted(values))
            raise TemplateError(f"the values that it reads ({names}) are too long to travel in it", source, at)
        parts.append(part)
    return "".join(parts).replace(engine.CARRIAGE_RETURN, "\r")


def _variables(source: str) -> Iterator[tuple[str, str]]:
    """Give the text of a template in pieces, each with the name of the variable that it is, or without one."""
    pieces = [*engine.ENVIRONMENT.lexer.tokeniter(source.replace("\r", engine.CARRIAGE_RETURN), None)]
    following = deque(text for _, kind, text in pieces if kind != BLANK)
    last = before = ""
    for _, kind, text in pieces:
        if kind == BLANK:
            yield "", text
            continue
        following.popleft()
        names = bool(following) and following[0] == "="  # an argument, or what is set
        variable = kind == "name" and not names and before not in NO_VARIABLE_AFTER and (last, before) != IS_NOT
        yield text if variable else "", text
        last, before = before, text.strip()


def _compiles(source: str) -> bool:
    """Whether it is no text with filters that only a worker knows."""
    try:
        compile_text(source, "", max_source_chars=None)
    except TemplateError:
        return False
    return True


def _assigned(text: str) -> set[str]:
    return {node.name for node in engine.parse(text).find_all(nodes.Name) if node.ctx != "load"}


def _literal(value: JSON) -> str:
    """Write a JSON value as an expression."""
    if isinstance(value, str):
        escaped = f"\\u{ord(engine.CARRIAGE_RETURN):x}"
        return json.dumps(value, ensure_ascii=False).replace(engine.CARRIAGE_RETURN, escaped)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return CONSTANTS[value] if value is None or isinstance(value, bool) else repr(value)


def _refused(why: str, source: str, at: str) -> TemplateError:
    remedy = "hand the values on under their own names, and join them in the step"
    return TemplateError(f"it is left for a worker, and {why}: {remedy}", source, at)

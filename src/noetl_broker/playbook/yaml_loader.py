"""Reads YAML into JSON with the position of every key and value, within limits.

One pass over the parser's events builds the value. Aliases, nesting and nodes are counted first and stop at their
limits. Scalars follow the core schema of YAML 1.2: true, false, null, integers, finite numbers, text. So `no`, `12:30`,
`2024-01-01`, `1_000` and `007` are strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from noetl_broker.playbook.diagnostics import Location, PlaybookRules, Position, Report, json_type_name
from noetl_broker.playbook.work_budget import CHARS, Work
from noetl_broker.template import number_of

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

MAX_INTEGER_BITS = 256
_MAX_DIGITS = 80  # no integer of 256 bits has more

TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")}

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_START = frozenset("+-.0123456789")
_NAMES = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}

Mark = tuple[int, int, int, int]  # line and column of the key, then of the value, from 1


@dataclass(slots=True)
class Document:
    """A loaded document with the positions of its values; `fatal` if reading stopped early."""

    value: Any = None
    marks: dict[int, dict[str | int, Mark]] = field(default_factory=dict)  # by the identity of the container
    root: Position = (1, 1)
    fatal: bool = False

    def where(self, location: Location, *, key: bool = False) -> Position:
        """Give the position of the value at `location` (or of its key), or of the nearest existing one above it."""
        value, found = self.value, self.root
        for depth, part in enumerate(location, 1):
            mark = self.marks.get(id(value), {}).get(part)
            if mark is None:
                return found
            found = mark[:2] if key and depth == len(location) else mark[2:]
            value = value[part]
        return found


class _Stopped(Exception):
    """Reading stopped at an error."""


@dataclass(slots=True)
class _Open:
    """A mapping or list that is not complete; `key` is the one whose value comes next."""

    value: Any
    marks: dict[str | int, Mark]
    anchor: str | None
    nodes: int = 1  # of the container and all below it, aliases counted at full size
    height: int = 1
    key: str | None = None
    key_at: Position = (1, 1)
    drop: bool = False  # the next value belongs to a duplicate key
    chars: int = 0  # of the names that lead to the container


def load_into(document: Document, source: bytes | str, report: Report, rules: PlaybookRules, work: Work) -> None:
    """Read one document; errors are in the report. Raises TooMuchWork."""
    try:
        _Reader(document, report, rules, work).read(_text(source, report, rules))
    except _Stopped:
        document.fatal = True


def _text(source: bytes | str, report: Report, rules: PlaybookRules) -> str:
    size = len(source) if isinstance(source, bytes) else len(source.encode("utf-8", "surrogatepass"))
    if size > rules.max_document_bytes:
        report.error(
            "too-large",
            (),
            f"the document has {size:,} bytes, and {rules.max_document_bytes:,} are allowed",
            "split it into playbooks that call each other",
        )
        raise _Stopped
    try:
        return source.decode("utf-8-sig") if isinstance(source, bytes) else source.encode().decode("utf-8-sig")
    except UnicodeError as error:
        what, at = "half of a surrogate pair", (1, 1)
        if isinstance(error, UnicodeDecodeError):
            before = error.object[: error.start].decode("utf-8", "replace")
            what = f"byte 0x{error.object[error.start]:02x}"
            at = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        report.error_at("not-utf8", (), at, f"the document is not UTF-8: {what}", "save the file as UTF-8")
        raise _Stopped from error


def _bad_character(text: str) -> Position:
    """Give the position of the first character that YAML does not allow."""
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    before = text[: found.start()] if found else ""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _Reader:
    """Builds the value of one document from the events of the YAML parser."""

    def __init__(self, document: Document, report: Report, rules: PlaybookRules, work: Work) -> None:
        self.document, self.report, self.rules, self.work = document, report, rules, work
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int, int] | None] = {}  # value, nodes, height; None while it is open
        self.nodes = 0
        self.documents = 0
        self.at: Position = (1, 1)

    def read(self, text: str) -> None:
        """Handle each event of the parser."""
        take = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._open,
            yaml.SequenceStartEvent: self._open,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._start,
        }
        for event in self._events(text):
            handler = take.get(type(event))
            if handler is not None:
                mark = event.start_mark
                self.at = (mark.line + 1, mark.column + 1)
                handler(event)
        if not self.documents:
            self._stop("empty", "the document is empty", "start with `apiVersion: noetl.io/v1`")

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(text, Loader=LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if mark is not None:
                self.at = (mark.line + 1, mark.column + 1)
            if "nesting depth" in str(error.problem):  # libyaml has a limit of its own, and reads ahead
                self._stop_too_deep()
            context = f" {error.context}" if error.context else ""
            self._stop("not-yaml", f"not YAML: {error.problem}{context}", "look at this line and the one above it")
        except yaml.YAMLError as error:
            self.at = _bad_character(text)
            self._stop("not-yaml", f"not YAML: {str(error).splitlines()[0]}", "remove the control character")

    def _fail(self, code: str, message: str, hint: str) -> None:
        self.report.error_at(code, self._location(), self.at, message, hint)

    def _stop(self, code: str, message: str, hint: str) -> NoReturn:
        self._fail(code, message, hint)
        raise _Stopped

    def _location(self) -> Location:
        location: list[str | int] = []
        for depth, top in enumerate(self.stack, 1):
            if isinstance(top.value, list):  # a container is in its list already, a scalar is not
                location.append(len(top.value) - (depth < len(self.stack)))
            elif top.key is not None:
                location.append(top.key)
        return tuple(location)

    def _start(self, _event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            self._stop("several-documents", "the file holds more than one document", "one file holds one playbook")

    def _count(self, nodes: int, height: int) -> None:
        self.nodes += nodes
        top = self.stack[-1] if self.stack else None
        if top is not None:
            self.work.spend(nodes * (1 + (top.chars + len(top.key or "")) // CHARS))
        if self.nodes > self.rules.max_nodes:
            limit = f"{self.rules.max_nodes:,} nodes"
            if nodes > 1:
                self._stop("alias-bomb", f"aliases expand the document beyond {limit}", "write the values out")
            self._stop("too-many-nodes", f"the document has more than {limit}", "split it into several playbooks")
        if len(self.stack) + height > self.rules.max_depth:
            self._stop_too_deep()

    def _stop_too_deep(self) -> NoReturn:
        self._stop("too-deep", f"nesting is deeper than {self.rules.max_depth}", "flatten the structure")

    def _scalar(self, event: Any) -> None:
        self._count(1, 0)
        value = self._value_of(event)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1, 0)
        top = self.stack[-1] if self.stack else None
        if top is not None and top.key is None and isinstance(top.value, dict):
            self._key(top, event, value)
            return
        self._add(value)
        if top is not None:
            top.nodes += 1
            top.key = None

    def _key(self, top: _Open, event: Any, key: Any) -> None:
        text = key if isinstance(key, str) else event.value
        top.key, top.key_at, top.drop = text, self.at, False
        if not isinstance(key, str):
            self._fail(
                "bad-key", f"the key {text or 'null'} is {json_type_name(key)}", f'keys are strings: write "{text}":'
            )
        elif text == "<<" and event.implicit[0]:
            self._fail("merge-key", "merge keys (`<<`) are not supported", "write the keys out")
        elif text in top.marks:
            first = top.marks[text]
            top.drop = True
            self._fail(
                "duplicate-key",
                f"the key `{text}` is twice in one mapping, first on line {first[0]}, column {first[1]}",
                "keep one of them",
            )

    def _value_of(self, event: Any) -> Any:
        try:
            return resolve(event.value, tag=event.tag, plain=event.implicit[0] and event.tag is None)
        except ValueError as error:
            self._fail("bad-value", str(error), "write text in quotes, and only what JSON can hold")
            return str(event.value).encode("utf-8", "replace").decode().replace("\0", "")

    def _open(self, event: Any) -> None:
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._forbid_as_key(json_type_name(value))
        if event.tag and event.tag != "!" and TAGS.get(event.tag) not in ("map", "seq"):
            self._fail("bad-value", f"the tag {event.tag} is not supported", "remove the tag")
        self._count(1, 1)
        marks: dict[str | int, Mark] = {}
        self.document.marks[id(value)] = marks
        self._add(value)
        if event.anchor:
            self.anchors[event.anchor] = None
        top = self.stack[-1] if self.stack else None
        chars = 0 if top is None else top.chars + len(top.key or "")
        self.stack.append(_Open(value, marks, event.anchor, chars=chars))

    def _close(self, _event: Any) -> None:
        done = self.stack.pop()
        if done.anchor:
            self.anchors[done.anchor] = (done.value, done.nodes, done.height)
        if self.stack:
            top = self.stack[-1]
            top.nodes += done.nodes
            top.height = max(top.height, done.height + 1)
            top.key = None

    def _alias(self, event: Any) -> None:
        self._forbid_as_key("an alias")
        known = self.anchors.get(event.anchor)
        if known is None:
            self._stop("alias-bomb", f"the alias *{event.anchor} is inside its own value", "write the value out")
        value, nodes, height = known
        self._count(nodes, height)
        self._add(value)
        top = self.stack[-1]
        top.nodes += nodes
        top.height = max(top.height, height + 1)
        top.key = None

    def _forbid_as_key(self, what: str) -> None:
        top = self.stack[-1] if self.stack else None
        if top is not None and top.key is None and isinstance(top.value, dict):
            self._stop("bad-key", f"{what} is used as a key", 'a template needs quotes: "{{ … }}"')

    def _add(self, value: Any) -> None:
        """Add a value to the open container; a container is added when it opens, so that its location is known."""
        if not self.stack:
            self.document.value, self.document.root = value, self.at
            return
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.marks[len(top.value)] = (*self.at, *self.at)
            top.value.append(value)
        elif not top.drop and top.key is not None:
            top.marks[top.key] = (*top.key_at, *self.at)
            top.value[top.key] = value


def resolve(text: str, *, tag: str | None, plain: bool) -> str | float | bool | None:
    """Give the value of a scalar; `plain`: without quotes and tag. Raises ValueError for what JSON cannot hold."""
    if plain:
        return _plain(text)
    if tag in (None, "!", "tag:yaml.org,2002:str"):
        return _storable(text)
    wanted = TAGS.get(str(tag))
    value = _plain(text)
    if _NAMES[type(value)] == wanted:
        return value
    if wanted == "float" and _NAMES[type(value)] == "int" and value is not None:
        return number_of(float(value))
    if wanted in ("int", "float", "bool", "null"):
        raise ValueError(f"{text!r} is not of the type {wanted} that its tag says")
    raise ValueError(f"the tag {tag} is not supported")


def _plain(text: str) -> str | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return _storable(text)
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ValueError(f"the number {text} is too large")
        return number_of(number)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is a number that JSON does not have")
    return _storable(text)


def _integer(text: str) -> int:
    number = int(text, 0) if len(text) <= _MAX_DIGITS else 1 << MAX_INTEGER_BITS
    if number.bit_length() > MAX_INTEGER_BITS:
        raise ValueError(f"the integer {text[:20]}… has more than {MAX_INTEGER_BITS} bits")
    return number


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("text with a NUL character cannot be stored")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("text with half of a surrogate pair cannot be stored") from None
    return text

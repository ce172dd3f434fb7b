"""Reads values as a person writes them on the command line: JSON, also from a file, spans of time, rates."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_origin

from noetl_broker.errors import OperatorFault
from noetl_broker.service.typed_json import read_json
from noetl_broker.service.typed_values import SECONDS, WRITTEN, TypedNumber

EXAMPLES: Final[Mapping[str, str]] = {"form": '{"discount": 5}'}
EXAMPLE: Final = '{"city": "Paris"}'


def read_typed(name: str, kind: Any, value: Any, option: str) -> Any:
    """The value of a field of a type; what is no text, and other texts, stay as they are. Raises OperatorFault."""
    reader = READERS.get(name)
    if kind is Any:
        reader = _reader_of(read_json_in)
    elif get_origin(kind) is dict:
        reader = _reader_of(read_object)
    return value if reader is None or not isinstance(value, str) else reader(value, option)


def _reader_of(read: Callable[[str, str, str], Any]) -> Callable[[str, str], Any]:
    """Reads a text, or that of `@FILE` (`@-` is stdin); `read` gets it with its source and what it is."""

    def read_written(written: str, option: str) -> Any:
        what = option.removeprefix("--")
        if written.startswith("@"):
            return read(read_text(written[1:], what), written[1:], what)
        return read(written, option, what)

    return read_written


def read_json_in(text: str, source: str, what: str, example: str | None = None) -> Any:
    """The value of a JSON text of a source; `what` names it. Raises OperatorFault with an example."""
    try:
        return read_json(text)
    except ValueError as error:
        written = example or f"--{what} '{EXAMPLES.get(what, EXAMPLE)}'"
        raise OperatorFault(
            f"the {what} in {source} {str(error).removeprefix('it ')}; write for example {written}"
        ) from error


def read_object(text: str, source: str, what: str) -> dict[str, Any]:
    """The object of a JSON text of a source."""
    value = read_json_in(text, source, what)
    if not isinstance(value, dict):
        raise OperatorFault(
            f'the {what} in {source} must be a JSON object, for example {{"items": {text.strip():.60}}}'
        )
    return value


def read_text(file: str, what: str) -> str:
    """The text of a file; `-` is stdin. Raises OperatorFault if it cannot be read."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorFault(f"the {what} {file} cannot be read: {error}") from error


def _reader_of_number(number: TypedNumber) -> Callable[[str, str], float]:
    def read(written: str, option: str) -> float:
        try:
            return number.read(written)
        except ValueError as error:
            raise OperatorFault(f"{option}: {error}") from None

    return read


read_seconds = _reader_of_number(SECONDS)
READERS: Final = {name: _reader_of_number(number) for name, number in WRITTEN.items()}

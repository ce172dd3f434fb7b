"""Reads values as a person writes them on the command line: JSON, also from a file, spans of time, rates."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from noetl_broker.errors import OperatorFault
from noetl_broker.service.typed_json import read_json
from noetl_broker.service.typed_values import read_written

EXAMPLES: Final[Mapping[str, str]] = {"form": '{"discount": 5}'}
EXAMPLE: Final = '{"city": "Paris"}'


def read_typed(name: str, kind: Any, value: Any, option: str) -> Any:
    """The value of a field of a type; what is no text, and other texts, stay as they are. Raises OperatorFault.

    JSON may be in a file: `@FILE` (`@-` is stdin).
    """
    what = option.removeprefix("--")

    def read(written: str) -> Any:
        text, source = (read_text(written[1:], what), written[1:]) if written.startswith("@") else (written, option)
        return read_json_in(text, source, what) if kind is Any else read_object(text, source, what)

    try:
        return read_written(name, kind, value, read) if isinstance(value, str) else value
    except ValueError as error:
        raise OperatorFault(f"{option}: {error}") from None


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
        return read_bytes(file, what).decode()
    except UnicodeDecodeError as error:
        raise OperatorFault(f"the {what} {file} cannot be read: {error}") from error


def read_bytes(file: str, what: str) -> bytes:
    """The bytes of a file; `-` is stdin. Raises OperatorFault if it cannot be read."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except IsADirectoryError as error:
        raise OperatorFault(f"{file} is a directory: give files, such as {Path(file) / '*.yaml'}") from error
    except OSError as error:
        raise OperatorFault(f"the {what} {file} cannot be read: {error.strerror or error}") from error

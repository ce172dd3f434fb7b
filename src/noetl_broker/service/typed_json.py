"""JSON as a person typed it, and JSON text of a program's value: one opinion about what counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from noetl_broker.errors import OperatorFault
from noetl_broker.template import read_integer, read_real

MOST_VALUES: Final = 250_000  # of one JSON text, with the names of fields; to read them takes about 0.2 s
MANY_VALUES: Final = f"it has more than {MOST_VALUES:,} values and names"
MOST_LEVELS: Final = 190  # of nesting in a payload, as `noetl.start_execution` counts
_MARKS: Final = (b",", b":", b"[", b"{")  # one before each value or name, but for the first


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError with what is wrong and where: `it is not JSON: … in line 1, …`."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=read_integer, parse_float=read_real)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"it is not JSON: it is nested too deeply, it has at most {MOST_LEVELS} levels") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def read_short_json(text: str) -> Any:
    """As `read_json`. Raises ValueError also for many values: to read them holds up all other requests."""
    if has_many_values(text.encode(errors="surrogatepass")):
        raise ValueError(MANY_VALUES)
    return read_json(text)


def json_text(value: Any, what: str = "payload") -> str:
    """The JSON text of a value; raises OperatorFault, which calls it `what`, for what JSON cannot hold."""
    kind = "mapping" if isinstance(value, Mapping) else "value"
    try:
        plain = dict(value) if isinstance(value, Mapping) else value
        # Half of a pair of surrogates has no bytes.
        return json.dumps(plain, allow_nan=False, ensure_ascii=False).encode().decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise OperatorFault(f"the {what} must be a {kind} that JSON can hold: {error}") from error


def has_many_values(text: bytes) -> bool:
    """Whether a JSON text has more than MOST_VALUES; a small part of what reading it costs."""
    if sum(map(text.count, _MARKS)) <= MOST_VALUES:
        return False
    if b"\0" in text:  # UTF-16 or UTF-32; JSON in UTF-8 has none
        return True
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 4 * MOST_VALUES:  # each text is a value or a name
        return True
    outside = b"".join(bare.split(b'"')[::2])
    return sum(map(outside.count, _MARKS)) > MOST_VALUES


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")

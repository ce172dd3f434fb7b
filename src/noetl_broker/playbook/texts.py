"""Checks the program texts of a task: each is text, and stands under one of its words."""

from __future__ import annotations

from noetl_broker.playbook.findings import Place, kind_of
from noetl_broker.playbook.model import Raw
from noetl_broker.playbook.reading import Reading
from noetl_broker.playbook.vocabulary import ENCODED_KEYS, PLAIN_KEYS, PROGRAM_TYPES

# The words for one text: a job has them under one name.
NAMES = {**{key: key for key in PLAIN_KEYS}, **ENCODED_KEYS, "sql_b64": "command_b64"}
NO_LISTS = frozenset({"code", "code_b64"})  # of statements, one after the other


def refuse_texts(reading: Reading, kind: str, raw: Raw, place: Place) -> None:
    """Report a program that is no text, and a second word for the same one: a job has room for one."""
    written: dict[str, str] = {}
    for key, value in raw.items():
        if key not in NAMES or value is None:
            continue
        if kind in PROGRAM_TYPES and not isinstance(value, str if key in NO_LISTS else str | list):
            message = f"`{key}` is {kind_of(value)}, not the text of a program"
            reading.report.error("bad-value", (*place, key), message, "write the program itself, as one text")
        first = written.setdefault(NAMES[key], key)
        if first != key:
            message, hint = f"`{key}` says again what `{first}` says", f"keep `{first}`, or keep `{key}`"
            reading.report.error("doubled-text", (*place, key), message, hint, key=True)


def without_texts_of(raw: Raw, over: Raw) -> Raw:
    """Give a workbook action without the texts for which the step over it has another, under whatever word."""
    replaced = {NAMES[key] for key, value in over.items() if key in NAMES and value is not None}
    return {key: value for key, value in raw.items() if NAMES.get(key) not in replaced}

"""Values of JSON, as the core has them, and the name of a visit."""

from __future__ import annotations

from typing import Any

JSON = Any  # None | bool | int | float | str | list | dict, checked where it enters
Visit = tuple[str, int]  # a step's name and the number of the visit, from 1


def as_stored(value: JSON) -> JSON:
    """The value with the keys of its mappings in the order of jsonb: shorter first, then by bytes.

    So a value from the database and one from an earlier turn of the batch read the same.
    """
    if isinstance(value, dict):
        ordered = [(key, value[key]) for key in sorted(value, key=_rank_of_key)]
        return {key: as_stored(item) if isinstance(item, dict | list) else item for key, item in ordered}
    return [as_stored(item) for item in value] if isinstance(value, list) else value


def _rank_of_key(key: str) -> tuple[int, bytes]:
    encoded = key.encode()
    return len(encoded), encoded

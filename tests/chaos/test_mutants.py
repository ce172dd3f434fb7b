"""The rules of the hot path, broken one by one: probes that are not told which is broken find each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.chaos.extent import LONG
from tests.chaos.mutants import MUTANTS, Patch
from tests.chaos.probes import PROBES
from tests.postgres import Database

pytestmark = pytest.mark.chaos


async def detect(
    patches: tuple[Patch, ...], new_database: Callable[[], AbstractContextManager[Database]], *, all_probes: bool
) -> dict[str, str]:
    """What each probe sees on a database of its own; unless `all_probes`, the first that sees something is enough."""
    found: dict[str, str] = {}
    for name, probe in PROBES.items():
        with new_database() as database, pytest.MonkeyPatch.context() as monkeypatch:
            for patch in patches:
                await patch.apply(database, monkeypatch)
            try:
                seen = await probe(database, monkeypatch)
            except TimeoutError:
                seen = "it never ends"
        if seen is not None:
            found[name] = seen
            if not all_probes:
                break
    return found


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_broken_rule_is_caught(
    mutant: str,
    new_database: Callable[[], AbstractContextManager[Database]],
    tried: Callable[[str, object], None],
) -> None:
    """The patches of a mutant are applied; the program without any passes all the probes."""
    patches = MUTANTS[mutant]
    found = await detect(patches, new_database, all_probes=LONG)
    tried(f"mutant: {mutant}", "; ".join(f"{probe}: {fault}" for probe, fault in found.items()) or "no fault seen")
    assert bool(found) == bool(patches), found

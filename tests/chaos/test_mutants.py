"""Mutation tests of the hot path: each rule is broken by a patch, and the probes must notice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.brokers import register, start
from tests.chaos.killed_brokers import broker, drain
from tests.chaos.mutants import MUTANTS, Patch
from tests.chaos.probes import PROBES, standstill
from tests.chaos.sampling import LONG
from tests.postgres import Database
from tests.sessions import session

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("same_statements")]


async def detect(
    patches: tuple[Patch, ...], new_database: Callable[[], AbstractContextManager[Database]], *, all_probes: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Give the faults that the probes find, each on its own database, and the probes that ran out of time.

    Unless `all_probes`, stops at the first fault. A timeout says nothing about the program.
    """
    found: dict[str, str] = {}
    late: dict[str, str] = {}
    for name, probe in PROBES.items():
        with new_database() as database, pytest.MonkeyPatch.context() as monkeypatch:
            for patch in patches:
                await patch.apply(database, monkeypatch)
            try:
                seen = await probe(database, monkeypatch)
            except TimeoutError as error:
                late[name] = f"ran out of time: {error}"
                continue
        if seen is not None:
            found[name] = seen
            if not all_probes:
                break
    return found, late


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_broken_rule_is_noticed(
    mutant: str,
    new_database: Callable[[], AbstractContextManager[Database]],
    tried: Callable[[str, object], None],
) -> None:
    """The program without a patch passes all probes."""
    patches = MUTANTS[mutant]
    found, late = await detect(patches, new_database, all_probes=LONG)
    faults = "; ".join(f"{probe}: {fault}" for probe, fault in (found | late).items())
    tried(f"mutant: {mutant}", faults or "no fault seen")
    assert bool(found) == bool(patches), faults
    assert not late or patches, faults


async def test_a_timeout_of_a_probe_is_no_fault(database: Database) -> None:
    """There is no mail, another session holds it, or nothing tries to read it."""
    await register(database, "workflow:\n- {step: start}\n")
    async with broker(database) as lanes, session(database) as other, session(database) as connection:
        with pytest.raises(TimeoutError, match="0 mails are held by nobody"):
            await standstill(asyncio.sleep(60), (lanes,), database, 0.1, patience=0.1)
        await start(database)
        with pytest.raises(TimeoutError, match="1 mails are held by nobody, 0 tries"):
            await standstill(asyncio.sleep(60), (lanes,), database, 0.1, patience=0.1)
        async with other.transaction():
            await other.execute("select from noetl.inbox for update")
            with pytest.raises(TimeoutError, match="0 mails are held by nobody"):
                await standstill(drain(lanes, connection), (lanes,), database, 1.0, patience=1.0)
        assert await standstill(drain(lanes, connection), (lanes,), database, 20.0) is None

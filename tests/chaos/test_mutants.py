"""The rules of the hot path, broken one by one: probes that are not told which is broken find each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.brokers import register, start
from tests.chaos.extent import LONG
from tests.chaos.killing import broker, drain
from tests.chaos.mutants import MUTANTS, Patch
from tests.chaos.probes import PROBES, standstill
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos


async def detect(
    patches: tuple[Patch, ...], new_database: Callable[[], AbstractContextManager[Database]], *, all_probes: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """What each probe sees on a database of its own; unless `all_probes`, the first that sees something is enough.

    Apart from that, which of them ran out of time: that says nothing about the program.
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
async def test_a_broken_rule_is_caught(
    mutant: str,
    new_database: Callable[[], AbstractContextManager[Database]],
    tried: Callable[[str, object], None],
) -> None:
    """The patches of a mutant are applied; the program without any passes all the probes."""
    patches = MUTANTS[mutant]
    found, late = await detect(patches, new_database, all_probes=LONG)
    told = "; ".join(f"{probe}: {fault}" for probe, fault in (found | late).items())
    tried(f"mutant: {mutant}", told or "no fault seen")
    assert bool(found) == bool(patches), told
    assert not late or patches, told


async def test_time_that_runs_out_is_no_fault(database: Database) -> None:
    """Nobody has mail to read; or somebody holds it; or nobody tries to read it."""
    await register(database, "workflow:\n- {step: start}\n")
    async with broker(database) as evaluator, session(database) as other, session(database) as connection:
        with pytest.raises(TimeoutError, match="0 mails are held by nobody"):
            await standstill(asyncio.sleep(60), (evaluator,), database, 0.1)
        await start(database)
        with pytest.raises(TimeoutError, match="1 mails are held by nobody, 0 tries"):
            await standstill(asyncio.sleep(60), (evaluator,), database, 0.1)
        async with other.transaction():
            await other.execute("select from noetl.inbox for update")
            with pytest.raises(TimeoutError, match="0 mails are held by nobody"):
                await standstill(drain(evaluator, connection), (evaluator,), database, 1.0)
        assert await standstill(drain(evaluator, connection), (evaluator,), database, 20.0) is None

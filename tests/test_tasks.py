"""Waits for an event, and work beside background tasks."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.tasks import run_beside, wait_for


async def lost() -> None:
    """End as cancelled, although nobody cancelled it."""
    raise asyncio.CancelledError


async def test_a_background_task_that_is_cancelled_ends_the_work_with_an_error() -> None:
    """Without the error a worker would stop as if it had been told to."""
    background = [asyncio.create_task(lost(), name="lease renewal")]
    with pytest.raises(RuntimeError, match="lease renewal ended before the work"):
        await run_beside(background, asyncio.sleep(3600))


async def test_work_that_ends_first_is_no_error() -> None:
    """Its background tasks still run then."""
    background = [asyncio.create_task(asyncio.sleep(3600))]
    await run_beside(background, asyncio.sleep(0))
    assert not background[0].done()
    background[0].cancel()


@pytest.mark.parametrize("rounds", range(5))
async def test_a_cancel_that_comes_with_the_event_is_not_lost(rounds: int) -> None:
    """In any round of the loop between the event and the end of the wait."""
    event = asyncio.Event()

    async def wait_again_and_again() -> None:
        while True:
            await wait_for(event, 60.0)
            await asyncio.Event().wait()

    task = asyncio.create_task(wait_again_and_again())
    await asyncio.sleep(0)
    event.set()
    for _ in range(rounds):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10.0)
    assert done

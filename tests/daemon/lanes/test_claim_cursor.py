"""The claim cursor of the inbox avoids scans of dead rows, and hides no mail."""

from __future__ import annotations

import pytest

from noetl_broker.daemon import claim_cursor
from noetl_broker.daemon.claim_cursor import MARGIN, MAX_FAST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, WIDE_MARGIN, ClaimCursor
from tests.brokers import broken_invariants, register, running, start, until_ended, value
from tests.chaos.under_load import until
from tests.postgres import Database
from tests.sessions import session

DEAR = 10.0  # seconds of a full scan


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        """Begin at any time."""
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        """Give the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stop the clock of the cursor: a busy machine may wait for longer than its pauses."""
    stopped = Clock()
    monkeypatch.setattr(claim_cursor, "time", stopped)
    return stopped


@pytest.mark.usefixtures("clock")
def test_after_a_slow_full_scan_claims_begin_a_wide_margin_before_the_cursor() -> None:
    """Mail with a lower id may be committed later."""
    cursor = ClaimCursor()
    assert cursor.next_start() == 0
    for _ in range(2):
        cursor.scanned(10_000, 0, DEAR)
    cursor.scanned(30_000, 10_000, 0.001)
    cursor.scanned(None, 30_000, 0.001)
    assert cursor.next_start() == cursor.near == 30_000 - WIDE_MARGIN
    cursor.rewind(20_000)
    assert cursor.next_start() == 20_000 - WIDE_MARGIN
    assert cursor.seconds_to_full_scan == MAX_PAUSE_SECONDS


@pytest.mark.usefixtures("clock")
def test_while_full_scans_are_fast_claims_begin_a_small_margin_before_the_cursor() -> None:
    """The next full scan comes soon and finds older mail."""
    cursor = ClaimCursor()
    cursor.scanned(30_000, 0, 0.001)
    assert cursor.next_start() == cursor.near == 30_000 - MARGIN


@pytest.mark.usefixtures("clock")
def test_after_a_full_claim_the_next_claim_begins_behind_it() -> None:
    """Our own lanes hold those rows. After a claim that is not full, the next begins at the margin."""
    cursor = ClaimCursor()
    cursor.scanned(30_000, 0, 0.001, behind=30_200)
    assert (cursor.next_start(), cursor.near) == (30_200, 30_000 - MARGIN)
    cursor.scanned(30_200, 30_200, 0.001, behind=30_400)
    assert cursor.next_start() == 30_400
    cursor.scanned(30_400, 30_400, 0.001)
    assert cursor.next_start() == 30_400 - MARGIN


def test_a_full_scan_comes_soon_however_many_full_claims_there_are(clock: Clock) -> None:
    """Mail that was committed late waits no longer, also during a backlog."""
    cursor = ClaimCursor()
    cursor.scanned(30_000, 0, 0.004, behind=30_200)
    for claims in range(10):
        assert cursor.next_start() > 0
        cursor.scanned(30_200 + 200 * claims, cursor.next_start(), 0.001, behind=30_400 + 200 * claims)
    clock.now += 2 * MAX_FAST_PAUSE_SECONDS
    assert cursor.next_start() == 0
    assert cursor.next_start() > 0


@pytest.mark.usefixtures("clock")
def test_the_next_claim_begins_at_mail_that_a_full_claim_left() -> None:
    """The batch failed, or other brokers held some of the mail."""
    cursor = ClaimCursor()
    cursor.scanned(30_000, 0, 0.001, behind=30_200)
    cursor.rewind(30_000)
    assert cursor.next_start() == 30_000 - MARGIN


@pytest.mark.usefixtures("clock")
def test_a_claim_behind_a_rewind_is_ignored() -> None:
    """The cursor stays at the rewind."""
    cursor = ClaimCursor()
    cursor.scanned(30_000, 0, 0.001, behind=30_200)
    cursor.rewind(30_000)
    cursor.scanned(30_200, 30_200, 0.001, behind=30_400)
    assert cursor.next_start() == 30_000 - MARGIN


@pytest.mark.usefixtures("clock")
def test_while_full_scans_are_slow_no_claim_begins_behind_another() -> None:
    """Mail that was committed late would wait for seconds."""
    cursor = ClaimCursor()
    cursor.scanned(30_000, 0, DEAR)
    cursor.scanned(30_000, 0, DEAR, behind=30_200)
    assert cursor.next_start() == 30_000 - WIDE_MARGIN


@pytest.mark.usefixtures("clock")
def test_one_slow_full_scan_alone_does_not_count() -> None:
    """The session was new or the machine busy. The next scan comes soon."""
    cursor = ClaimCursor()
    cursor.scanned(30_000, 0, DEAR)
    assert (cursor.next_start(), cursor.seconds_to_full_scan) == (30_000 - MARGIN, 0)


@pytest.mark.usefixtures("clock")
def test_a_full_scan_moves_the_cursor_back() -> None:
    """It found mail with a lower id."""
    cursor = ClaimCursor()
    cursor.scanned(30_000, 0, DEAR)
    cursor.scanned(10_000, 0, DEAR)
    assert cursor.next_start() == 10_000 - WIDE_MARGIN
    cursor.scanned(100, 0, DEAR)
    assert cursor.next_start() == 0


@pytest.mark.usefixtures("clock")
def test_a_fast_full_scan_is_always_due_before_a_sleep() -> None:
    """Without an old snapshot a delay would save nothing."""
    cursor = ClaimCursor()
    cursor.scanned(300, 0, 0.0001)
    assert cursor.seconds_to_full_scan == 0


async def test_mail_that_is_committed_late_is_read_behind_the_cursor(database: Database) -> None:
    """Its id is lower than those already read. No sweep helps."""
    await register(database, "workflow:\n- {step: start}\n")
    async with session(database) as writer, running(database, sweep_seconds=600.0, lanes=1):
        transaction = writer.transaction()
        await transaction.start()
        late = await writer.fetchval("select noetl.start_execution('story')")
        others = await start(database, count=500)
        await until(database, "select count(*) = $1 from noetl.execution where status = 'COMPLETED'", len(others))
        await transaction.commit()
        await until_ended(database)
    assert await value(database, "select status from noetl.execution where execution_id = $1", late) == "COMPLETED"
    assert await broken_invariants(database) == {}


async def test_claims_of_the_newest_mail_begin_at_the_cursor_too(database: Database) -> None:
    """Otherwise, with few mails left, they would scan all dead rows."""
    async with session(database) as own:
        for number in range(3):
            await own.execute("insert into noetl.inbox (execution_id, event_id) values ($1, $1)", number)
        ids = [row["mail_id"] for row in await own.fetch("select mail_id from noetl.inbox order by mail_id")]
        for newest in (True, False):
            look = "select mail_id from noetl.take_mail(9, $1, $2) order by mail_id"
            assert [row["mail_id"] for row in await own.fetch(look, newest, ids[1])] == ids[1:]

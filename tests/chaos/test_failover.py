"""The primary dies and its standby takes over: nothing acknowledged is lost, and the daemon finds the new primary."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import psycopg
import pytest

from noetl_broker import embedded_postgres
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.embedded_postgres.binaries import choose_account
from noetl_broker.embedded_postgres.server import EmbeddedPostgres
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import PATIENCE_SECONDS, broken_invariants, execute, running, start, value
from tests.chaos.under_load import Tried, finish_all, leave_core, prepare, until
from tests.postgres import Database

pytestmark = pytest.mark.chaos


class Pair(NamedTuple):
    """A primary and its synchronous standby."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Yield both, in sync."""
    with embedded_postgres.start() as primary:
        account = choose_account()
        folder = primary.folder / "standby"
        folder.mkdir()
        if account.switch:
            os.chown(folder, account.user_id, account.group_id)
        answer = account.run(
            primary.bin_folder / "pg_basebackup", "-D", folder / "data", "-R", "-X", "stream", "-c", "fast",
            "-d", primary.dsn() + "?application_name=standby", folder=primary.folder,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        (folder / "password").write_text(primary.password, encoding="ascii")
        with embedded_postgres.start(folder) as standby:
            yield Pair(primary, standby)


def on_both(pair: Pair) -> Database:
    """Give the database as a daemon knows it: a DSN with two hosts, of which the writable one is used."""
    one, other = pair
    address = f"{one.host}:{one.port},{other.host}:{other.port}"
    return Database(name="postgres", dsn=f"postgresql://{one.user}:{one.password}@{address}/postgres")


def promote(standby: EmbeddedPostgres) -> None:
    """Let the standby take writes; sessions of the program refuse one that does not."""
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        assert connection.execute("select pg_promote()").fetchone() == (True,)


async def test_a_failover_loses_nothing_that_was_acknowledged(pair: Pair, tried: Tried) -> None:
    """The primary is killed under load and the standby promoted; every acknowledged execution ends there."""
    first = Database(name="postgres", dsn=pair.primary.dsn())
    second = Database(name="postgres", dsn=pair.standby.dsn())
    await migrate(first)
    await execute(first, "alter system set synchronous_standby_names = 'standby'")
    await execute(first, "select pg_reload_conf()")
    await until(first, "select count(*) = 1 from pg_stat_replication where sync_state = 'sync'")
    await prepare(first)
    acknowledged: list[int] = []

    async def produce() -> None:
        while True:
            acknowledged.extend(await start(first, count=5))

    async with running(on_both(pair), sweep_seconds=1.0) as service:
        producing = asyncio.create_task(produce())
        await until(first, "select count(*) > 100 from noetl.turn")
        await asyncio.to_thread(pair.primary.stop, "immediate")
        await asyncio.gather(producing, return_exceptions=True)
        before, began = service.metrics.total(metric.TURNS), time.monotonic()
        promote(pair.standby)
        await start(second)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while service.metrics.total(metric.TURNS) == before:
                await leave_core()
        seconds = time.monotonic() - began
        await finish_all(second, patience=60)
    known = await value(second, "select count(*) from noetl.execution where execution_id = any($1)", acknowledged)
    assert known == len(acknowledged)
    assert await broken_invariants(second) == {}
    tried("failover to a synchronous standby", f"0 of {known} acknowledged lost; turns again after {seconds:.1f} s")

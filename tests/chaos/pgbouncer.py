"""A PgBouncer between the program and a database, if this machine has one."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.brokers import PATIENCE_SECONDS
from tests.chaos.under_load import leave_core
from tests.postgres import Database

# Settings of our sessions that PgBouncer does not know. If it does not ignore them, it refuses the connections.
IGNORED = (
    "statement_timeout,lock_timeout,idle_in_transaction_session_timeout,transaction_timeout,tcp_keepalives_idle,"
    "tcp_keepalives_interval,tcp_keepalives_count,tcp_user_timeout,default_transaction_isolation,plan_cache_mode,"
    "enable_seqscan,enable_hashjoin,enable_mergejoin,jit,search_path,default_transaction_read_only"
)
OWN_PORT = 6432  # of a socket in a folder of its own, so nobody else has it
SETTINGS = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr =
listen_port = {own}
unix_socket_dir = {folder}
auth_type = any
pool_mode = {mode}
max_prepared_statements = {prepared}
ignore_startup_parameters = {ignored}
default_pool_size = 20
"""


@asynccontextmanager
async def pgbouncer(database: Database, *, mode: str = "transaction", prepared: int = 0) -> AsyncIterator[Database]:
    """Yield the database behind a PgBouncer of this mode; skip the test if PgBouncer is not installed."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed here (apt-get install pgbouncer)")
    found = re.fullmatch(r"postgresql://([^:]+):([^@]+)@([^:/]+):(\d+)/.*", database.dsn)
    assert found is not None
    user, password, host, port = found.groups()
    with tempfile.TemporaryDirectory(prefix="noetl-broker-bouncer-") as name:
        file = Path(name) / "bouncer.ini"
        file.write_text(SETTINGS.format(
            host=host, port=port, user=user, password=password, own=OWN_PORT, folder=name, mode=mode, prepared=prepared,
            ignored=IGNORED,
        ), encoding="utf-8")  # fmt: skip
        account = ["-u", "nobody"] if os.getuid() == 0 else []  # PgBouncer refuses to run as root
        if account:
            nobody = pwd.getpwnam("nobody")
            os.chown(name, nobody.pw_uid, nobody.pw_gid)
            os.chown(file, nobody.pw_uid, nobody.pw_gid)
        process = await asyncio.create_subprocess_exec(
            program, "-q", *account, str(file), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            await _until_open(Path(name) / f".s.PGSQL.{OWN_PORT}", process)
            yield Database(
                name=database.name,
                dsn=f"postgresql://{user}@/{database.name}?host={name}&port={OWN_PORT}&sslmode=disable",
            )
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGQUIT)  # ends PgBouncer at once
            await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)


async def _until_open(path: Path, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            assert process.returncode is None, (await process.communicate())[1].decode()
            try:
                _, writer = await asyncio.open_unix_connection(path)
            except OSError:
                await leave_core()
            else:
                writer.close()
                return

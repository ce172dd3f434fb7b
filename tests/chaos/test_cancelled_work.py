"""Work in real processes ends within two seconds of its cancel, and cancels race leases."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import product
from statistics import median
from typing import Any

import pytest

from noetl_broker.playbook.diagnostics import PlaybookRules
from tests.brokers import broken_invariants, register, running, start, value
from tests.chaos.daemons import START_SECONDS
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, leave_core, prepare, until
from tests.postgres import SCHEMA_VARIABLE, Database
from tests.sessions import Session, session

pytestmark = pytest.mark.chaos

ROUNDS = 50 if LONG else 1
RACES = 400 if LONG else 40
MOST_SECONDS = 2.0
KNOWN = PlaybookRules(extra_step_types=frozenset({"own", "trigger"}))

# Python code holds a connection to the test's server. It ends with the last process that has it.
HOLD = """
import os, signal, socket, sys
def hold(port, key):
    own = socket.create_connection(("127.0.0.1", port))
    return own, f"GET /{key} HTTP/1.1\\r\\n".encode()
def stay(own, line):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    own.sendall(line)
    while True:
        signal.pause()
"""
LOOP = HOLD + "def main(port, key):\n    own, line = hold(port, key)\n    own.sendall(line)\n    while True: pass"
STUBBORN = (
    HOLD + "def main(port, key):\n    own, line = hold(port, key)\n    stay(own, line if os.fork() == 0 else b'')"
)
GRANDCHILD = (
    HOLD
    + """
def main(port, key):
    own, line = hold(port, key)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            stay(own, line)
        os._exit(0)
    own.close()
    signal.pause()
"""
)
PYTHON = {"loop": LOOP, "ignores SIGTERM with a child": STUBBORN, "grandchild of setsid": GRANDCHILD}
ARGS = {"port": "{{ port }}", "key": "{{ key }}"}
WORK: dict[str, dict[str, Any]] = {
    **{name: {"type": "python", "code": code, "args": ARGS} for name, code in PYTHON.items()},
    "hanging request": {"type": "http", "url": "http://127.0.0.1:{{ port }}/{{ key }}", "timeout": 600},
    "statement": {"type": "postgres", "command": "select pg_sleep(600) /* {{ key }} */"},
    "function of Worker": {"type": "own", "args": ARGS},
}
PROGRAM = """
import asyncio, sys
from noetl_broker import Worker

worker = Worker(sys.argv[1], schema=sys.argv[2], lease_seconds=600, concurrency=16)

@worker.task("own")
async def hold(job):
    reader, writer = await asyncio.open_connection("127.0.0.1", job.args["port"])
    try:
        writer.write(f"GET /{job.args['key']} HTTP/1.1\\r\\n".encode())
        await asyncio.Event().wait()
    finally:
        writer.close()

asyncio.run(worker.run())
"""
ALONE = "- {step: start, next: work}\n- {step: end}"
BRANCHES = """
- {step: start, next: [work, other]}
- {step: other, type: trigger, next: last}
- {step: last, join: JOIN, next: end}
- {step: end}
"""
ANSWER = "select noetl.ANSWER from noetl.queue q where q.execution_id = $1 and q.worker_id = 'trigger'"
LEASE = "select from noetl.lease_jobs('trigger', 100, 600, array['trigger'])"
# What ends the work: the workflow around the step `work`, and a statement with the execution as its parameter.
WAYS = {
    "cancel": (ALONE, "select noetl.cancel_execution($1)"),
    "failure of another branch": (
        BRANCHES.replace("JOIN", "all"),
        ANSWER.replace("ANSWER", "fail_job(q.queue_id, 'trigger', q.attempts, '{\"message\": \"boom\"}', false)"),
    ),
    "cancel of the parent": (
        ALONE,
        "select noetl.cancel_execution(parent_execution_id) from noetl.execution where execution_id = $1",
    ),
    "timeout": (
        ALONE,
        "update noetl.queue set first_leased_at = first_leased_at - interval '700 s' where execution_id = $1",
    ),
    "deadline": (
        ALONE,
        """
        with due as (update noetl.timer set due_at = clock_timestamp() where execution_id = $1 returning due_at)
        select noetl.notify_timers(due_at) from due
        """,
    ),
    "lost race": (
        BRANCHES.replace("JOIN", "{need: 1, losers: cancel}"),
        ANSWER.replace("ANSWER", "complete_job(q.queue_id, 'trigger', q.attempts)"),
    ),
}
PARENT = """
workload: {port: 0, key: ''}
workflow:
- {step: start, next: child}
- {step: child, type: playbook, path: "PATH", args: {port: "{{ port }}", key: "{{ key }}"}, next: end}
- {step: end}
"""
CHILD = "select execution_id from noetl.execution where parent_execution_id = $1"
RUNS = "select count(*) from pg_stat_activity where state = 'active' and query = $1"


class Watch:
    """Sees when work begins and has ended: by connections to a server of its own, and by the activity of Postgres."""

    def __init__(self, own: Session[Any]) -> None:
        self._own = own
        self._begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._ended: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold one connection until the other side closes it."""
        line = await reader.readline()
        key = line.split()[1].removeprefix(b"/").decode()
        self._begun[key].set()
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
        self._ended[key].set()
        writer.close()

    async def begun(self, key: str) -> None:
        """Wait until the work of this key runs."""
        if "-statement-" in key:
            await self._statement(key, 1)
        else:
            await self._begun[key].wait()

    async def ended(self, key: str) -> float:
        """Wait until the work of this key has ended; gives the moment."""
        if "-statement-" in key:
            await self._statement(key, 0)
        else:
            await self._ended[key].wait()
        return time.monotonic()

    async def _statement(self, key: str, count: int) -> None:
        while await self._own.fetchval(RUNS, f"select pg_sleep(600) /* {key} */") != count:
            await leave_core()
            await self._own.execute("select pg_stat_clear_snapshot()")


@asynccontextmanager
async def watching(database: Database) -> AsyncIterator[Watch]:
    """Run the server of the test."""
    async with session(database) as own:
        watch = Watch(own)
        server = await asyncio.start_server(watch.serve, "127.0.0.1", 0)
        watch.port = server.sockets[0].getsockname()[1]
        try:
            yield watch
        finally:
            server.close()


@asynccontextmanager
async def workers(database: Database) -> AsyncIterator[None]:
    """Run the reference worker and a `Worker`, each in a process. Their leases are long."""
    environment = os.environ | SCHEMA_VARIABLE | {"NOETL_BROKER_DSN": database.dsn}
    options = ("worker", "--lease-seconds", "600", "--concurrency", "16")
    programs = [("-m", "noetl_broker", *options), ("-c", PROGRAM, database.dsn, database.schema)]
    processes = [await asyncio.create_subprocess_exec(sys.executable, *one, env=environment) for one in programs]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            await process.wait()


def playbook(way: str, name: str) -> str:
    """The workflow in which this work is ended in this way."""
    work = {"step": "work", **WORK[name], "next": "last" if "last" in WAYS[way][0] else "end"}
    if way == "timeout":
        work["timeout"] = 600
    return f"workload: {{port: 0, key: ''}}\nworkflow:\n- {json.dumps(work)}\n{WAYS[way][0]}\n"


async def begin(database: Database, watch: Watch, path: str, key: str) -> int:
    """Start an execution and wait until its work runs; gives the execution that works."""
    [execution_id] = await start(database, path, {"port": watch.port, "key": key})
    await watch.begun(key)
    return int(await value(database, CHILD, execution_id) or execution_id)


async def measure(database: Database, watch: Watch, way: str, names: Iterable[str], number: int) -> dict[str, float]:
    """Begin work of each kind and end it in this way; gives the seconds until each has ended."""
    keys = {name: f"{way}-{name}-{number}".replace(" ", "-") for name in names}
    top = "parent of " if "parent" in way else ""
    took = {}
    async with asyncio.timeout(START_SECONDS), session(database) as own:
        begun: dict[str, int] = {}
        for part in ([name for name in keys if name != "loop"], [name for name in keys if name == "loop"]):
            # The loop takes a core until it ends, so it begins last, and ends first.
            ids = await asyncio.gather(*(begin(database, watch, f"{top}{way}/{name}", keys[name]) for name in part))
            begun |= dict(zip(part, ids, strict=True))
        await own.execute(LEASE)
        for name, key in keys.items():
            began = time.monotonic()
            await own.execute(WAYS[way][1], begun[name])
            took[name] = await watch.ended(key) - began
    return took


async def test_work_ends_with_its_execution(database: Database, tried: Tried) -> None:
    """In each way: all its processes, its request, its statement on the server. A lease is renewed after 200 seconds.

    `make chaos` does each many times, and holds each end against two seconds.
    """
    for way, name in product(WAYS, WORK):
        path, metadata = f"{way}/{name}", "deadline: 6000" if way == "deadline" else ""
        await register(database, playbook(way, name), path=path, metadata=metadata)
        await register(database, PARENT.replace("PATH", path), path=f"parent of {path}")
    took: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    settings = {"reap_seconds": 0.1, "playbook_rules": KNOWN}
    async with running(database, **settings), watching(database) as watch, workers(database):
        for way, number in product(WAYS, range(ROUNDS)):
            names = WORK if LONG or way == "cancel" else ("ignores SIGTERM with a child",)
            for name, seconds in (await measure(database, watch, way, names, number)).items():
                took[way, name].append(seconds)
        await until(database, "select not exists (select from noetl.queue where status = 'leased')")
    for (way, name), times in took.items():
        tried(f"{way}, {name}: {ROUNDS} times", f"slowest {max(times):.2f} s, median {median(times):.2f} s")
    assert not LONG or {case: times for case, times in took.items() if max(times) > MOST_SECONDS} == {}
    assert await broken_invariants(database) == {}


async def test_a_lease_never_outlives_the_cancel(database: Database, tried: Tried) -> None:
    """One session cancels all executions, the last first, while another leases their jobs, the first first.

    A job that is leased while its execution ends is cancelled, or its worker is told to stop.
    """
    await prepare(database)
    ids = await start(database, count=RACES)
    async with running(database, reap_seconds=0.1), session(database) as other, session(database) as own:
        await until(database, "select count(*) = $1 from noetl.queue", RACES)

        async def cancel() -> None:
            for execution_id in reversed(ids):
                await own.execute("select noetl.cancel_execution($1)", execution_id)

        async def lease() -> int:
            return sum([len(await other.fetch("select from noetl.lease_jobs('w', 1, 600)")) for _ in ids])

        leased, _ = await asyncio.gather(lease(), cancel())
        await until(database, "select not exists (select from noetl.execution where noetl.is_live(status))")
        await until(database, "select not exists (select from noetl.job_to_cancel)")
    unstopped = (
        "select count(*) from noetl.queue where status not in ('leased', 'cancelled') or status = 'leased' and not stop"
    )
    assert await value(database, unstopped) == 0
    heartbeats = "select count(*) from noetl.queue where noetl.heartbeat_job(queue_id, 'w', attempts)"
    assert await value(database, heartbeats) == 0
    tried(f"{RACES} cancels against leases", f"{leased} leased, 0 with a true heartbeat")
    assert await broken_invariants(database) == {}

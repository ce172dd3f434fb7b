"""Measures the console beside a million executions: `python -m benchmarks.console`.

| part | measures |
|---|---|
| `lists` | lists with filters, on pages and of the HTTP API |
| `pages` | each kind of page |
| `open` | what open streams and open pages cost the database while executions change, and how late a change is told |
| `drain` | the rate of the broker beside open pages, and without |

Of an answer: the statements it asks of the database, the time these take there, the processor time of the console, and
the time until it is there. `--only` measures one part.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks.busy_day import fill
from noetl_broker.console.access import COOKIE
from tests.browser.addresses import client_of, crawl, kind_of
from tests.browser.site import Site, site
from tests.chaos.daemons import processor_seconds
from tests.postgres import psycopg_connect

# Autovacuum as it is by default: tests switch it off.
SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "max_wal_size": "8GB",
    "autovacuum_naptime": "1min",
    "autovacuum_vacuum_threshold": "50",
    "autovacuum_vacuum_insert_threshold": "1000",
    "autovacuum_analyze_threshold": "50",
}
# Executions of the last 29 days. One of 20 failed; one of 1,000 waits.
MANY = """
insert into noetl.execution (execution_id, catalog_id, path, version, status, started_at, ended_at, error, workload,
  idempotency_key)
select noetl.first_id_at(at) + n %% 1000, 1, 'shop/playbook_' || n %% 200, 1,
  case when n %% 1000 = 0 then 'RUNNING' when n %% 20 = 0 then 'FAILED' else 'COMPLETED' end,
  at, case when n %% 1000 <> 0 then at + interval '3 s' * (n %% 7) end,
  case when n %% 20 = 0 and n %% 1000 <> 0
    then jsonb_build_object('type', 'KeyError', 'step', 'charge', 'message', 'no card ' || n) end,
  jsonb_build_object('order', n, 'customer', 'ACME-' || n %% 5000, 'note', repeat('x', 200)), 'k' || n
from (select n, clock_timestamp() - interval '2.5 s' * (%s + 400 - n) as at from generate_series(1, %s) n) g
"""
# A turn, two events, a step and a job each.
HISTORY = """
insert into noetl.execution_state (execution_id, turn, last_at, tokens)
select execution_id, 1, started_at, '{}' from many;
insert into noetl.turn (execution_id, turn, event_id, outcome, decided_at)
select execution_id, n, execution_id + n, 'decided', started_at from many, generate_series(1, 1) n;
insert into noetl.event (execution_id, event_id, catalog_id, created_at, event_type, node_id, node_name, node_type,
  status, meta, result)
select execution_id, execution_id + n, 1, started_at, 'step_completed', 'charge', 'charge', 'python', 'COMPLETED',
  '{"turn": 1, "visit": 1}', '{"n": 7}'
from many, generate_series(1, 2) n;
insert into noetl.workflow (execution_id, step_id, step_name, step_type, ordinal, status, visits, started_at)
select execution_id, n::text, 'step ' || n, 'python', n, 'COMPLETED', 1, started_at from many, generate_series(1, 1) n;
insert into noetl.queue (queue_id, execution_id, catalog_id, node_id, node_name, node_type, action, status)
select execution_id + 1, execution_id, 1, 'charge', 'charge', 'python', '{"args": {"x": 6}}', 'done' from many
"""
ASKED = """
select coalesce(sum(calls), 0), coalesce(sum(total_exec_time), 0) from pg_stat_statements where userid = %s::regrole
"""
NEWEST = "select execution_id from noetl.execution order by execution_id desc limit %s"
ROUNDS = 40


def make_many(site: Site, count: int) -> None:
    """Insert so many executions of the past, with histories."""
    with psycopg_connect(site.database, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(MANY, (count, count))
        connection.execute(
            "create temp table many as"
            " select execution_id, started_at from noetl.execution where path like 'shop/playbook%'"
        )
        for statement in HISTORY.split(";"):
            connection.execute(statement)
        connection.execute("vacuum analyze")


def measure(site: Site, kind: str, address: str) -> None:
    """Ask for a page ROUNDS times, and print what it costs for each request; times in milliseconds."""
    times, size = [], 0
    with client_of(site, "operator") as client:
        client.get(address)
        [(calls, asked)], spent = site.rows(ASKED, "console"), processor_seconds(site.console_pid)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            size = len(client.get(address).content)
            times.append((time.perf_counter() - began) * 1000)
        [(calls_after, asked_after)], spent = site.rows(ASKED, "console"), processor_seconds(site.console_pid) - spent
    say(
        f"{kind[:70]:70} {float(calls_after - calls) / ROUNDS:10.1f} {(asked_after - asked) / ROUNDS:6.1f}"
        f" {spent * 1000 / ROUNDS:7.1f} {statistics.median(times):7.1f} {statistics.quantiles(times, n=20)[-1]:7.1f}"
        f" {size // 1024:6}"
    )


def backends(site: Site) -> dict[int, float]:
    """The processor time of each server process that the console uses."""
    pids = site.rows("select pid from pg_stat_activity where usename = 'console'")
    return {pid: processor_seconds(pid) for (pid,) in pids}


class Open(NamedTuple):
    """What open streams cost the database, and milliseconds from a commit until it is told.

    `share` is the processor time of its processes, `asked` the time in statements, both of a core.
    """

    share: float
    statements: float
    asked: float
    late: list[float]


def measure_open(site: Site, addresses: Sequence[str | None], *, streams: int, rate: int, seconds: float) -> Open:
    """What so many streams cost while so many executions a second start; a stream with an address is an open page."""
    stopping, commits, told = threading.Event(), dict[str, float](), dict[str, float]()
    with changing(site, rate, stopping, commits):
        asyncio.run(follow(site, addresses, told, streams=streams, seconds=3))
        told.clear()
        before, [asked_before] = backends(site), site.rows(ASKED, "console")
        asyncio.run(follow(site, addresses, told, streams=streams, seconds=seconds))
        after, [asked_after] = backends(site), site.rows(ASKED, "console")
    late = [max(0.0, told[one] - commits[one]) * 1000 for one in told.keys() & commits.keys()]
    return Open(
        share=sum(spent - before.get(pid, 0.0) for pid, spent in after.items()) / seconds,
        statements=float(asked_after[0] - asked_before[0]) / seconds,
        asked=(asked_after[1] - asked_before[1]) / 1000 / seconds,
        late=late,
    )


@contextmanager
def changing(site: Site, rate: int, stopping: threading.Event, commits: dict[str, float]) -> Iterator[None]:
    """Start executions at this rate until the block ends; `commits` gets when each was committed."""

    def change() -> None:
        with psycopg_connect(site.database, autocommit=True) as connection:
            began = time.monotonic()
            for n in itertools.count():
                if stopping.wait(max(0.0, began + n / rate - time.monotonic())):
                    return
                [started] = connection.execute("select noetl.start_execution('examples/start_and_end')").fetchone() or (
                    0,
                )
                commits[str(started)] = time.monotonic()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


async def follow(
    site: Site,
    addresses: Sequence[str | None],
    told: dict[str, float],
    *,
    streams: int,
    seconds: float,
    stop: threading.Event | None = None,
) -> None:
    """Follow so many streams until `seconds` are over, or until `stop`.

    With an address do what its page does: ask for it when something changes, at most once a second. Pages of one
    execution, too, follow the changes of all here. `told` gets when each execution was first named.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    cookies = {COOKIE: site.tokens["operator"]}
    async with httpx.AsyncClient(
        base_url=site.url, cookies=cookies, trust_env=False, timeout=60, limits=limits
    ) as client:

        async def page(address: str | None) -> None:
            async with client.stream("GET", "/api/v1/changes") as stream:
                following = 0.0
                async for line in stream.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    for change in json.loads(line.removeprefix("data:")).get("changes", ()):
                        told.setdefault(change["execution_id"], time.monotonic())
                    if address is not None and time.monotonic() >= following:
                        began = time.monotonic()
                        answer = await client.get(address, headers={"X-Live": "1"})
                        now = time.monotonic()
                        again = float(answer.headers.get("Retry-After", 0))
                        following = now + max(1.0, again, min(10.0, (now - began) * 10))

        tasks = [asyncio.create_task(page(one)) for one in itertools.islice(itertools.cycle(addresses), streams)]
        if stop is None:
            await asyncio.wait(tasks, timeout=seconds)
        else:
            await asyncio.to_thread(stop.wait, seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def measure_lists(site: Site) -> None:
    """Print what lists with filters cost."""
    filters = (
        "status=FAILED", "status=RUNNING", "path=shop/playbook_7", "path=none", "since=1h", "text=ACME-4711",
        "text=nowhere", "step=charge", "error=*card*",
    )  # fmt: skip
    middle, last = site.value(
        "select percentile_disc('{0.5, 0.001}'::float8[]) within group (order by execution_id) from noetl.execution"
    )
    cursors = [f"limit=100&cursor={as_cursor(middle)}", f"status=FAILED&cursor={as_cursor(last)}"]
    lists = (("/executions", filters), ("/api/v1/executions", ("limit=100", *filters, *cursors)))
    say_costs(site, {f"{path}?{query}": f"{path}?{query}" for path, queries in lists for query in queries})


def measure_pages(site: Site, shown: Mapping[str, int]) -> None:
    """Print what each kind of page costs, and the pages of the executions that are shown."""
    starts = {f"/executions/{execution_id}": name for name, execution_id in shown.items()}
    bulk = "/executions/act?scope=all&status=FAILED&action="
    addresses = {
        "/executions/act?action=retry&scope=all": f"{bulk}retry",
        "/executions/act?action=retry&scope=all&version=latest": f"{bulk}retry&version=latest",
        "/executions/act?action=fork&scope=all&from": f"{bulk}fork&from=charge",
    }
    wide = f"/executions/{shown['items']}"
    asked = ("", "?why=1", "?tab=items", "?tab=events", "?tab=jobs", "?step=convert", "/signal", "/retry", "/cancel")
    addresses |= {f"/executions/N{of} (items)": f"{wide}{of}" for of in asked}
    addresses |= {f"/executions/N ({name})": address for address, name in starts.items()}
    for answer in crawl(site, "operator", "/", "/executions", *starts):
        addresses.setdefault(kind_of(answer.address), answer.address)
    say_costs(site, addresses)


def say_costs(site: Site, addresses: Mapping[str, str]) -> None:
    """Print a table of what these addresses cost, by what they show."""
    say(f"{'page':70} statements  db ms  cpu ms  p50 ms  p95 ms     kB")
    for kind, address in addresses.items():
        measure(site, kind, address)


def opened(shown: Mapping[str, int]) -> list[str]:
    """What 200 operators look at."""
    return ["/", "/executions", "/executions?status=RUNNING", f"/executions/{shown['forty']}"]


def measure_streams(site: Site, shown: Mapping[str, int], options: argparse.Namespace) -> None:
    """Print what open streams and open pages cost the database."""
    each: list[str | None] = [f"/executions/{one}" for (one,) in site.rows(NEWEST, options.streams)]
    for what, of in (("open streams", [None]), ("open pages", opened(shown)), ("pages, each of another", each)):
        found = measure_open(site, of, streams=options.streams, rate=options.rate, seconds=options.seconds)
        late = statistics.quantiles(found.late, n=100) if len(found.late) > 1 else [float("nan")] * 99
        say(
            f"{options.streams} {what} at {options.rate} starts a second: {found.share:.1%} of a core of the database,"
            f" {found.statements:.0f} statements a second that take {found.asked:.1%}; a change is told after"
            f" {late[49]:.0f} ms, p99 {late[98]:.0f} ms"
        )


def measure_drain(site: Site, shown: Mapping[str, int], options: argparse.Namespace) -> None:
    """Print the rate of the broker beside open pages, as a share of its rate without."""
    shares = []
    for _ in range(options.pairs):
        alone = drained(site, options.starts)
        stop = threading.Event()
        beside = threading.Thread(
            target=lambda stop=stop: asyncio.run(
                follow(site, opened(shown), {}, streams=options.streams, seconds=600, stop=stop)
            )
        )
        beside.start()
        try:
            shares.append(drained(site, options.starts) / alone)
        finally:
            stop.set()
            beside.join()
        say(f"beside {options.streams} open pages the broker has {shares[-1]:.3f} of its rate")
    say(f"median of {len(shares)} pairs: {statistics.median(shares):.3f}")


def drained(site: Site, count: int) -> float:
    """The executions a second that the broker ends."""
    began = time.monotonic()
    started = site.start("examples/start_and_end", count=count)
    left = "select count(*) from noetl.execution where execution_id = any(%s) and noetl.is_live(status)"
    site.until("noetl_end", lambda: site.value(left, started) == 0)
    return count / (time.monotonic() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--items", type=int, default=5_000, help="of the iterator")
    parser.add_argument("--starts", type=int, default=2_000, help="executions of a drain")
    parser.add_argument("--pairs", type=int, default=5, help="of drains")
    parser.add_argument("--only", choices=("lists", "pages", "open", "drain"), action="append", help="this part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), settings=SETTINGS) as running:
        running.rows("create extension pg_stat_statements")
        shown = fill(running, items=options.items)
        began = time.perf_counter()
        make_many(running, options.executions)
        total = running.value("select count(*) from noetl.execution")
        say(f"{total:,} executions, made in {time.perf_counter() - began:.0f} s")
        parts: dict[str, Callable[[], None]] = {
            "lists": lambda: measure_lists(running),
            "pages": lambda: measure_pages(running, shown),
            "open": lambda: measure_streams(running, shown, options),
            "drain": lambda: measure_drain(running, shown, options),
        }
        for name, part in parts.items():
            if name in (options.only or parts):
                part()


def as_cursor(execution_id: int) -> str:
    """The cursor of the page after this execution."""
    return base64.urlsafe_b64encode(json.dumps([execution_id]).encode()).decode()


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()

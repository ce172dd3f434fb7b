"""Examines what the tables say about the work: mail that waits, jobs that nobody takes, rows that nobody takes away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from noetl_broker.store.findings import Finding, Limits
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql
from noetl_broker.times import span

MANY = 100_000  # mail is counted up to here


async def look_at_brokers(connection: Connection, _limits: Limits) -> list[Finding]:
    """Whether anybody listens: they are known by the names of their connections."""
    row = await connection.fetchrow(sql("examine_brokers"))
    listening, workers = (0, 0) if row is None else (row["listening"], row["workers"])
    facts = {"brokers": listening, "worker_connections": workers}
    if listening:
        return [Finding("brokers", "ok", f"{_count(listening, 'broker listens', 'brokers listen')}", facts=facts)]
    if await connection.fetchval(sql("examine_given_back")):
        return [Finding("brokers", "ok", "none is connected: the server's own broker decides here", facts=facts)]
    return [
        Finding(
            "brokers", "problem", "no broker is connected to this database",
            "Nobody decides: executions that are started stay where they are.",
            "noetl-broker run, or systemctl status noetl-broker.", facts,
        )
    ]  # fmt: skip


async def look_at_mail(connection: Connection, limits: Limits) -> list[Finding]:
    """The lag: how old the oldest event is that no broker has decided on."""
    row = await connection.fetchrow(sql("examine_mail"))
    if row is None:
        return [Finding("mail", "ok", "no mail is unread", facts={"unread": 0, "oldest_seconds": 0.0})]
    age, unread = row["age_seconds"], row["unread"]
    many = f"more than {MANY - 1}" if unread >= MANY else str(unread)
    facts = {"unread": unread, "oldest_seconds": round(age, 3), "execution_id": row["execution_id"]}
    says = f"{many} unread, the oldest for {span(age)} (execution {row['execution_id']})"
    if age <= limits.unread_seconds:
        return [Finding("mail", "ok", says, facts=facts)]
    return [
        Finding(
            "mail", "problem", says,
            "Each of these events asks for a decision; until then its execution stands still.",
            "Is a broker running (above)? Does its log name a fault? If it only cannot keep up: noetl-broker run"
            " --processes N, or one more beside it.", facts,
        )
    ]  # fmt: skip


async def look_at_dead_letters(connection: Connection, _limits: Limits) -> list[Finding]:
    """Mail that was set aside."""
    row = await connection.fetchrow(sql("examine_dead_letters"))
    if row is None or not row["set_aside"]:
        return [Finding("dead letters", "ok", "none", facts={"set_aside": 0})]
    return [
        Finding(
            "dead letters", "problem",
            f"{row['set_aside']} set aside of {_count(row['executions'], 'execution', 'executions')}, the latest:"
            f" {row['reason']}",
            "Deciding on them failed by a fault of the program or a value that the database refuses; their executions"
            " stand still.",
            "noetl-broker dead-letters lists them; mend the reason, then noetl-broker reevaluate --all.",
            {"set_aside": row["set_aside"], "executions": row["executions"], "oldest": row["oldest"]},
        )
    ]  # fmt: skip


async def look_at_clock(connection: Connection, _limits: Limits) -> list[Finding]:
    """Whether the server's clock has stepped back: what was due then waits until it is as late again."""
    row = await connection.fetchrow(sql("examine_clock"))
    if row is None:
        return []
    facts = {"behind_seconds": round(row["behind_seconds"], 3), "steps": row["steps"]}
    if row["behind_seconds"] > 1.0:
        return [
            Finding(
                "clock steps", "problem",
                f"the server's clock is {span(row['behind_seconds'])} behind a time that brokers have seen on it",
                "Jobs, retries, leases and deadlines from before it stepped back wait until it is as late again.",
                "Is a broker running (below)? Within a second or two it pulls them back. Then find out what set the"
                " clock.",
                facts,
            )
        ]  # fmt: skip
    if row["stepped_at"] is None:
        return []
    facts |= {"step_seconds": round(row["step_seconds"], 3), "stepped_at": row["stepped_at"]}
    done = "is being pulled back" if row["is_pulling"] else "was pulled back"
    return [
        Finding(
            "clock steps", "notice",
            f"the server's clock stepped back by {span(row['step_seconds'])}, to {row['stepped_at']:%Y-%m-%d %H:%M:%S}",
            f"What was due {done}. Delays and leases of that moment may be a bit off.",
            "Let NTP slew the clock; after a failover, look at the clock of the new server.", facts,
        )
    ]  # fmt: skip


async def look_at_leases(connection: Connection, limits: Limits) -> list[Finding]:
    """Leases that ran out and that no broker has put back."""
    row = await connection.fetchrow(sql("examine_leases"), limits.lease_seconds)
    if row is None or not row["expired"]:
        return [Finding("leases", "ok", "none has run out unnoticed", facts={"expired": 0})]
    return [
        Finding(
            "leases", "problem",
            f"{_count(row['expired'], 'lease', 'leases')} ran out up to {span(row['late_seconds'])} ago, and no broker"
            " has put the job back",
            "A broker looks every reap_seconds. These jobs wait for workers that are gone.",
            "Start a broker; if one runs, its log says why the reaper fails.",
            {"expired": row["expired"], "late_seconds": round(row["late_seconds"], 3)},
        )
    ]  # fmt: skip


async def look_at_jobs(connection: Connection, limits: Limits) -> list[Finding]:
    """Jobs that could run and that nobody leases, by their type."""
    found = await connection.fetch(sql("examine_jobs"), limits.job_seconds)
    if not found:
        return [Finding("jobs", "ok", "none waits long for a worker")]
    return [
        Finding(
            "jobs", "problem",
            f"{_count(row['waiting'], 'job', 'jobs')} of type {row['type']} wait for a worker, the oldest for"
            f" {span(row['age_seconds'])}",
            "No worker takes this type, or too few do.",
            f"noetl-broker worker --types {row['type']}, or your own worker for it; more of them if they are busy.",
            {"type": row["type"], "waiting": row["waiting"], "oldest_seconds": round(row["age_seconds"], 3)},
        )
        for row in found
    ]  # fmt: skip


async def look_at_bloat(connection: Connection, limits: Limits) -> list[Finding]:
    """Rows that nobody can see any more, and that vacuum has not taken away."""
    found = []
    for row in await connection.fetch(sql("examine_bloat")):
        if row["is_never_vacuumed"]:
            found.append(Finding(
                "bloat", "problem", f"autovacuum is switched off for noetl.{row['table']}",
                "Dead rows pile up, and each look at the table takes ever longer.",
                f"Switch it on: alter table noetl.{row['table']} reset (autovacuum_enabled).", {"table": row["table"]},
            ))  # fmt: skip
        if row["dead"] < limits.dead_rows or row["dead"] < row["live"] * limits.dead_share:
            continue
        vacuumed = row["last_autovacuum"]
        when = f"last vacuumed by itself at {vacuumed:%Y-%m-%d %H:%M}" if vacuumed else "never vacuumed by itself"
        found.append(Finding(
            "bloat", "problem",
            f"noetl.{row['table']} has {row['dead']} dead rows beside {row['live']} live ones in"
            f" {row['bytes'] / (1 << 20):.0f} MiB, {when}",
            "Claims and leases walk over dead rows: the broker slows down though there is little to do.",
            f"Call vacuum noetl.{row['table']}; if that takes none away, somebody holds an old snapshot (below).",
            {"table": row["table"], "dead": row["dead"], "live": row["live"], "bytes": row["bytes"]},
        ))  # fmt: skip
    return found or [Finding("bloat", "ok", "vacuum keeps up")]


async def look_at_snapshots(connection: Connection, limits: Limits) -> list[Finding]:
    """Transactions that stand open so long that vacuum works in vain."""
    why = (
        "Vacuum must keep every row that it might still see, and the notification queue every word: the inbox bloats,"
        " and brokers slow down."
    )
    found = [
        Finding(
            "snapshots", "problem",
            f"process {row['process_id']} ({row['application_name'] or 'without a name'}, {row['role']},"
            f" {row['state']}) has a transaction open for {span(row['age_seconds'])}",
            why, f"End it: select pg_terminate_backend({row['process_id']}). Bound such sessions: alter role"
            f" {row['role']} set idle_in_transaction_session_timeout = '1min'.", dict(row),
        )
        for row in await connection.fetch(sql("examine_snapshots"), limits.snapshot_seconds)
    ]  # fmt: skip
    found += [
        Finding(
            "snapshots", "problem", f"the prepared transaction {row['name']} of {row['role']} is open for"
            f" {span(row['age_seconds'])}", why, f"commit prepared '{row['name']}', or rollback prepared.", dict(row),
        )
        for row in await connection.fetch(sql("examine_prepared"), limits.snapshot_seconds)
    ]  # fmt: skip
    return found or [Finding("snapshots", "ok", "no transaction is open for long")]


async def look_at_notify_queue(connection: Connection, limits: Limits) -> list[Finding]:
    """How full the queue of notifications is: at 1 the commits of writers fail."""
    usage = float(await connection.fetchval(sql("notification_queue_usage")))
    says, facts = f"{usage:.1%} full", {"usage": usage}
    if usage <= limits.queue_share:
        return [Finding("notify queue", "ok", says, facts=facts)]
    return [
        Finding(
            "notify queue", "problem", says,
            "At 100 % the commit of everybody who notifies fails, that of producers too. Brokers stop asking for rings"
            " at half, and poll.",
            "A session that has called LISTEN stands in a transaction: end it (snapshots, above).", facts,
        )
    ]  # fmt: skip


CHECKS: tuple[Callable[[Connection, Limits], Awaitable[list[Finding]]], ...] = (
    look_at_clock,
    look_at_brokers,
    look_at_mail,
    look_at_dead_letters,
    look_at_leases,
    look_at_jobs,
    look_at_bloat,
    look_at_snapshots,
    look_at_notify_queue,
)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

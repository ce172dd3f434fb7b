"""The checks of `doctor` on the tables: unread mail, jobs without a worker, leases, dead rows, long transactions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from noetl_broker.explain.undo_text import left_text, mend_remedy
from noetl_broker.explain.unserved import served_name, unserved_text, worker_command
from noetl_broker.playbook.keywords import DEFAULT_POOL
from noetl_broker.playbook.step_types import ACTION_TYPES
from noetl_broker.store.admin.overview import list_unserved
from noetl_broker.store.connect.connection import Connection, schema_of
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA
from noetl_broker.store.queries import sql
from noetl_broker.text import span

MANY = 100_000  # mail is counted up to here
State = Literal["ok", "notice", "problem"]


class DoctorFinding(NamedTuple):
    """The result of one check: `says` what was found; if it is not ok, `why` that matters and what to `do`.

    `facts` are the numbers and names in it, for programs: seconds, counts, bytes.
    """

    check: str
    state: State
    says: str
    why: str | None = None
    do: str | None = None
    facts: dict[str, Any] = {}  # noqa: RUF012 - read, never written


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Above which values a check is a finding; times in seconds, shares from 0 to 1."""

    probe_seconds: float = 3.0  # a notification is heard within milliseconds
    slow_trip_seconds: float = 0.02  # a batch takes four round trips
    clock_seconds: float = 2.0
    connections_share: float = 0.85
    unread_seconds: float = 10.0  # two sweeps
    lease_seconds: float = 10.0  # the reaper runs every second
    job_seconds: float = 60.0
    dead_rows: int = 50_000
    dead_share: float = 0.5  # of the live rows of a table
    snapshot_seconds: float = 300.0
    queue_share: float = 0.1


async def check_brokers(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """How many brokers and workers are connected, by the application names of their connections."""
    row, schema = await connection.fetchrow(sql("examine_brokers")), schema_of(connection)
    listening, workers = (0, 0) if row is None else (row["listening"], row["workers"])
    facts = {"brokers": listening, "worker_connections": workers}
    if listening:
        return [DoctorFinding("brokers", "ok", f"{_count(listening, 'broker listens', 'brokers listen')}", facts=facts)]
    if await connection.fetchval(sql("examine_given_back")):
        return [DoctorFinding("brokers", "ok", "none is connected: the server's own broker decides here", facts=facts)]
    return [
        DoctorFinding(
            "brokers", "problem",
            f"no broker {'is connected to this database' if schema == DEFAULT_SCHEMA else f'serves schema {schema}'}",
            "No event is decided on: executions do not move.",
            "noetl-broker run, or systemctl status noetl-broker.", facts,
        )
    ]  # fmt: skip


async def check_mail(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """The age of the oldest event that no broker has decided on."""
    row = await connection.fetchrow(sql("examine_mail"))
    if row is None:
        return [DoctorFinding("mail", "ok", "no mail is unread", facts={"unread": 0, "oldest_seconds": 0.0})]
    age, unread = row["age_seconds"], row["unread"]
    many = f"more than {MANY - 1}" if unread >= MANY else str(unread)
    facts = {"unread": unread, "oldest_seconds": round(age, 3), "execution_id": row["execution_id"]}
    says = f"{many} unread, the oldest for {span(age)} (execution {row['execution_id']})"
    if age <= limits.unread_seconds:
        return [DoctorFinding("mail", "ok", says, facts=facts)]
    return [
        DoctorFinding(
            "mail", "problem", says,
            "Each of these events needs a decision. Until then its execution does not move.",
            "Is a broker running (above)? Does its log name a fault? If it cannot keep up: noetl-broker run"
            " --processes N, or a second broker.", facts,
        )
    ]  # fmt: skip


async def check_copies(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """Signals that are not copied to the other buckets."""
    if not await connection.fetchval(sql("has_copies")):
        return []
    row = await connection.fetchrow(sql("examine_copies"), limits.unread_seconds)
    if row is None or not row["copies"]:
        return [DoctorFinding("copies of signals", "ok", "none is late", facts={"copies": 0, "targets": []})]
    targets = ", ".join(map(str, row["targets"]))
    return [
        DoctorFinding(
            "copies of signals", "problem",
            f"{row['copies']} are not made, the oldest for {span(row['age_seconds'])}; they are for bucket {targets}",
            "Executions there wait for these signals.",
            "Does a broker serve those buckets too? Its log says why it cannot.",
            {"copies": row["copies"], "targets": row["targets"], "oldest_seconds": round(row["age_seconds"], 3)},
        )
    ]  # fmt: skip


async def check_dead_letters(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """The number of dead letters."""
    row = await connection.fetchrow(sql("examine_dead_letters"))
    if row is None or not row["set_aside"]:
        return [DoctorFinding("dead letters", "ok", "none", facts={"set_aside": 0})]
    return [
        DoctorFinding(
            "dead letters", "problem",
            f"{row['set_aside']} set aside of {_count(row['executions'], 'execution', 'executions')}, the latest:"
            f" {row['reason']}",
            "Deciding on them failed because of a bug or a value that the database refuses. Their executions do not"
            " move.",
            "noetl-broker dead-letters lists them. Fix the reason, then call noetl-broker reevaluate --all.",
            {"set_aside": row["set_aside"], "executions": row["executions"], "oldest": row["oldest"]},
        )
    ]  # fmt: skip


async def check_clock(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """Whether the server's clock has stepped back."""
    row = await connection.fetchrow(sql("examine_clock"))
    if row is None:
        return []
    facts = {"behind_seconds": round(row["behind_seconds"], 3), "steps": row["steps"]}
    if row["behind_seconds"] > 1.0:
        return [
            DoctorFinding(
                "clock steps", "problem",
                f"the server's clock is {span(row['behind_seconds'])} behind the latest time that brokers saw on it",
                "Jobs, retries, leases and deadlines from before that wait until the clock reaches their time.",
                "Is a broker running (below)? It corrects them within two seconds. Then find out what set the clock.",
                facts,
            )
        ]  # fmt: skip
    if row["stepped_at"] is None:
        return []
    facts |= {"step_seconds": round(row["step_seconds"], 3), "stepped_at": row["stepped_at"]}
    done = "is being corrected" if row["is_pulling"] else "was corrected"
    return [
        DoctorFinding(
            "clock steps", "notice",
            f"the server's clock stepped back by {span(row['step_seconds'])}, to {row['stepped_at']:%Y-%m-%d %H:%M:%S}",
            f"What was due {done}. Delays and leases of that moment may be slightly wrong.",
            "Let NTP slew the clock; after a failover, look at the clock of the new server.", facts,
        )
    ]  # fmt: skip


async def check_pauses(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """Paused executions and playbooks; a problem where a queued execution of no paused playbook waits."""
    row = await connection.fetchrow(sql("examine_pauses"))
    if row is None or not (row["paused"] or row["paths"] or row["queued"]):
        return []
    facts = {key: row[key] for key in ("paused", "paths", "queued", "stranded", "path", "since")}
    says = f"{_count(row['paused'], 'execution', 'executions')} paused, {row['queued']} queued"
    if row["stranded"]:
        return [
            DoctorFinding(
                "pauses", "problem", f"{says}, {row['stranded']} of playbooks that are not paused",
                "A running broker admits them within seconds.", "Is a broker running (above)?", facts,
            )
        ]  # fmt: skip
    if row["paths"]:
        first = f"the first {row['path']} since {row['since']:%Y-%m-%d %H:%M:%S}"
        says += f"; {_count(row['paths'], 'playbook', 'playbooks')} paused, {first}"
    return [
        DoctorFinding(
            "pauses", "notice", says, "They wait until somebody resumes them.",
            "noetl-broker resume ID resumes one, noetl-broker resume --path PATH the new ones of a playbook.", facts,
        )
    ]  # fmt: skip


async def check_slots(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """Executions that wait for slots; a problem where a slot is free and somebody waits for it."""
    row = await connection.fetchrow(sql("examine_slots"))
    if row is None or not row["waiting"]:
        return []
    facts = {key: row[key] for key in ("waiting", "slots", "since", "execution_id", "free")}
    waiting = _count(row["waiting"], "execution waits", "executions wait")
    says = f"{waiting} for {_count(row['slots'], 'slot', 'slots')}"
    if row["free"]:
        return [
            DoctorFinding(
                "slots", "problem", f"{says}, {row['free']} of them free",
                "A running broker gives them within seconds.",
                "Is a broker running (above)? If so, report a bug: the end of an execution gives its slots.", facts,
            )
        ]  # fmt: skip
    return [
        DoctorFinding(
            "slots", "notice", f"{says}, the first since {row['since']:%Y-%m-%d %H:%M:%S}",
            "metadata.concurrency or the overlap of a schedule limits them.",
            f"noetl-broker status {row['execution_id']} says who holds its slot.", facts,
        )
    ]  # fmt: skip


async def check_undos(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """What executions that failed or were cancelled have left undone."""
    row = await connection.fetchrow(sql("examine_undos"))
    if row is None or not row["executions"]:
        return []
    facts = {key: row[key] for key in ("executions", "open", "failed", "unknown")}
    facts["execution_id"] = row["execution_id"] or row["doubtful_id"]
    left = f"{_count(row['executions'], 'execution has', 'executions have')} something left to undo"
    counts = left_text(facts)
    example = facts["execution_id"]
    only_unknown = row["execution_id"] is None
    mend = "" if row["to_mend"] is None else (
        f"; an undo of execution {row['to_mend']} failed on a template: {mend_remedy(row['to_mend'])}"
    )  # fmt: skip
    return [
        DoctorFinding(
            "undo", "notice" if only_unknown else "problem", f"{left}: {counts}; the latest is {example}",
            "The effects of their actions remain, such as a charge without its refund." if not only_unknown
            else "These actions timed out or lost their lease: nobody knows whether they happened.",
            f"noetl-broker executions --undone lists all; noetl-broker undo {example}"
            f"{' --unknown' if only_unknown else ''} goes on with the latest{mend}.", facts,
        )
    ]  # fmt: skip


async def check_approvals(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """How many executions wait for a person, and since when."""
    row = await connection.fetchrow(sql("examine_approvals"))
    if row is None or not row["approvals"]:
        return []
    facts = {key: row[key] for key in ("approvals", "since", "times_out_at")}
    wait = "approval waits" if row["approvals"] == 1 else "approvals wait"
    says = f"{row['approvals']} {wait} for a person, the oldest since {row['since']:%Y-%m-%d %H:%M:%S}"
    if row["times_out_at"] is not None:
        says += f"; the next times out at {row['times_out_at']:%Y-%m-%d %H:%M:%S}"
    return [DoctorFinding("approvals", "ok", says, facts=facts)]


async def check_schedules(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """Schedules that no broker moves, and those whose last start failed."""
    row = await connection.fetchrow(sql("examine_schedules"), limits.unread_seconds)
    if row is None or not row["schedules"]:
        return []
    facts = {key: row[key] for key in ("schedules", "paused", "failing", "overdue", "next_at")}
    says = f"{_count(row['schedules'], 'schedule', 'schedules')}, {row['paused']} paused"
    if row["overdue"]:
        return [
            DoctorFinding(
                "schedules", "problem",
                f"{says}, {row['overdue']} overdue, the first since {row['first_due_at']:%Y-%m-%d %H:%M:%S}",
                "Brokers start what is due within a second. Moments that are later than catch_up are skipped.",
                "Is a broker running (above)? Does its log say `schedules could not be moved`?", facts,
            )
        ]  # fmt: skip
    if row["failing"]:
        return [
            DoctorFinding(
                "schedules", "problem",
                f"{says}, {row['failing']} with an error, such as {row['name']}: {row['error']}",
                "These moments did not start their executions.",
                "noetl-broker schedule list shows each. After the fix, noetl-broker schedule backfill starts what is"
                " missing.", facts,
            )
        ]  # fmt: skip
    return [DoctorFinding("schedules", "ok", says, facts=facts)]


async def check_periods(connection: Connection, _limits: Thresholds) -> list[DoctorFinding]:
    """Which periods are kept, and why an old one cannot be dropped."""
    row = await connection.fetchrow(sql("examine_periods"))
    if row is None or not row["periods"]:
        return []
    facts = {name: row[name] for name in ("periods", "dropped", "begins_on", "held")}
    if row["held"]:
        return [
            DoctorFinding(
                "kept periods", "notice",
                f"{row['held']} cannot be dropped, the oldest is {row['held_period']}: {row['held_by']}",
                "Its rows stay, though they are older than the setting keep.",
                "noetl-broker archive --older-than 90d --dry-run names executions. End them, or undo or settle what is"
                " left.", facts,
            )
        ]  # fmt: skip
    says = f"{_count(row['periods'], 'period', 'periods')} since {row['begins_on']}; {row['dropped']} dropped"
    return [DoctorFinding("kept periods", "ok", says, facts=facts)]


async def check_leases(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """Leases that expired and that no broker has reaped."""
    row = await connection.fetchrow(sql("examine_leases"), limits.lease_seconds)
    if row is None or not row["expired"]:
        return [DoctorFinding("leases", "ok", "none has run out unnoticed", facts={"expired": 0})]
    return [
        DoctorFinding(
            "leases", "problem",
            f"{_count(row['expired'], 'lease', 'leases')} ran out up to {span(row['late_seconds'])} ago, and no broker"
            " has put the job back",
            "A broker polls every reap_seconds. These jobs wait for workers that are gone.",
            "Start a broker; if one runs, its log says why the reaper fails.",
            {"expired": row["expired"], "late_seconds": round(row["late_seconds"], 3)},
        )
    ]  # fmt: skip


async def check_jobs(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """Jobs that are due and that no worker leases, by type."""
    unserved = await list_unserved(connection)
    named = {(row["type"], row["pool"]) for row in unserved}
    late = await connection.fetch(sql("examine_jobs"), limits.job_seconds)
    found = [row for row in late if (row["type"], row["pool"]) not in named]
    if not found and not unserved:
        return [DoctorFinding("jobs", "ok", "none waits long for a worker")]
    return [*map(_of_unserved, unserved), *map(_of_late, found)]


def _of_unserved(row: Mapping[str, Any]) -> DoctorFinding:
    start = worker_command(row["type"], row["pool"], is_known=row["type"] in ACTION_TYPES)
    facts = {key: row[key] for key in ("type", "pool", "jobs", "limits")}
    return DoctorFinding(
        "jobs", "problem", unserved_text(row),
        "They wait until a worker for this type and pool runs.",
        f"{start[0].upper()}{start[1:]}.",
        facts | {"oldest_seconds": round(row["seconds"], 3)},
    )  # fmt: skip


def _of_late(row: Any) -> DoctorFinding:
    of_pool = "" if row["pool"] == DEFAULT_POOL else f" --pool {row['pool']}"
    facts = {key: row[key] for key in ("type", "pool", "waiting")}
    return DoctorFinding(
        "jobs", "problem",
        f"{_count(row['waiting'], 'job', 'jobs')} of type {served_name(row['type'], row['pool'])} wait for a worker,"
        f" the oldest for {span(row['age_seconds'])}",
        "No worker takes this type, or too few do.",
        f"noetl-broker worker --types {row['type']}{of_pool}, or your own worker for it;"
        " more of them if they are busy.",
        facts | {"oldest_seconds": round(row["age_seconds"], 3)},
    )  # fmt: skip


async def check_bloat(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """Dead rows that vacuum has not removed."""
    found = []
    for row in await connection.fetch(sql("examine_bloat")):
        table = f"{schema_of(connection)}.{row['table']}"
        if row["is_never_vacuumed"]:
            found.append(DoctorFinding(
                "bloat", "problem", f"autovacuum is switched off for {table}",
                "Dead rows pile up, and each read of the table takes longer and longer.",
                f"Switch it on: alter table {table} reset (autovacuum_enabled).", {"table": row["table"]},
            ))  # fmt: skip
        if row["dead"] < limits.dead_rows or row["dead"] < row["live"] * limits.dead_share:
            continue
        vacuumed = row["last_autovacuum"]
        when = f"last vacuumed by itself at {vacuumed:%Y-%m-%d %H:%M}" if vacuumed else "never vacuumed by itself"
        found.append(DoctorFinding(
            "bloat", "problem",
            f"{table} has {row['dead']} dead rows beside {row['live']} live ones in"
            f" {row['bytes'] / (1 << 20):.0f} MiB, {when}",
            "Claims and leases read dead rows, so the broker is slow even with little work.",
            f"Call vacuum {table}; if that removes none, somebody holds an old snapshot (below).",
            {"table": row["table"], "dead": row["dead"], "live": row["live"], "bytes": row["bytes"]},
        ))  # fmt: skip
    return found or [DoctorFinding("bloat", "ok", "vacuum keeps up")]


async def check_snapshots(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """Transactions that are open so long that vacuum cannot remove rows."""
    why = (
        "Vacuum must keep every row that it might still see, and the notification queue every word: the inbox bloats,"
        " and brokers slow down."
    )
    found = [
        DoctorFinding(
            "snapshots", "problem",
            f"process {row['process_id']} ({row['application_name'] or 'without a name'}, {row['role']},"
            f" {row['state']}) has a transaction open for {span(row['age_seconds'])}",
            why, f"End it: select pg_terminate_backend({row['process_id']}). Bound such sessions: alter role"
            f" {row['role']} set idle_in_transaction_session_timeout = '1min'.", dict(row),
        )
        for row in await connection.fetch(sql("examine_snapshots"), limits.snapshot_seconds)
    ]  # fmt: skip
    found += [
        DoctorFinding(
            "snapshots", "problem", f"the prepared transaction {row['name']} of {row['role']} is open for"
            f" {span(row['age_seconds'])}", why, f"commit prepared '{row['name']}', or rollback prepared.", dict(row),
        )
        for row in await connection.fetch(sql("examine_prepared"), limits.snapshot_seconds)
    ]  # fmt: skip
    return found or [DoctorFinding("snapshots", "ok", "no transaction is open for long")]


async def check_notify_queue(connection: Connection, limits: Thresholds) -> list[DoctorFinding]:
    """How full the notification queue is; at 1 the commits of writers fail."""
    usage = float(await connection.fetchval(sql("notification_queue_usage")))
    says, facts = f"{usage:.1%} full", {"usage": usage}
    if usage <= limits.queue_share:
        return [DoctorFinding("notify queue", "ok", says, facts=facts)]
    return [
        DoctorFinding(
            "notify queue", "problem", says,
            "At 100 % the commit of each notification fails, also of producers. Brokers stop asking for notifications"
            " at half, and poll.",
            "A session that has called LISTEN stands in a transaction: end it (snapshots, above).", facts,
        )
    ]  # fmt: skip


CHECKS: tuple[Callable[[Connection, Thresholds], Awaitable[list[DoctorFinding]]], ...] = (
    check_clock,
    check_brokers,
    check_mail,
    check_copies,
    check_dead_letters,
    check_pauses,
    check_slots,
    check_undos,
    check_approvals,
    check_schedules,
    check_periods,
    check_leases,
    check_jobs,
    check_bloat,
    check_snapshots,
    check_notify_queue,
)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

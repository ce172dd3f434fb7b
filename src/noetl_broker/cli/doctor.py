"""The command `doctor`: what is wrong, why it matters, what to do."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Sequence
from difflib import get_close_matches

from noetl_broker import __version__
from noetl_broker.cli import output
from noetl_broker.cli.command import Call, command
from noetl_broker.compiled_form import installed_form
from noetl_broker.embedded_postgres.binaries import BIN_FOLDER_VARIABLE
from noetl_broker.errors import EXIT_FAILED, BrokerError
from noetl_broker.settings import PREFIX, Settings
from noetl_broker.store.admin.doctor_checks import DoctorFinding, State
from noetl_broker.store.admin.doctor_of_buckets import examine_all
from noetl_broker.store.connect.dsn import Database, database_names

COLOURS: dict[State, str] = {"ok": "green", "notice": "yellow", "problem": "red"}
HERE = "this machine"
OTHER_VARIABLES = frozenset({BIN_FOLDER_VARIABLE})


@command(
    "doctor",
    example=("noetl-broker doctor --dsn postgresql://broker_1@db.example/noetl\nnoetl-broker doctor --json"),
    several_databases=True,
)
def doctor(call: Call) -> int:
    """Find what keeps brokers from working, and say what to do.

    Checks the connection, the server, LISTEN, the schema and rights. Checks brokers, lag, dead letters, leases, and
    jobs that no worker takes. Also checks bloat, open transactions and the notification queue. Changes nothing. Run it
    on the broker's machine with the broker's login. Exit 1 if it finds a problem; a notice is not a problem.
    """
    looked_at: dict[str, Sequence[DoctorFinding]] = {HERE: [_program(), *misspelled(dict(os.environ))]}
    for name, database in zip(database_names(call.databases), call.databases, strict=True):
        looked_at[name] = asyncio.run(_examine(database, alone=len(call.databases) == 1))
    found = [finding for each in looked_at.values() for finding in each]
    problems = sum(finding.state == "problem" for finding in found)
    notices = sum(finding.state == "notice" for finding in found)
    findings = [{"database": name, **one._asdict()} for name, each in looked_at.items() for one in each]
    if not call.printed({"problems": problems, "notices": notices, "findings": findings}):
        widest = max(len(finding.check) for finding in found)
        for name, each in looked_at.items():
            if len(call.databases) > 1:
                output.say(f"{name}:")
            _show(each, widest)
        output.say()
        output.say(_totals(problems, notices))
    return EXIT_FAILED if problems else 0


def _program() -> DoctorFinding:
    """What runs here: the version, its form and the Python."""
    facts = {"version": __version__, "form": installed_form(), "python": platform.python_version()}
    says = f"noetl-broker {facts['version']}, the {facts['form']} form, on Python {facts['python']}"
    return DoctorFinding("program", "ok", says, facts=facts)


async def _examine(database: Database, *, alone: bool) -> Sequence[DoctorFinding]:
    """Examine one database. If there are several, a database that cannot be reached is a finding."""
    try:
        return await examine_all(database)
    except BrokerError as fault:
        if alone:
            raise
        why = "A broker of several databases serves the others and retries this one."
        return [DoctorFinding("connection", "problem", str(fault), why, "Correct what the message names.")]


def misspelled(environ: dict[str, str]) -> list[DoctorFinding]:
    """Find variables that look like settings but are none."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    found = []
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name.upper() in known or name in OTHER_VARIABLES:
            continue
        near = get_close_matches(name.upper(), known, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        found.append(DoctorFinding(
            "settings", "notice", f"the variable {name} is not a setting",
            "It has no effect.", f"{meant}noetl-broker config lists all settings.",
            {"variable": name, "meant": near[0] if near else None},
        ))  # fmt: skip
    return found


def _show(found: Sequence[DoctorFinding], widest: int) -> None:
    for finding in found:
        state = output.Styled(finding.state.ljust(len("problem")), COLOURS[finding.state])
        output.say(state, f"  {finding.check.ljust(widest)}  {output.one_line(finding.says)}")
        for word, text in (("why", finding.why), ("do", finding.do)):
            if text is not None:
                output.say(" " * 9, output.Styled(word.rjust(widest), dim=True), f"  {output.one_line(text)}")


def _totals(problems: int, notices: int) -> str:
    counted = [
        f"{number} {word if number == 1 else word + 's'}"
        for number, word in ((problems, "problem"), (notices, "notice"))
        if number
    ]
    return ", ".join(counted) if counted else "no problems"

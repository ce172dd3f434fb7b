"""The command `doctor`: what keeps brokers from working here, why it matters, and what to do about it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from difflib import get_close_matches

from noetl_broker.cli import output
from noetl_broker.cli.frame import Call, command
from noetl_broker.errors import EXIT_FAILED, BrokerError
from noetl_broker.settings import PREFIX, Settings
from noetl_broker.store.binaries import BIN_FOLDER_VARIABLE
from noetl_broker.store.dsn import database_names
from noetl_broker.store.examining import examine
from noetl_broker.store.findings import Finding, State

COLOURS: dict[State, str] = {"ok": "green", "notice": "yellow", "problem": "red"}
HERE = "this machine"
OTHER_VARIABLES = frozenset({BIN_FOLDER_VARIABLE})


@command(
    "doctor",
    example=("noetl-broker doctor --dsn postgresql://broker_1@db.example/noetl\nnoetl-broker doctor --json"),
    several_databases=True,
)
def doctor(call: Call) -> int:
    """Find what keeps brokers from working here, and say what to do.

    Looks at the connection, the server, LISTEN, the schema, rights, brokers, lag, mail that was set aside, leases, jobs
    that nobody takes, bloat, open transactions and the notification queue. Changes nothing. Call it from the broker's
    machine, with its login. Exit 1 if it finds a problem; a notice is none.
    """
    looked_at: dict[str, Sequence[Finding]] = {}
    if of_all := misspelled(dict(os.environ)):
        looked_at[HERE] = of_all
    for name, dsn in zip(database_names(call.dsns), call.dsns, strict=True):
        looked_at[name] = asyncio.run(_look(dsn, alone=len(call.dsns) == 1))
    found = [finding for each in looked_at.values() for finding in each]
    problems = sum(finding.state == "problem" for finding in found)
    notices = sum(finding.state == "notice" for finding in found)
    if call.as_json:
        findings = [{"database": name, **one._asdict()} for name, each in looked_at.items() for one in each]
        output.show_json({"problems": problems, "notices": notices, "findings": findings})
    else:
        for name, each in looked_at.items():
            if len(call.dsns) > 1:
                output.say(f"{name}:")
            _tell(each)
        output.say()
        output.say(_sum(problems, notices))
    return EXIT_FAILED if problems else 0


async def _look(dsn: str | None, *, alone: bool) -> Sequence[Finding]:
    """Examine one database; of several, one that cannot be reached keeps nobody from looking at the others."""
    try:
        return await examine(dsn)
    except BrokerError as fault:
        if alone:
            raise
        why = "A broker that serves several databases goes on with the others, and tries this one again."
        return [Finding("connection", "problem", str(fault), why, "Mend what the sentence names.")]


def misspelled(environ: dict[str, str]) -> list[Finding]:
    """Variables that look like settings and are none: nothing else would say that they do nothing."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    found = []
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name.upper() in known or name in OTHER_VARIABLES:
            continue
        near = get_close_matches(name.upper(), known, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        found.append(Finding(
            "settings", "notice", f"the variable {name} is no setting",
            "It changes nothing: what it was to set stays as it is.", f"{meant}noetl-broker config lists all settings.",
            {"variable": name, "meant": near[0] if near else None},
        ))  # fmt: skip
    return found


def _tell(found: Sequence[Finding]) -> None:
    widest = max(len(finding.check) for finding in found)
    for finding in found:
        state = output.Styled(finding.state.ljust(len("problem")), COLOURS[finding.state])
        output.say(state, f"  {finding.check.ljust(widest)}  {output.one_line(finding.says)}")
        for word, text in (("why", finding.why), ("do", finding.do)):
            if text is not None:
                output.say(" " * 9, output.Styled(word.rjust(widest), dim=True), f"  {output.one_line(text)}")


def _sum(problems: int, notices: int) -> str:
    counted = [
        f"{number} {word if number == 1 else word + 's'}"
        for number, word in ((problems, "problem"), (notices, "notice"))
        if number
    ]
    return ", ".join(counted) if counted else "all is well"

"""The commands of docs/how-to/upgrade.md, in their order, replace this release by a made next one and go back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from noetl_broker.embedded_postgres.binaries import find_bin_folder
from tests.brokers import broken_invariants, register, start, until_ended
from tests.chaos.under_load import ONE_STEP
from tests.docs.pages import code_blocks, read_page
from tests.packaging.wheels import PATIENCE_SECONDS, Program, environment
from tests.postgres import Database

LINK = "/opt/noetl-broker"
WORK = ONE_STEP.replace("code: x", "code: 'def main(): return 1'")


class Machine:
    """A machine with the folders of the page; its units are a broker and a worker of the linked program."""

    def __init__(self, folder: Path, database: Database, old: Program, new: Program) -> None:
        self.database, self.folder = database, folder
        self.folders = {f"{LINK}-0.2.0": str(new.folder), f"{LINK}-0.1.0": str(old.folder), LINK: str(folder / "link")}
        self.units: dict[str, ExitStack] = {}
        self.programs: dict[str, Path] = {}  # of the units
        self.run(f"ln -sfn {LINK}-0.1.0 {LINK}")
        self.restart("noetl-broker")
        self.restart("noetl-worker")

    def restart(self, unit: str) -> None:
        """Stop what a unit runs, and start it with the program of the link."""
        self.stop(unit)
        program = Program((self.folder / "link").resolve())
        self.programs[unit] = program.folder
        self.units[unit] = ExitStack()
        self.units[unit].enter_context(program.serve(self.database, "run" if unit == "noetl-broker" else "worker"))

    def stop(self, *units: str) -> None:
        """Stop what units run; it must end well."""
        for unit in units or [*self.units]:
            self.units.pop(unit, ExitStack()).close()

    def run(self, line: str) -> str:
        """Run a line of the page; return what it prints. The made program is installed already."""
        if line.startswith("systemctl restart "):
            self.restart(line.rsplit(maxsplit=1)[-1])
        if line.startswith(("systemctl", "python3 -m venv")) or "/pip install" in line:
            return ""
        for place, folder in self.folders.items():
            line = re.sub(rf"{place}(?=[/ ]|$)", folder, line)
        own = environment(self.database)
        own["PATH"] = f"{self.folder / 'link' / 'bin'}:{find_bin_folder()}:{own['PATH']}"
        answer = subprocess.run(
            ["/bin/sh", "-euc", line], cwd=self.folder, env=own, capture_output=True, text=True, check=False,
            timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert (answer.returncode, line) == (0, line), answer.stdout + answer.stderr
        return answer.stdout


@pytest.fixture
def machine(
    tmp_path: Path, database: Database, installed: Program, later: tuple[Program, Program]
) -> Iterator[Machine]:
    """A machine that runs this release."""
    made = Machine(tmp_path, database, installed, later[0])
    yield made
    made.stop()


@pytest.mark.slow
async def test_the_runbook_upgrades_and_goes_back(
    machine: Machine, database: Database, installed: Program, later: tuple[Program, Program]
) -> None:
    """Executions start and end after each of its parts. Its looks show the version of the program and of the schema."""
    await register(database, WORK)
    printed, programs = [], []
    for part in code_blocks(read_page("upgrade"), "sh"):
        printed.append("".join(machine.run(line) for line in part.splitlines()))
        programs.append({*machine.programs.values()})
        await start(database, count=3)
        await until_ended(database)
    assert programs == [*[{installed.folder}] * 3, *[{later[0].folder}] * 2, {installed.folder}]
    look, dry_run, migrated, _, looked, back = printed
    assert [f" {version} " in text for version, text in (("0.1.0", look), ("0.2.0", looked))] == [True, True]
    assert (dry_run.count("pending"), migrated.count("applied 00"), back.count("notice   schema")) == (2, 2, 1)
    assert await broken_invariants(database) == {}

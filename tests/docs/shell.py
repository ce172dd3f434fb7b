"""Runs the commands of a page in a shell, with the program of this checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import plain_environment
from tests.docs import warm_commands
from tests.postgres import Database

PATIENCE_SECONDS = 600
# Commands in the background end with the script.
SCRIPT = "set -eu\nothers=\ntrap 'for other in $others; do kill $other; done; wait' EXIT\n"


def blocks(page: str, form: str = "sh") -> list[str]:
    """Return the code blocks of a page in one language, in order."""
    return re.findall(rf"^```{form}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def run_script(commands: str, folder: Path, database: Database | None = None) -> subprocess.CompletedProcess[str]:
    """Run shell commands in a folder; the first that fails ends the run, and the test."""
    folders = [warm_commands.programs(), Path(sys.executable).parent, os.environ["PATH"]]
    path = os.pathsep.join(str(each) for each in folders if each is not None)
    # Tests run in parallel, and only one process can have the port.
    environment = plain_environment() | {"PATH": path, "NOETL_BROKER_HEALTH_PORT": "0"}
    if database is not None:
        environment["NOETL_BROKER_DSN"] = database.dsn
    answer = subprocess.run(
        ["/bin/sh", "-c", SCRIPT + re.sub(r" &(?= *(#|$))", ' & others="$others $!"', commands, flags=re.MULTILINE)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert answer.returncode == 0, answer.stderr
    return answer

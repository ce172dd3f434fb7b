"""Runs what a page tells its reader to type, as a shell would, with the command of this checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import plain_environment
from tests.postgres import Database

PATIENCE_SECONDS = 120
# What was put into the background ends with the script, however that ends.
SCRIPT = "set -eu\nothers=\ntrap 'for other in $others; do kill $other; done; wait' EXIT\n"


def blocks(page: str, form: str = "sh") -> list[str]:
    """The code blocks of a page in one language, in its order."""
    return re.findall(rf"^```{form}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def run_script(commands: str, folder: Path, database: Database | None = None) -> subprocess.CompletedProcess[str]:
    """Run shell commands in a folder, each of which must work, the first that does not ends it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Tests run beside each other, and a port can be had once.
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

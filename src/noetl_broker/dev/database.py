"""The Postgres of `dev`, with its data in `.noetl/`."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from noetl_broker import embedded_postgres
from noetl_broker.dev_folder import DevFolder
from noetl_broker.embedded_postgres import EmbeddedPostgres
from noetl_broker.errors import OperatorFault

# A crash of the machine may lose the last moments, but never breaks the data.
SETTINGS: Final = {"synchronous_commit": "off"}
# Root's Postgres runs under another account, which cannot enter the home of root.
SUBSTITUTES: Final = Path("/var/lib/noetl-broker")


def start_database(place: DevFolder, *, fresh: bool) -> EmbeddedPostgres:
    """Start the Postgres of a folder that we have locked; `fresh`: without the data of earlier runs.

    Raises BrokerError.
    """
    folder = place.path / "postgres"
    substitute = _substitute(place) if os.geteuid() == 0 else None
    if fresh:
        for old in filter(None, (folder, substitute)):
            _remove(old)
        place.forget_console_port()
    return embedded_postgres.start(folder, settings=SETTINGS, substitute=substitute, stop_leftover=True)


def _substitute(place: DevFolder) -> Path:
    name = hashlib.sha256(os.fsencode(place.path)).hexdigest()[:12]
    return SUBSTITUTES / f"{place.parent.name or 'root'}-{name}"


def _remove(folder: Path) -> None:
    embedded_postgres.end_leftover(folder / "data")
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OperatorFault(f"--fresh cannot remove {folder}: {error.strerror or error}; remove it yourself") from error

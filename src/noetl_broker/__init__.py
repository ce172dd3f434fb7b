"""A Postgres-native workflow broker: events in, decisions out, one transaction.

`__all__` has the public names (docs/reference/python.md). Each is loaded at first use: a simulation loads no database
driver, and `noetl-broker --help` loads none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noetl_broker.client import Approval, Client, Ended, ExecutionFailed
    from noetl_broker.errors import BrokerError, JobFailed
    from noetl_broker.job import Job
    from noetl_broker.sync_client import SyncClient
    from noetl_broker.testing import (
        PlaybookError,
        Playbooks,
        SimulationFault,
        Story,
        Visit,
        delayed,
        in_turn,
        simulate,
    )
    from noetl_broker.worker import Worker, run_code

__version__ = "0.1.0"

__all__ = [
    "Approval",
    "BrokerError",
    "Client",
    "Ended",
    "ExecutionFailed",
    "Job",
    "JobFailed",
    "PlaybookError",
    "Playbooks",
    "SimulationFault",
    "Story",
    "SyncClient",
    "Visit",
    "Worker",
    "__version__",
    "delayed",
    "in_turn",
    "run_code",
    "simulate",
]

_HOMES = {
    "client": ("Approval", "Client", "Ended", "ExecutionFailed"),
    "errors": ("BrokerError", "JobFailed"),
    "job": ("Job",),
    "sync_client": ("SyncClient",),
    "testing": ("PlaybookError", "Playbooks", "SimulationFault", "Story", "Visit", "delayed", "in_turn", "simulate"),
    "worker": ("Worker", "run_code"),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load the module of a public name."""
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"noetl_broker.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

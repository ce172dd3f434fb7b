"""A Postgres-native workflow broker: events in, decisions out, one transaction.

What programs may import stands in `__all__` (docs/python.md). Each name is loaded when it is asked for: a test that
simulates a playbook loads no driver of a database, and `noetl-broker --help` loads nothing of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noetl_broker.client import Client, Ended, ExecutionFailed
    from noetl_broker.errors import BrokerError, JobFailed
    from noetl_broker.job import Job
    from noetl_broker.simulation import Playbooks, SimulationFault, Story, Visit, in_turn, simulate
    from noetl_broker.worker import Worker, run_code

__version__ = "0.1.0"

__all__ = [
    "BrokerError",
    "Client",
    "Ended",
    "ExecutionFailed",
    "Job",
    "JobFailed",
    "Playbooks",
    "SimulationFault",
    "Story",
    "Visit",
    "Worker",
    "__version__",
    "in_turn",
    "run_code",
    "simulate",
]

_HOMES = {
    "client": ("Client", "Ended", "ExecutionFailed"),
    "errors": ("BrokerError", "JobFailed"),
    "job": ("Job",),
    "simulation": ("Playbooks", "SimulationFault", "Story", "Visit", "in_turn", "simulate"),
    "worker": ("Worker", "run_code"),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load the module that a public name lives in."""
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"noetl_broker.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

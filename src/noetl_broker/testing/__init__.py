"""Simulates playbooks without database and worker: the core decides, and a test answers the jobs."""

from noetl_broker.playbook import PlaybookError
from noetl_broker.testing.answers import Delayed, InTurn, SimulationFault, delayed, in_turn
from noetl_broker.testing.folder import Playbooks
from noetl_broker.testing.result import Story, Visit
from noetl_broker.testing.simulate import simulate

__all__ = [
    "Delayed",
    "InTurn",
    "PlaybookError",
    "Playbooks",
    "SimulationFault",
    "Story",
    "Visit",
    "delayed",
    "in_turn",
    "simulate",
]

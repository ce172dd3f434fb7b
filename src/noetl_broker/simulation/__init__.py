"""A playbook played without a database and without a worker: the core decides, a test gives the answers of the jobs."""

from noetl_broker.simulation.answers import InTurn, SimulationFault, in_turn
from noetl_broker.simulation.folder import Playbooks
from noetl_broker.simulation.play import simulate
from noetl_broker.simulation.told import Story, Visit

__all__ = ["InTurn", "Playbooks", "SimulationFault", "Story", "Visit", "in_turn", "simulate"]

"""The reference worker: leases jobs, runs their tools in order of urgency, and answers."""

from noetl_broker.worker.here import run_code
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.own import Worker
from noetl_broker.worker.pool import run_worker

__all__ = ["Worker", "WorkerOptions", "run_code", "run_worker"]

"""The reference worker: leases jobs by priority, runs their tools, and reports the outcomes."""

from noetl_broker.worker.inline import run_code
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.run import run_worker
from noetl_broker.worker.sdk import Worker

__all__ = ["Worker", "WorkerOptions", "run_code", "run_worker"]

"""The step types that a worker runs, one module each.

To add a step type, write its module, and add its row here and in `TYPES` of `playbook/step_types.py`. `save` and
`iterator` are not tools: `worker/executor.py` runs them around the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from noetl_broker.worker.tools.http import run_http
from noetl_broker.worker.tools.noop import run_noop
from noetl_broker.worker.tools.postgres import run_postgres
from noetl_broker.worker.tools.python import run_python
from noetl_broker.worker.tools.secrets import run_secrets
from noetl_broker.worker.tools.sleep import run_sleep
from noetl_broker.worker.tools.task import Tool

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        "python": run_python,
        "http": run_http,
        "postgres": run_postgres,
        "secrets": run_secrets,
        "noop": run_noop,
        "sleep": run_sleep,
    }
)

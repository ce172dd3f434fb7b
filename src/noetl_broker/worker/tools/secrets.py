"""The secrets tool: returns a secret of the worker's environment.

The value becomes the result of the step, and so a part of the event log. A task that needs a secret for itself should
read `{{ secret.NAME }}`, which stays in the worker.
"""

from __future__ import annotations

from typing import Any

from noetl_broker.worker.environment import SECRET_PREFIX, secret, variable_name
from noetl_broker.worker.tools.task import Task

PROVIDERS = ("env", "environment")


async def run_secrets(task: Task) -> Any:
    """Return {secret_value}, read from the environment of the worker. Other providers are a fault."""
    name = task.first("secret_name", "secret", "key", "variable")
    if name is None and task.action.get("names") is not None:
        raise task.fault("`names` is not supported; ask for each by a step with `secret_name`", kind="not_supported")
    if not isinstance(name, str) or not name:
        raise task.fault("there is no `secret_name`", kind="bad_job")
    provider = str(task.action.get("provider") or PROVIDERS[0]).lower()
    if provider not in PROVIDERS:
        raise task.fault(
            f"the secrets provider {provider!r} is not supported; use `provider: env` and set the environment variable "
            f"{variable_name(SECRET_PREFIX, name)} of the worker",
            kind="not_supported",
        )
    return {"secret_value": secret(task.shared.environment, name)}

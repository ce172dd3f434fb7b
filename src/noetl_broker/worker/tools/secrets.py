"""The secrets tool: gives a secret of the worker's environment to the playbook that asks for it.

The value becomes the step's result, and so part of the event log, as the author asked; a task that needs a secret only
for itself writes `{{ secret.NAME }}` instead, which never leaves the worker.
"""

from __future__ import annotations

from typing import Any

from noetl_broker.worker.environment import SECRET_PREFIX, secret, variable_name
from noetl_broker.worker.tools.task import Task

PROVIDERS = ("env", "environment")


async def run_secrets(task: Task) -> Any:
    """Give {secret_value}, read from the environment of the worker; other providers are a fault with the remedy."""
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
    return {"secret_value": secret(task.lent.environment, name)}

"""Runs the code of a python step in this process, for tests of playbooks, without a worker."""

from __future__ import annotations

from typing import Any

from noetl_broker.errors import JobFailed
from noetl_broker.job import Job
from noetl_broker.worker.tools import python_child


def run_code(job: Job) -> Any:
    """Call `main` of the job's code with its inputs, as a worker does, and return its result.

    Use it as an answer for `simulate`: `answers={"greet": run_code}`. Raises JobFailed with the error of the code.
    """
    code = job.action.get("code")
    if not isinstance(code, str):
        raise JobFailed(f"step '{job.step}' of type {job.type} has no code to run", kind="bad_job", retryable=False)
    request: dict[str, object] = {"name": job.step, "code": code, "args": dict(job.args), "context": dict(job.context)}
    request["libs"] = job.action.get("libs")
    outcome: Any = python_child.outcome_of(request)
    if "error" not in outcome:
        return outcome["result"]
    error = dict(outcome["error"])
    raise JobFailed(error.pop("message"), kind=error.pop("type"), **error)

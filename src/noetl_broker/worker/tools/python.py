"""The python tool: calls the `main` function of the step's code in a separate process."""

from __future__ import annotations

import json
from typing import Any

from noetl_broker.worker.errors import ToolFault
from noetl_broker.worker.job_log import PRINTED_LEVEL
from noetl_broker.worker.tools.python_processes import ForkServerFault
from noetl_broker.worker.tools.task import RESULT_BYTES, Task, as_text, decoded, mapping

# An escaped character (\\uXXXX) has six bytes in the answer and at least one in the result.
MOST_ANSWER_BYTES = RESULT_BYTES * 6


async def run_python(task: Task) -> Any:
    """Return the result of `main`. Its processes are gone when this returns, raises or is cancelled."""
    request: dict[str, Any] = {"name": task.name, "code": code_of(task), "args": dict(task.args)}
    request |= {"context": dict(task.context), "env": environment_of(task), "libs": task.action.get("libs")}
    outputs = task.log.output(PRINTED_LEVEL), task.log.output(PRINTED_LEVEL)
    try:
        interpreter = await task.shared.interpreters.take(outputs)
    except ForkServerFault as fault:
        raise task.fault(f"no Python process can be started: {fault}", kind="process_died", retryable=True) from None
    try:
        answer = await interpreter.ask(json.dumps(request).encode(), MOST_ANSWER_BYTES)
        code = interpreter.exit_code
    finally:
        await interpreter.end()
    if answer is None:
        how = "was killed with its keeper" if interpreter.keeper_died else ending(code)
        raise task.fault(f"its process {how} without a result", kind="process_died", retryable=True)
    if len(answer) > MOST_ANSWER_BYTES:
        raise task.fault(f"the result is larger than the limit of {RESULT_BYTES} bytes", kind="max_result_bytes")
    return result_in(answer, task)


def code_of(task: Task) -> str:
    """The source text of the step."""
    if "code_b64" in task.action:
        return decoded(task.action["code_b64"], "code_b64")
    if isinstance(code := task.action.get("code"), str):
        return code
    if "script" in task.action:
        raise task.fault("code from a `script` is not supported; put it under `code`", kind="not_supported")
    raise task.fault("there is no code; put a function main() under `code`", kind="bad_job")


def environment_of(task: Task) -> dict[str, str]:
    """The variables that the step's `env` adds to its process: text as it is, other values as JSON."""
    variables = {str(name): as_text(value) for name, value in mapping(task.action.get("env"), "env").items()}
    for name, value in variables.items():
        if not name or "=" in name or not _fits(name + value):
            raise task.fault(f"env holds {name!r}, which no environment can hold", kind="bad_value")
    return variables


def _fits(text: str) -> bool:
    """Whether a variable can hold this text: no NUL, and UTF-8 can encode it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def result_in(answer: bytes, task: Task) -> Any:
    """The result in the answer of the process. Raises the fault in it."""
    try:
        outcome = json.loads(answer)
        error = outcome.get("error")
    except (ValueError, AttributeError):
        raise task.fault("its process gave an answer that is not JSON", kind="process_died", retryable=True) from None
    if error is None:
        return outcome.get("result")
    raise ToolFault(
        error["message"], kind=error["type"], retryable=error["retryable"], traceback=error.get("traceback")
    )


def ending(code: int | None) -> str:
    """How a process ended, for an error."""
    if code is None:
        return "closed its channel"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

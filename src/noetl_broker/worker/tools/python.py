"""The python tool: calls the `main` of the step's code in a process of its own."""

from __future__ import annotations

import json
from typing import Any

from noetl_broker.worker.faults import ToolFault
from noetl_broker.worker.tools.task import RESULT_BYTES, Task, as_text, decoded, mapping


async def run_python(task: Task) -> Any:
    """Give what `main` returned; its process group is gone when this returns, raises or is cancelled."""
    request: dict[str, Any] = {"name": task.name, "code": code_of(task), "args": dict(task.args)}
    request |= {"context": dict(task.context), "env": environment_of(task), "libs": task.action.get("libs")}
    redactor = task.lent.redactor
    interpreter = await task.lent.interpreters.take()
    try:
        # A character escaped as \\uXXXX takes six bytes of the answer and at least one of the result.
        answer = await interpreter.ask(json.dumps(request).encode(), RESULT_BYTES * 6, redactor.longest)
        code = interpreter.process.returncode
    finally:
        await interpreter.end()
        for name, output in interpreter.outputs.items():
            if output.kept:
                task.outputs[name] = output.told(redactor)
    if answer is None:
        code = interpreter.process.returncode if code is None else code
        raise task.fault(f"its process {ending(code)} without a result", kind="process_died", retryable=True)
    if isinstance(answer, int):
        raise task.fault(f"the result is larger than the limit of {RESULT_BYTES} bytes", kind="max_result_bytes")
    return result_in(answer, task)


def code_of(task: Task) -> str:
    """Give the source text of the step."""
    if "code_b64" in task.action:
        return decoded(task.action["code_b64"], "code_b64")
    if isinstance(code := task.action.get("code"), str):
        return code
    if "script" in task.action:
        raise task.fault("code from a `script` is not supported; put it under `code`", kind="not_supported")
    raise task.fault("there is no code; put a function main() under `code`", kind="bad_job")


def environment_of(task: Task) -> dict[str, str]:
    """Give what the step's `env` adds to the environment of its process: text as it is, all else as JSON."""
    said = {str(name): as_text(value) for name, value in mapping(task.action.get("env"), "env").items()}
    for name, value in said.items():
        if not name or "=" in name or not _fits(name + value):
            raise task.fault(f"env holds {name!r}, which no environment can hold", kind="bad_value")
    return said


def _fits(text: str) -> bool:
    """Whether an environment can hold it: no NUL, nothing that UTF-8 has no bytes for."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def result_in(answer: bytes, task: Task) -> Any:
    """Read the answer of the process; raises the fault that it tells."""
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
    """Say how a process ended."""
    if code is None:
        return "closed its channel"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

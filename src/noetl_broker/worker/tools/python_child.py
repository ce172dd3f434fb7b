"""Runs the code of one python step in a process that is used once.

The fork server (python_fork_server.py) loads this file by its path, so it imports nothing of the package.
"""

from __future__ import annotations

import importlib
import inspect
import json
import keyword
import linecache
import math
import os
import signal
import sys
import time
import traceback
import types

WHOLE_INPUTS = ("input_data", "args", "data", "input", "params", "payload")
MODULE_NAME = "playbook_step"
TRACEBACK_CHARACTERS = 1_000_000  # the worker cuts it further, after it has removed the secrets
MAX_BITS = 14_000  # Python prints no number of more than 4,300 digits


class StepFault(Exception):
    """The step's code cannot run; a retry does not help."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def write_line(descriptor: int, outcome: dict[str, object]) -> None:
    """Write one outcome. Lone surrogates are escaped: the worker refuses them."""
    view = memoryview(json.dumps(outcome, allow_nan=False).encode() + b"\n")
    while view:
        view = view[os.write(descriptor, view) :]


def close_once(channels: list[int]) -> None:
    """Close the descriptors in the list and empty it. After another fork the number may be another file."""
    while channels:
        os.close(channels.pop())


def imports_of(libs: object) -> str:
    """The import statements for `libs`: `{np: numpy, join: {from: os.path, import: join}}`.

    A list names installed packages, which the code itself imports.
    """
    if libs is None or isinstance(libs, list):
        return ""
    lines = [statement(name, of) for name, of in libs.items()] if isinstance(libs, dict) else [None]
    if None in lines:
        message = "libs must map names to modules, such as {np: numpy} or {join: {from: os.path, import: join}}"
        raise StepFault("bad_value", message)
    return "\n".join(map(str, lines))


def statement(name: str, of: object) -> str | None:
    """One import statement, or None for a wrong entry."""
    module, part = (of.get("from"), of.get("import")) if isinstance(of, dict) else (of, None)
    words = [name, *(module.split(".") if isinstance(module, str) else [module]), *([] if part is None else [part])]
    if not all(isinstance(word, str) and word.isidentifier() and not keyword.iskeyword(word) for word in words):
        return None
    return f"import {module} as {name}" if part is None else f"from {module} import {part} as {name}"


def load(code: str, file: str, names: dict[str, object]) -> dict[str, object]:
    """Execute the module text and return its names. `file` makes its lines readable in a traceback."""
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    module = types.ModuleType(MODULE_NAME)
    module.__dict__.update(names, __file__=file)
    sys.modules[MODULE_NAME] = module
    try:
        compiled = compile(code, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        kind = type(error).__name__
        raise StepFault(kind, f"the code does not compile: {error}") from None
    exec(compiled, module.__dict__)  # noqa: S102 - running the step's code is what this process is for
    return module.__dict__


def bind(
    signature: inspect.Signature, args: dict[str, object], context: dict[str, object]
) -> tuple[list[object], dict[str, object]]:
    """The value of each parameter of `main`: an input of that name, the context, all inputs, or its default."""
    positional: list[object] = []
    named: dict[str, object] = {}
    used: set[str] = set()
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update({key: value for key, value in args.items() if key not in used})
            continue
        used.add(name)
        if name in args:
            value = args[name]
        elif name == "context":
            value = context
        elif name in WHOLE_INPUTS and (name == "input_data" or parameter.default is parameter.empty):
            value = args
        elif parameter.default is not parameter.empty:
            value = parameter.default
        elif name in context:
            value = context[name]
        else:
            given = ", ".join(args) or "none"
            message = (
                f"main() has a parameter '{name}', but the step has no input of that name (its inputs: {given}); "
                f"add '{name}' to its args or give the parameter a default"
            )
            raise StepFault("missing_input", message)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            named[name] = value
    return positional, named


def call(names: dict[str, object], args: dict[str, object], context: dict[str, object]) -> object:
    """Call `main`, and await it if it is async. Without a `main`, the value of `result` is the result."""
    main = names.get("main")
    if main is None and "result" in names:
        return names["result"]
    if not callable(main):
        raise StepFault("missing_main", "the code defines neither a function main() nor a name 'result'; add one")
    positional, named = bind(inspect.signature(main), args, context)
    value = main(*positional, **named)
    if not inspect.isawaitable(value):
        return value
    # Most steps need no asyncio. A fork without it, and without the threads that it imports, takes a quarter less time.
    return importlib.import_module("asyncio").run(await_any(value))


async def await_any(value: object) -> object:
    """Await any awaitable: `asyncio.run` takes only coroutines."""
    return await value  # type: ignore[misc]


def as_json(value: object, path: str) -> object:
    """Check that a result is JSON. A tuple becomes a list; another type is a fault that names its path."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise StepFault("result_not_json", f"the result is not JSON: {path} is a number of thousands of digits")
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise StepFault("result_not_json", f"the result is not JSON: {path} is {value}, and JSON has no such number")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                message = f"the result is not JSON: a key of {path} is {key!r} ({type(key).__name__}), not a string"
                raise StepFault("result_not_json", message)
        return {key: as_json(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item, f"{path}[{index}]") for index, item in enumerate(value)]
    message = (
        f"the result is not JSON: {path} is a {type(value).__name__}; return a mapping, a list, a text or a number"
    )
    raise StepFault("result_not_json", message)


def message_of(error: BaseException) -> str:
    """The message of an exception; empty if its `__str__` fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the step's code
        return ""


def own_traceback(error: BaseException, file: str) -> str:
    """The traceback, beginning with the first frame of the step's code."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))[-TRACEBACK_CHARACTERS:]


def outcome_of(job: dict[str, object]) -> dict[str, object]:
    """Run one job; returns {result} or {error: {message, type, traceback, retryable}}."""
    file = f"<step {job['name']}>"
    args, context = job["args"], job["context"]
    assert isinstance(args, dict)  # noqa: S101 - the worker built it so
    assert isinstance(context, dict)  # noqa: S101
    given: dict[str, object] = {"context": context}
    # Code without a main() reads its inputs as names. It may define the two names that have a meaning.
    given |= {key: value for key, value in args.items() if key not in ("main", "result")}
    try:
        exec(imports_of(job.get("libs")), given)  # noqa: S102 - as if they were the first lines of the code
        names = load(str(job["code"]), file, given)
        return {"result": as_json(call(names, args, context), "result")}
    except StepFault as fault:
        return {"error": {"message": str(fault), "type": fault.kind, "retryable": False}}
    except RecursionError as error:
        return {"error": {"message": f"RecursionError: {error}", "type": "RecursionError", "retryable": True}}
    except SystemExit as error:
        message = f"the code called sys.exit({error.code!r}); return from main() instead"
        return {"error": {"message": message, "type": "SystemExit", "retryable": True}}
    except BaseException as error:  # noqa: BLE001 - any exception of the step's code is its outcome
        kind = type(error).__name__
        message = message_of(error) or kind
        return {"error": {"message": message, "type": kind, "traceback": own_traceback(error, file), "retryable": True}}


def serve_one(channel: int) -> None:
    """Read the job from the channel, run it, write the outcome to the channel, and wait to be killed.

    Both are lines of JSON. Standard output and error belong to the step's code. This returns only in a fork that
    returned from the step's code, and if there is no job.
    """
    channels = [channel]
    # A fork that keeps it open would hide the death of this process.
    os.register_at_fork(after_in_child=lambda: close_once(channels))
    with open(channel, "rb", closefd=False) as jobs:
        line = jobs.readline()
    if not line.endswith(b"\n"):
        return
    job = json.loads(line)
    os.environ.update(job["env"])
    if "TZ" in job["env"]:
        time.tzset()
    outcome = outcome_of(job)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    if not channels:
        return  # a fork must not write the outcome
    write_line(channel, outcome)
    while True:
        signal.pause()

"""Runs the code of one python step in an interpreter of its own, started ahead and used once.

The worker starts this file as a script, so it imports nothing of the package. There are two processes. The first is the
keeper: it starts the second, the runner, and ends it with all that it started. The keeper does so when the runner ends,
and when the worker closes its end of the leash, a pipe whose number is the second argument, or dies.

The job comes to the runner as one frame (eight bytes of length, then JSON) on standard input; the outcome goes as one
into the pipe whose number is the first argument. Standard output and error belong to the step's code. After the outcome
the runner waits to be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import keyword
import linecache
import math
import os
import resource
import select
import signal
import sys
import time
import traceback
import types
from pathlib import Path

try:
    import ctypes
except ImportError:  # a Python that was built without libffi
    ctypes = None  # type: ignore[assignment]

WHOLE_INPUTS = ("input_data", "args", "data", "input", "params", "payload")
MODULE_NAME = "playbook_step"
FRAME_HEADER_BYTES = 8
TRACEBACK_CHARACTERS = 1_000_000  # the worker keeps less; so much is more than the longest secret of an environment
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of Linux
PROCESSES = "/proc"
MOST_BITS = 14_000  # Python writes out no number of more than 4,300 digits


class StepFault(Exception):
    """The step's code cannot be run as it is written; trying again does not help."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read `size` bytes, or fewer at the end of the pipe."""
    parts = []
    while size > 0:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_frame(descriptor: int, outcome: dict[str, object]) -> None:
    """Write one outcome; a text that UTF-8 cannot hold is escaped, for the worker to judge."""
    body = json.dumps(outcome, allow_nan=False).encode()
    view = memoryview(len(body).to_bytes(FRAME_HEADER_BYTES, "big") + body)
    while view:
        view = view[os.write(descriptor, view) :]


def close_once(channels: list[int]) -> None:
    """Close what is in the list, and empty it: a fork's own forks may have a file of that number."""
    while channels:
        os.close(channels.pop())


def stay_behind(channel: int, leash: int) -> None:
    """Start the runner, which is where this returns; the process that called this is its keeper, and never returns.

    On Linux the keeper is a subreaper: a descendant whose parent ends becomes its child, whatever session it is in.
    Elsewhere it ends the runner's process group alone.
    """
    if Path(PROCESSES, "self/stat").exists():
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    keeper, runner = os.getpid(), os.fork()
    if runner == 0:
        os.close(leash)
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        return
    os.close(channel)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # whoever stops the worker may tell all processes
        signal.signal(number, signal.SIG_IGN)
    for stream in (0, 1, 2):
        replace_by_nothing(stream)
    end_like(end_all(runner, watch(runner, leash)))


def prctl(option: int, value: int) -> None:
    """Ask something of Linux for this process; where it cannot be asked, nothing changes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0)))


def replace_by_nothing(stream: int) -> None:
    """Put the empty file in the place of a stream."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, stream)
    os.close(nothing)


def watch(runner: int, leash: int) -> int | None:
    """Wait until the runner ends, and give its status; or until the worker lets go of the leash: None."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(leash, select.POLLIN)
    while True:
        for pid, status in reaped():
            if pid == runner:
                return status
        if leash in dict(poll.poll()):
            return None
        os.read(woken, 4096)


def reaped() -> list[tuple[int, int]]:
    """Give process id and status of each child that has ended."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(ended)
    return found


def end_all(runner: int, status: int | None) -> int:
    """Kill the runner and all that it started, wait for them, and give the runner's status."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(runner, signal.SIGKILL)
    if status is None:
        os.kill(runner, signal.SIGKILL)  # it may have no group of its own yet
        status = os.waitpid(runner, 0)[1]
    with contextlib.suppress(ChildProcessError):
        # Each that dies leaves its own children to this process; the last one leaves none.
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for child in children():
                    kill_with_group(child)
                os.waitpid(-1, 0)
    return status


def children() -> list[int]:
    """Give the children of this process, those too that have ended and were not waited for."""
    own, found = os.getpid(), []
    for entry in os.scandir(PROCESSES):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            parent = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()[1]
            if int(parent) == own:
                found.append(int(entry.name))
    return found


def kill_with_group(child: int) -> None:
    """Kill a child with its process group at once: nobody in it can start another one meanwhile."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(child)
        os.kill(child, signal.SIGKILL)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def end_like(status: int) -> None:
    """End as the runner did: the worker tells that."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(max(code, 0))


def imports_of(libs: object) -> str:
    """Write the statements that `libs` asks for: `{np: numpy, join: {from: os.path, import: join}}`.

    A list names packages; they are to be installed, and for the code to import.
    """
    if libs is None or isinstance(libs, list):
        return ""
    lines = [statement(name, of) for name, of in libs.items()] if isinstance(libs, dict) else [None]
    if None in lines:
        message = "libs must map names to modules, such as {np: numpy} or {join: {from: os.path, import: join}}"
        raise StepFault("bad_value", message)
    return "\n".join(map(str, lines))


def statement(name: str, of: object) -> str | None:
    """Write the import of one; None where it is none."""
    module, part = (of.get("from"), of.get("import")) if isinstance(of, dict) else (of, None)
    words = [name, *(module.split(".") if isinstance(module, str) else [module]), *([] if part is None else [part])]
    if not all(isinstance(word, str) and word.isidentifier() and not keyword.iskeyword(word) for word in words):
        return None
    return f"import {module} as {name}" if part is None else f"from {module} import {part} as {name}"


def load(code: str, file: str, names: dict[str, object]) -> dict[str, object]:
    """Execute the module text and give its names; `file` makes its lines readable in a traceback."""
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
    """Give each parameter of `main` its value: an input of that name, the context, all inputs, or its default."""
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
    """Call `main`, waiting for it if it is asynchronous; without a `main` the name `result` is the outcome."""
    main = names.get("main")
    if main is None and "result" in names:
        return names["result"]
    if not callable(main):
        raise StepFault("missing_main", "the code defines neither a function main() nor a name 'result'; add one")
    positional, named = bind(inspect.signature(main), args, context)
    value = main(*positional, **named)
    return asyncio.run(waited(value)) if inspect.isawaitable(value) else value


async def waited(value: object) -> object:
    """Wait for any awaitable (`asyncio.run` takes coroutines only)."""
    return await value  # type: ignore[misc]


def as_json(value: object, place: str) -> object:
    """Check that a result is JSON; a tuple becomes a list, all else is refused with its type and place."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if value.bit_length() > MOST_BITS:
            raise StepFault("result_not_json", f"the result is not JSON: {place} is a number of thousands of digits")
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise StepFault("result_not_json", f"the result is not JSON: {place} is {value}, and JSON has no such number")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                message = f"the result is not JSON: a key of {place} is {key!r} ({type(key).__name__}), not a string"
                raise StepFault("result_not_json", message)
        return {key: as_json(item, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item, f"{place}[{index}]") for index, item in enumerate(value)]
    message = (
        f"the result is not JSON: {place} is a {type(value).__name__}; return a mapping, a list, a text or a number"
    )
    raise StepFault("result_not_json", message)


def words_of(error: BaseException) -> str:
    """What an exception says of itself; nothing where its own code fails at that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the step's code again
        return ""


def own_traceback(error: BaseException, file: str) -> str:
    """Format the traceback from the first frame of the step's code on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))[-TRACEBACK_CHARACTERS:]


def outcome_of(job: dict[str, object]) -> dict[str, object]:
    """Run one job and describe how it ended: {result} or {error: {message, type, traceback, retryable}}."""
    file = f"<step {job['name']}>"
    args, context = job["args"], job["context"]
    assert isinstance(args, dict)  # noqa: S101 - the worker built it so
    assert isinstance(context, dict)  # noqa: S101
    given: dict[str, object] = {"context": context}
    # Code without a main() finds its inputs as names; the two that have a meaning of their own are its to define.
    given |= {key: value for key, value in args.items() if key not in ("main", "result")}
    try:
        exec(imports_of(job.get("libs")), given)  # noqa: S102 - as the step's own first lines
        names = load(str(job["code"]), file, given)
        return {"result": as_json(call(names, args, context), "result")}
    except StepFault as fault:
        return {"error": {"message": str(fault), "type": fault.kind, "retryable": False}}
    except RecursionError as error:
        return {"error": {"message": f"RecursionError: {error}", "type": "RecursionError", "retryable": True}}
    except SystemExit as error:
        message = f"the code called sys.exit({error.code!r}); return from main() instead"
        return {"error": {"message": message, "type": "SystemExit", "retryable": True}}
    except BaseException as error:  # noqa: BLE001 - whatever the step's code raises is its outcome
        kind = type(error).__name__
        message = words_of(error) or kind
        return {"error": {"message": message, "type": kind, "traceback": own_traceback(error, file), "retryable": True}}


def serve_one(channel: int, leash: int) -> None:
    """Wait for the job, run it, answer, wait for the end."""
    stay_behind(channel, leash)
    os.set_inheritable(channel, False)  # noqa: FBT003 - the standard library's own form
    channels = [channel]
    # Open in a fork that lives on, it would hide that this process has died.
    os.register_at_fork(after_in_child=lambda: close_once(channels))
    header = read_exactly(0, FRAME_HEADER_BYTES)
    if len(header) < FRAME_HEADER_BYTES:
        return
    size = int.from_bytes(header, "big")
    body = read_exactly(0, size)
    if len(body) < size:
        return
    replace_by_nothing(0)
    job = json.loads(body)
    os.environ.update(job["env"])
    time.tzset()
    outcome = outcome_of(job)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    if not channels:
        return  # a fork that came back from the step's code: the answer is not its to give
    write_frame(channel, outcome)
    while True:
        signal.pause()


if __name__ == "__main__":
    serve_one(int(sys.argv[1]), int(sys.argv[2]))

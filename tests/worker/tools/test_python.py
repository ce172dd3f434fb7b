"""The python tool: the inputs of `main`, its result, and no process survives the job."""

from __future__ import annotations

import base64
import dataclasses
import os
import select
from typing import Any

import pytest

from noetl_broker.worker.errors import Failure
from noetl_broker.worker.tools.task import RESULT_BYTES, WorkerResources
from tests.worker.conftest import Perform, failed

PATIENCE_SECONDS = 30.0
INPUTS = {"city": "Paris", "temp": 30}


def python(code: str, **more: Any) -> dict[str, Any]:
    """Make a python action."""
    return {"type": "python", "code_b64": base64.b64encode(code.encode()).decode(), **more}


@pytest.mark.parametrize(
    "code, expected",
    [
        ("def main(city, temp): return [city, temp]", ["Paris", 30]),
        ("def main(city): return city", "Paris"),
        ("def main(city, extra='none'): return [city, extra]", ["Paris", "none"]),
        ("def main(city, **kwargs): return [city, kwargs]", ["Paris", {"temp": 30}]),
        ("def main(**kwargs): return kwargs", INPUTS),
        ("def main(input_data): return input_data", INPUTS),
        ("def main(data): return data", INPUTS),
        ("def main(city, /, *, temp): return [city, temp]", ["Paris", 30]),
        ("def main(context, results): return [context['visit'], results]", [2, {"a": 1}]),
        ("def main(execution_id): return execution_id", 42),
        ("async def main(city): return city", "Paris"),
        ("def main(): return None", None),
        ("result = city", "Paris"),
        ("import dataclasses\n@dataclasses.dataclass\nclass P:\n  x: int\ndef main(): return P(3).x", 3),
        ("x = 5\ndef other(): return x\ndef main(): return (other(), 2**70)", [5, 2**70]),
    ],
)
async def test_main_gets_its_parameters(perform: Perform, code: str, expected: Any) -> None:
    """Each parameter is an input of its name, the context, all inputs, or its default. Other inputs are omitted."""
    context = {"visit": 2, "results": {"a": 1}, "execution_id": 42}
    assert await perform(python(code, args=INPUTS), context=context) == expected


async def test_a_missing_input_is_named(perform: Perform) -> None:
    """A parameter without a value fails without a retry; the error lists the inputs."""
    outcome = await perform(python("def main(country): pass", args=INPUTS))
    assert failed(outcome)["type"] == "missing_input"
    assert "'country'" in failed(outcome)["message"]
    assert "city, temp" in failed(outcome)["message"]
    assert not outcome.retryable


@pytest.mark.parametrize(
    "code, kind, words",
    [
        ("def main(): return {'a': [1, {2}]}", "result_not_json", "result['a'][1] is a set"),
        ("def main(): return {1: 2}", "result_not_json", "a key of result is 1 (int)"),
        ("def main(): return float('nan')", "result_not_json", "result is nan"),
        ("def main(): return [10**5000]", "result_not_json", "result[0] is a number of thousands of digits"),
        ("def main(: pass", "SyntaxError", "does not compile"),
        ("x = 1", "missing_main", "neither a function main()"),
        ("def main(): return 'a\\x00b'", "bad_result", "NUL"),
        ("def main(): return '\\ud800'", "bad_result", "surrogate"),
        ("def main(): return 'x' * (2 * 1024 * 1024)", "max_result_bytes", "more than the limit"),
    ],
)
async def test_code_that_can_never_succeed_is_not_retryable(perform: Perform, code: str, kind: str, words: str) -> None:
    """A result that is no JSON, and code that cannot run."""
    outcome = await perform(python(code))
    assert failed(outcome)["type"] == kind
    assert words in failed(outcome)["message"]
    assert not outcome.retryable


async def test_an_exception_whose_message_fails_is_reported_by_its_class(perform: Perform) -> None:
    """Its `__str__` raises; the process survives."""
    code = "class Mute(Exception):\n    def __str__(self): raise ValueError\ndef main(): raise Mute"
    outcome = await perform(python(code))
    assert (failed(outcome)["type"], failed(outcome)["message"]) == ("Mute", "Mute")


async def test_an_exception_has_the_traceback_of_the_code(perform: Perform) -> None:
    """It begins in the step's code and shows no code of the worker."""
    outcome = await perform(python("def main():\n    return helper()\ndef helper():\n    raise KeyError('lost')"))
    error = failed(outcome)
    assert (error["type"], error["message"], outcome.retryable) == ("KeyError", "'lost'", True)
    assert "return helper()" in error["traceback"]
    assert "python_child" not in error["traceback"]


@pytest.mark.parametrize("times, more", [(1, 3_990), (90, 100)])
async def test_the_end_of_a_traceback_shows_no_end_of_a_secret(
    perform: Perform, shared: WorkerResources, times: int, more: int
) -> None:
    """However long it is, and however much of it are secrets."""
    key = "".join(map(chr, range(48, 91))) * 100
    using = dataclasses.replace(shared, environment={**shared.environment, "NOETL_SECRET_API_TOKEN": key})
    code = f"def main(t): raise ValueError(t * {times} + 'x' * {more})"
    error = failed(await perform(python(code, args={"t": "{{ secret.api_token }}"}), using=using))
    assert error["traceback"] == f"[secret]{'x' * more}\n"
    assert error["message"].startswith("[secret]")


async def test_printed_text_is_no_result(perform: Perform) -> None:
    """Standard output and the result do not mix, however much is printed."""
    code = "import sys\ndef main():\n    print('{\"a\": 1}' * 100_000)\n    print('x', file=sys.stderr)\n    return 2"
    assert await perform(python(code)) == 2


async def test_base64_may_have_line_breaks(perform: Perform) -> None:
    """As in a block of YAML."""
    text = base64.encodebytes(b"def main():\n    return 'a long line of code that takes more than one of base64'")
    assert text.count(b"\n") > 1
    assert (await perform({"type": "python", "code_b64": text.decode()})).startswith("a long line")


async def test_a_process_that_ends_early_is_reported_with_its_exit_code(perform: Perform) -> None:
    """It is retryable."""
    error = failed(await perform(python("import os\ndef main(): os._exit(3)")))
    assert (error["type"], "exit code 3" in error["message"]) == ("process_died", True)
    error = failed(await perform(python("import os, signal\ndef main(): os.kill(os.getpid(), signal.SIGKILL)")))
    assert "signal 9" in error["message"]
    error = failed(await perform(python("import sys\ndef main(): sys.exit(4)")))
    assert "sys.exit(4)" in error["message"]


KILLED = """
import os, signal
def main():
    START
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("start", ["os.fork() or signal.pause()", "os.fork() or os.fork() or signal.pause()"])
async def test_a_process_that_dies_before_its_forks_is_reported_at_once(perform: Perform, start: str) -> None:
    """Like one without forks; not only at its time limit."""
    error = failed(await perform(python(KILLED.replace("START", start))))
    assert (error["type"], "signal 9" in error["message"]) == ("process_died", True)


FORKED = """
import os
def main():
    told, tell = os.pipe()
    if os.fork() == 0:
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
        if os.fork() == 0:
            os.write(tell, str(sum(os.path.exists(f"/proc/self/fd/{file}") for file in files)).encode())
        os._exit(0)
    return int(os.read(told, 9))
"""


async def test_a_fork_of_a_fork_keeps_its_files(perform: Perform) -> None:
    """The first fork closed the channel's descriptor; a file may have its number since."""
    assert await perform(python(FORKED)) == 50


async def test_forks_work_for_the_step(perform: Perform) -> None:
    """Only its own process gives the answer, even if a fork returns from `main`."""
    pool = "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as pool: result = pool.map(abs, [-1, 2])"
    assert await perform(python(pool)) == [1, 2]
    both = "import os\ndef main():\n    pid = os.fork()\n    return os.waitpid(pid, 0)[1] if pid else 'fork'"
    assert await perform(python(both)) == 0


async def test_the_code_sees_the_environment_without_secrets(perform: Perform) -> None:
    """Variables are there; passwords and the secrets of other steps are not."""
    code = (
        "import os, sys\n"
        "def main(): return [os.environ.get(n) for n in ('CITY', 'PGPASSWORD', 'NOETL_SECRET_API_TOKEN')]"
        " + [sys.stdin.read()]"
    )
    assert await perform(python(code)) == ["Oslo", None, None, ""]


async def test_the_step_adds_to_the_environment_of_its_code(perform: Perform) -> None:
    """Text as it is, other values as JSON; one may be a secret."""
    code = "import os\ndef main(): return [os.environ[n] for n in ('CITY', 'LIMIT', 'TOKEN', 'NONE')]"
    env = {"CITY": "Bergen", "LIMIT": 3, "TOKEN": "{{ secret.api_token }}", "NONE": None}
    assert await perform(python(code, env=env)) == ["Bergen", "3", "s3cret", ""]


@pytest.mark.parametrize(
    "libs, expected",
    [
        ({"paths": "os.path"}, "a/b"),
        ({"paths": {"from": "os", "import": "path"}}, "a/b"),
        (["python-dateutil"], "none"),
    ],
)
async def test_the_step_names_what_its_code_imports(perform: Perform, libs: Any, expected: str) -> None:
    """The modules are imported before the code runs.

    A list names packages to install, and the code imports them itself.
    """
    code = "text = paths.join('a', 'b') if 'paths' in globals() else 'none'\ndef main(): return text"
    assert await perform(python(code, libs=libs)) == expected


async def test_a_step_can_set_its_time_zone(perform: Perform) -> None:
    """Also for what Python read from the environment before."""
    code = "import time\ndef main(): return time.strftime('%z')"
    assert await perform(python(code, env={"TZ": "Asia/Tokyo"})) in ("+0900", "+0000")  # without the table of zones
    assert await perform(python(code, env={"TZ": "XYZ-9"})) == "+0900"


@pytest.mark.parametrize(
    "more, kind, words",
    [
        ({"env": ["CITY"]}, "bad_value", "env must be a mapping, not list"),
        ({"env": {"A=B": "1"}}, "bad_value", "env holds 'A=B'"),
        ({"env": {"A": "\0"}}, "bad_value", "env holds 'A'"),
        ({"libs": "numpy"}, "bad_value", "libs must map names to modules"),
        ({"libs": {"np": True}}, "bad_value", "libs must map names to modules"),
        ({"libs": {"np": {}}}, "bad_value", "libs must map names to modules"),
        ({"libs": {"class": "json"}}, "bad_value", "libs must map names to modules"),
        ({"libs": {"np": 1}}, "bad_value", "libs must map names to modules"),
        ({"libs": {"np": "numpy; import os"}}, "bad_value", "libs must map names to modules"),
        ({"libs": {"np": {"from": "no_such_module"}}}, "ModuleNotFoundError", "No module named 'no_such_module'"),
        ({"env": {"A": "\ud800"}}, "bad_value", "env holds 'A'"),
        ({"libs": {"np": "no_such_module"}}, "ModuleNotFoundError", "No module named 'no_such_module'"),
    ],
)
async def test_an_invalid_environment_or_import_is_refused(
    perform: Perform, more: dict[str, Any], kind: str, words: str
) -> None:
    """Before any code runs."""
    error = failed(await perform(python("def main(): return 1", **more)))
    assert error["type"] == kind
    assert words in error["message"]


def is_gone(pid: int) -> bool:
    """Wait until a killed process has ended, and tell whether it did; the kernel needs a moment."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], PATIENCE_SECONDS)[0])
    finally:
        os.close(watched)


async def test_the_timeout_of_the_step_overrides_the_limit(perform: Perform) -> None:
    """A `timeout` in the job is its limit."""
    outcome = await perform(python("import time\ndef main(): time.sleep(60)", timeout=0.3))
    assert "longer than 0.3 s" in failed(outcome)["message"]


async def test_code_that_is_missing_or_broken_is_refused(perform: Perform) -> None:
    """Without code, or with invalid base64, the job fails without a retry."""
    for action in ({"type": "python"}, {"type": "python", "code_b64": "%%"}):
        outcome = await perform(action)
        assert isinstance(outcome, Failure)
        assert outcome.error["type"] == "bad_job"
        assert not outcome.retryable


async def test_an_answer_that_no_result_may_have_is_not_read(perform: Perform) -> None:
    """Its size is enough for the error."""
    error = failed(await perform(python(f"def main(): return 'x' * {RESULT_BYTES * 6}")))
    assert (error["type"], error["message"]) == (
        "max_result_bytes",
        f"step 'fetch': the result is larger than the limit of {RESULT_BYTES} bytes",
    )

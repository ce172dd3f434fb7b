"""The fork server: jobs share its modules and nothing else, and its death ends no job."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.worker.tools.python_processes import ForkServerFault, Interpreters
from noetl_broker.worker.tools.task import WorkerResources
from tests.worker.alone import start_alone
from tests.worker.conftest import Perform, failed
from tests.worker.tools.test_python import is_gone, python

SECRET = "s3cret-of-the-worker"  # noqa: S105 - of a test
PARENTS = """
import os
def parent(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])
def parents():
    return [os.getppid(), parent(os.getppid())]
"""
WAITING = f"""
{PARENTS}
def main(begun, end):
    with open(begun, "w") as told:
        told.write(" ".join(map(str, parents())))
    with open(end) as waited:
        return waited.read()
"""
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


class Waiting:
    """A job that tells the process ids of its keeper and its server, and waits until it may end."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.end = folder / "begun", folder / "end"
        os.mkfifo(self.begun)
        os.mkfifo(self.end)
        self.action = python(WAITING, args={"begun": str(self.begun), "end": str(self.end)})

    async def parents(self) -> tuple[int, int]:
        """Wait until it runs; give its keeper and its server."""
        keeper, server = (await asyncio.to_thread(self.begun.read_text)).split()
        return int(keeper), int(server)

    async def finish(self, word: str) -> None:
        """Let it return this word."""
        await asyncio.to_thread(self.end.write_text, word)


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    """Prepare a job that waits."""
    return Waiting(tmp_path)


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_job_outlives_its_fork_server(perform: Perform, waiting: Waiting, number: signal.Signals) -> None:
    """A job beside it gets another server, or the stopped one goes on."""
    job = asyncio.ensure_future(perform(waiting.action))
    _, server = await waiting.parents()
    os.kill(server, number)
    _, other = await perform(python(PARENTS + "def main(): return parents()"))
    assert (other == server) is (number == signal.SIGSTOP)
    await waiting.finish("done")
    assert await job == "done"


@needs_proc
async def test_a_killed_keeper_fails_its_job(perform: Perform, waiting: Waiting) -> None:
    """It is retryable; the next job has another keeper."""
    job = asyncio.ensure_future(perform(waiting.action))
    keeper, _ = await waiting.parents()
    os.kill(keeper, signal.SIGKILL)
    outcome = await job
    error = failed(outcome)
    assert (error["type"], outcome.retryable) == ("process_died", True)
    assert "was killed with its keeper without a result" in error["message"]
    assert await perform(python("def main(): return 1")) == 1


@needs_proc
async def test_an_idle_keeper_that_dies_fails_no_job(perform: Perform) -> None:
    """The next job has another one."""
    ask = python(PARENTS + "def main(): return parents()")
    keeper, _ = await perform(ask)
    os.kill(keeper, signal.SIGKILL)
    assert is_gone(keeper)
    assert (await perform(ask))[0] != keeper


@needs_proc
async def test_a_killed_worker_leaves_no_fork_server(waiting: Waiting) -> None:
    """Neither server nor keeper."""
    worker = await start_alone(waiting.action)
    parents = await waiting.parents()
    worker.kill()
    await worker.communicate()
    assert [is_gone(pid) for pid in parents] == [True, True]


async def test_the_end_of_a_job_ends_no_process_of_another(perform: Perform, waiting: Waiting) -> None:
    """Its child in a session of its own lives."""
    code = waiting_with_child(WAITING)
    job = asyncio.ensure_future(perform(waiting.action | python(code, args=waiting.action["args"])))
    await waiting.parents()
    assert await perform(python("import subprocess\ndef main(): subprocess.Popen(['sleep', '60'])")) is None
    await waiting.finish("")
    assert await job is None


def waiting_with_child(code: str) -> str:
    """Change the waiting code so that it has a child and returns the exit code of that, None while it runs."""
    start = "import subprocess\nchild = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
    return start + code.replace("return waited.read()", "waited.read()\n    return child.poll()")


LEAKING = """
import decimal, json, os, random, sys, threading
def main():
    before = [hasattr(json, "leak"), decimal.getcontext().prec, "LEAK" in os.environ, os.getcwd() == "/"]
    before += ["leak" in sys.modules, threading.active_count()]
    json.leak = decimal.getcontext().prec = 5
    os.environ["LEAK"] = "1"
    os.chdir("/")
    sys.modules["leak"] = json
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return {"before": before, "random": random.random()}
"""


async def test_nothing_of_a_job_is_in_the_next(perform: Perform) -> None:
    """No change of a module, the environment, the folder or the threads; and its random numbers are others."""
    first, second = await perform(python(LEAKING)), await perform(python(LEAKING))
    assert first["before"] == second["before"] == [False, 28, False, False, False, 1]
    assert first["random"] != second["random"]


SEARCH = f"""
{PARENTS}
NEXT = bytes((byte + 1) % 256 for byte in range(256))  # shifts a secret, so that the search does not find itself
def regions():
    for pid in parents():
        with open(f"/proc/{{pid}}/environ", "rb") as environ:
            yield environ.read()
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(address, 16) for address in span.split("-"))
                memory.seek(start)
                yield memory.read(end - start)
def main(shifted):
    return any(shifted.encode() in region.translate(NEXT) for region in regions())
"""


@needs_proc
async def test_a_job_has_no_secret_of_the_worker(perform: Perform, shared: WorkerResources) -> None:
    """Not in its memory, though a job before had it, and not in the environment of its parents."""
    using = dataclasses.replace(shared, environment={**shared.environment, "NOETL_SECRET_API_TOKEN": SECRET})
    known = python("def main(t): return t == 's3cret-of-' + 'the-worker'", args={"t": "{{ secret.api_token }}"})
    assert await perform(known, using=using) is True
    shifted = "".join(chr(ord(character) + 1) for character in SECRET)
    assert await perform(python(SEARCH, args={"shifted": shifted}), using=using) is False


@needs_proc
async def test_a_job_has_no_descriptor_of_the_worker(perform: Perform, waiting: Waiting) -> None:
    """It has its streams, its channel, and the folder that it reads; a job beside it changes nothing."""
    code = "import os\ndef main(): return len(os.listdir('/proc/self/fd'))"
    job = asyncio.ensure_future(perform(waiting.action))
    await waiting.parents()
    assert await perform(python(code)) == 5
    await waiting.finish("")
    await job


@pytest.fixture
async def preloading(shared: WorkerResources, tmp_path: Path) -> AsyncIterator[Any]:
    """Preload modules, given by name and text, in place of the interpreters of `shared`."""
    made: list[Interpreters] = []

    def make(modules: dict[str, str]) -> WorkerResources:
        for name, text in modules.items():
            path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        environment = dict(shared.environment) | {"PYTHONPATH": str(tmp_path)}
        made.append(Interpreters(environment, preload=tuple(name.removesuffix(".__init__") for name in modules)))
        return dataclasses.replace(shared, interpreters=made[0])

    yield make
    for interpreters in made:
        await interpreters.close()


async def test_a_preloaded_module_is_imported_once_and_fresh_in_each_job(perform: Perform, preloading: Any) -> None:
    """The import was in another process than the job; what a job does to the module ends with it."""
    using = preloading({"heavy": "import os\nIMPORTED_BY = os.getpid()\nseen = []"})
    code = (
        "import heavy, os\n"
        "def main():\n"
        "    heavy.seen.append(1)\n"
        "    return {'by': heavy.IMPORTED_BY, 'own': heavy.IMPORTED_BY == os.getpid(), 'seen': heavy.seen}"
    )
    first, second = await perform(python(code), using=using), await perform(python(code), using=using)
    assert first == second
    assert (first["own"], first["seen"]) == (False, [1])


async def test_the_global_generator_of_numpy_is_seeded_in_each_job(perform: Perform, preloading: Any) -> None:
    """Otherwise all jobs would have the same numbers."""
    module = "seeds = 0\ndef seed():\n    global seeds\n    seeds += 1"
    using = preloading({"numpy.__init__": "", "numpy.random": module})
    assert await perform(python("import numpy.random\ndef main(): return numpy.random.seeds"), using=using) == 1


@pytest.mark.parametrize(
    "text, words",
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os\nos._exit(3)", "the fork server ended with exit code 3"),
    ],
)
async def test_a_module_that_cannot_be_preloaded_is_named(
    perform: Perform, preloading: Any, text: str, words: str
) -> None:
    """At the start of the server, and in the error of a job."""
    using = preloading({"broken": text})
    with pytest.raises(ForkServerFault, match="cannot preload broken: " + words):
        await using.interpreters.start()
    outcome = await perform(python("def main(): return 1"), using=using)
    assert outcome.retryable
    assert "no Python process can be started: cannot preload broken" in failed(outcome)["message"]


async def test_a_fork_server_that_cannot_fork_says_so(perform: Perform, preloading: Any) -> None:
    """The limit of processes may be reached for a while, so a retry helps."""
    using = preloading({"full": "import os\ndef fork(): raise BlockingIOError(11, 'no more')\nos.fork = fork"})
    outcome = await perform(python("def main(): return 1"), using=using)
    assert (failed(outcome)["type"], outcome.retryable) == ("process_died", True)
    assert "the fork server cannot fork; look at the limit of processes" in failed(outcome)["message"]

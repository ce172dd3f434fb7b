"""The postgres tool and `save` on a real Postgres."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from noetl_broker.worker.tools.task import WorkerResources
from tests.postgres import Database, psycopg_connect
from tests.worker.conftest import Perform, failed
from tests.worker.servers import listening

Rows = list[tuple[Any, ...]]
OnDatabase = Callable[..., Awaitable[Any]]
Warehouse = dict[str, Any]


@pytest.fixture
def on_database(perform: Perform, shared: WorkerResources, empty_database: Database) -> OnDatabase:
    """Run an action on a worker whose own database is this test's; a credential names it too."""
    parts = urlsplit(empty_database.dsn)
    credential = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
    credential |= {"database": empty_database.name, "type": "postgres"}
    words = {"host": "db_host", "port": "db_port", "user": "db_user", "password": "db_password", "database": "db_name"}
    renamed = {words.get(key, key): value for key, value in credential.items()}
    environment = {**shared.environment, "NOETL_CREDENTIAL_PG_LOCAL": json.dumps(credential)}
    environment |= {"NOETL_CREDENTIAL_PG_DB_WORDS": json.dumps(renamed)}
    environment |= {"NOETL_CREDENTIAL_TOKEN_ONLY": '{"token": "t"}'}
    own = dataclasses.replace(shared, dsn=empty_database.dsn, environment=environment)

    async def run(action: dict[str, Any], **more: Any) -> Any:
        return await perform(action, using=own, **more)

    return run


@pytest.fixture
def rows_of(empty_database: Database) -> Callable[[str], Rows]:
    """Query the test's database."""

    def ask(statement: str) -> Rows:
        with psycopg_connect(empty_database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    return ask


def sql(text: str, **more: Any) -> dict[str, Any]:
    """Make a postgres action."""
    return {"type": "postgres", "command_b64": base64.b64encode(text.encode()).decode(), **more}


async def test_the_result_has_the_last_rows(on_database: OnDatabase) -> None:
    """And the rows of each statement."""
    result = await on_database(sql("create table t (a int); insert into t values (1), (2); select a from t order by a"))
    assert (result["rows"], result["columns"], result["row_count"]) == ([{"a": 1}, {"a": 2}], ["a"], 2)
    assert result["command_1"] == {"status": "success", "row_count": 2, "message": "INSERT 0 2"}
    assert result["command_2"]["rows"] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("more", ["", "; insert into t values (2)", "; commit"])
async def test_two_columns_of_one_name_are_refused(
    on_database: OnDatabase, rows_of: Callable[[str], Rows], more: str
) -> None:
    """The error names it and the remedy. The transaction is rolled back."""
    rows_of("create table t (id int); insert into t values (1)")
    outcome = await on_database(sql(f"delete from t; select a.id, b.id from t a join t b using (id){more}"))
    assert "2 columns of the name 'id'" in failed(outcome)["message"]
    assert "select a.id as a_id, b.id as b_id" in failed(outcome)["message"]
    assert not outcome.retryable
    assert rows_of("select id from t") == ([] if "commit" in more else [(1,)])


async def test_other_rows_may_have_two_columns_of_one_name(on_database: OnDatabase) -> None:
    """Rows before the last, and those of a save."""
    twins = "select setval('s', 1), setval('s', 2)"
    result = await on_database(sql(f"create sequence s; {twins}; select last_value as a from s"))
    assert result["rows"] == [{"a": 2}]
    failed(await on_database(sql(twins)))
    await on_database({"type": "save", "statement": twins, "data": {"b": 1}})


async def test_a_list_of_commands_runs_in_order(on_database: OnDatabase) -> None:
    """Each may be base64."""
    texts = ["create table t (a int)", "insert into t values (5) returning a"]
    action = {"type": "postgres", "commands_b64": [base64.b64encode(text.encode()).decode() for text in texts]}
    assert (await on_database(action))["rows"] == [{"a": 5}]


@pytest.mark.parametrize(
    "more, text",
    [
        ({"parameters": ["1", {"x": "'"}]}, "select $1::int as a, $2::jsonb as b"),
        ({"params": {"one": 1, "two": {"x": "'"}}}, "select :one::int as a, :two::jsonb as b"),
    ],
)
async def test_values_are_parameters(on_database: OnDatabase, more: dict[str, Any], text: str) -> None:
    """A list by number, a mapping by name."""
    assert (await on_database(sql(text, **more)))["rows"] == [{"a": 1, "b": {"x": "'"}}]


async def test_a_deferred_command_is_rendered(on_database: OnDatabase) -> None:
    """Also in base64."""
    assert (await on_database(sql("select '{{ job.uuid }}' as id")))["rows"] == [{"id": "42"}]


async def test_auth_names_a_credential(on_database: OnDatabase) -> None:
    """In each form."""
    named: Any
    for named in (
        "pg_local", {"pg": {"type": "postgres", "key": "pg_local"}}, {"type": "postgres", "credential": "pg_local"}
    ):  # fmt: skip
        assert (await on_database(sql("select 1 as a", auth=named)))["rows"] == [{"a": 1}]


async def test_an_address_may_be_in_the_inputs(on_database: OnDatabase, empty_database: Database) -> None:
    """As `db_*` keys, with the port as text."""
    parts = urlsplit(empty_database.dsn)
    args = {"db_host": parts.hostname, "db_port": str(parts.port), "db_user": parts.username}
    args |= {"db_password": parts.password, "db_name": empty_database.name}
    result = await on_database(sql("select current_database() as name", args=args))
    assert result["rows"] == [{"name": empty_database.name}]


@pytest.fixture
def warehouse(empty_database: Database) -> Iterator[Warehouse]:
    """Give a second database beside the worker's own, with its own login and schema."""
    name = f"{empty_database.name}_wh"
    with psycopg_connect(empty_database, autocommit=True) as connection:
        connection.execute(f"create role \"{name}\" login password 'hush hush'".encode())
        connection.execute(f'create database "{name}" owner "{name}"'.encode())
    parts = urlsplit(empty_database.dsn)
    address = {"host": parts.hostname, "port": parts.port, "database": name, "user": name, "password": "hush hush"}
    with psycopg.connect(parts._replace(path=f"/{name}").geturl(), autocommit=True) as connection:
        connection.execute("create schema stock; create table stock.found (a int); grant all on schema stock to public")
        connection.execute("grant all on stock.found to public")
    yield address
    with psycopg_connect(empty_database, autocommit=True) as connection:
        connection.execute(f'drop database "{name}" with (force)'.encode())
        connection.execute(f'drop role "{name}"'.encode())


WHERE = "select current_database()::text as name, current_user::text as login, current_schema()::text as schema"


async def test_sql_runs_where_the_step_says(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """The type's keys are the address; the worker's own database gets no query."""
    result = await on_database(sql(WHERE, **warehouse | {"port": str(warehouse["port"])}, schema="stock"))
    assert result["rows"] == [{"name": warehouse["database"], "login": warehouse["user"], "schema": "stock"}]


async def test_keys_of_the_step_override_its_credential(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """Whatever the credential calls its parts."""
    for word in ("auth", "credential", "credentials"):
        said = {word: "pg_db_words", "database": warehouse["database"]}
        assert (await on_database(sql(WHERE, **said)))["rows"][0]["name"] == warehouse["database"]


async def test_a_database_without_a_host_is_on_the_workers_server(
    on_database: OnDatabase, warehouse: Warehouse
) -> None:
    """With the worker's login, or the one that is named."""
    name = warehouse["database"]
    assert (await on_database(sql(WHERE, database=name)))["rows"][0]["name"] == name
    login = {"auth": {"type": "basic", "user": warehouse["user"], "password": warehouse["password"]}}
    assert (await on_database(sql(WHERE, **login, database=name)))["rows"][0]["login"] == warehouse["user"]


async def test_the_workers_login_is_used_for_no_other_host(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """A step that names a host needs a login, too."""
    outcome = await on_database(sql(WHERE, **{key: warehouse[key] for key in ("host", "port", "database")}))
    assert failed(outcome)["type"] == "postgres"


class PasswordServer:
    """A server that asks for the password in clear text, records it, and refuses the login."""

    def __init__(self) -> None:
        self.passwords: list[str] = []
        self.address: Warehouse = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask one client for its password."""
        while (await _message(reader))[:4] == TLS_REQUEST:
            writer.write(b"N")
        writer.write(b"R" + struct.pack("!ii", 8, 3))
        await reader.readexactly(1)
        self.passwords.append((await _message(reader))[:-1].decode())
        refusal = b"SFATAL\0C28P01\0Mno\0\0"
        writer.write(b"E" + struct.pack("!i", len(refusal) + 4) + refusal)


TLS_REQUEST = struct.pack("!i", 80877103)


async def _message(reader: asyncio.StreamReader) -> bytes:
    [length] = struct.unpack("!i", await reader.readexactly(4))
    return await reader.readexactly(length - 4)


@pytest.fixture
async def password_server() -> AsyncIterator[PasswordServer]:
    """Run such a server on this machine."""
    own = PasswordServer()
    async with listening(own.serve) as port:
        own.address = {"host": "127.0.0.1", "port": port}
        yield own


@pytest.mark.parametrize("variable", ["PGPASSWORD", "PGPASSFILE"])
async def test_the_workers_password_is_sent_to_no_other_server(
    on_database: OnDatabase,
    password_server: PasswordServer,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """From its DSN, its environment or a file."""
    file = tmp_path / "passfile"
    file.write_text("*:*:*:*:hush\n")
    file.chmod(0o600)
    monkeypatch.setenv(variable, {"PGPASSWORD": "hush", "PGPASSFILE": str(file)}[variable])
    host, port = password_server.address["host"], password_server.address["port"]
    said: dict[str, dict[str, Any]] = {
        "parts": {"host": host, "port": port, "user": "me"},
        "port": {"port": port},
        "dsn": {"dsn": f"postgresql://me@{host}:{port}/x"},
        "connection": {"connection": {"host": host, "port": str(port), "user": "me"}},
        "inputs": {"args": {"db_host": host, "db_port": port}},
        "passfile": {"dsn": f"postgresql://me@{host}:{port}/x?passfile={file}"},
        "credential": {"auth": {"type": "postgres", "dsn": f"postgresql://{host}:{port}/x"}},
    }
    for form, keys in said.items():
        outcome = await on_database(sql(WHERE, **keys))
        assert (form, failed(outcome)["sqlstate"], password_server.passwords) == (form, "28P01", [""])
        password_server.passwords.clear()


@pytest.mark.parametrize("text", ["postgresql://me:a%40b@{}/x", "postgresql://me@{}/x?password=a%40b"])
async def test_a_connection_string_has_its_own_password(
    on_database: OnDatabase, password_server: PasswordServer, text: str
) -> None:
    """In either place."""
    dsn = text.format("{host}:{port}".format(**password_server.address))
    await on_database(sql(WHERE, dsn=dsn))
    assert password_server.passwords == ["a@b"]


async def test_no_credential_is_sent_to_an_address_in_the_inputs(
    on_database: OnDatabase, password_server: PasswordServer
) -> None:
    """A step may have fetched the address, so it replaces the credential completely."""
    for form in (
        {"db_host": "{host}", "db_port": "{port}"},
        {"db_port": "{port}"},
        {"pg_host": "{host}", "pg_port": "{port}", "pg_user": "me"},
        {"dsn": "postgresql://me@{host}:{port}/x"},
    ):
        args = {key: text.format(**password_server.address) for key, text in form.items()}
        outcome = await on_database(sql(WHERE, auth="pg_local", args=args))
        assert (failed(outcome)["sqlstate"], password_server.passwords) == ("28P01", [""])
        outcome = await on_database(sql(WHERE, args=args, user="me", password="hush"))  # noqa: S106 - a test's
        assert (failed(outcome)["type"], outcome.retryable, password_server.passwords) == ("bad_value", False, [""])
        password_server.passwords.clear()


async def test_an_address_of_the_step_overrides_one_in_the_inputs(
    on_database: OnDatabase, password_server: PasswordServer, warehouse: Warehouse
) -> None:
    """Also if the inputs have a login for it."""
    args = {"db_host": password_server.address["host"], "db_port": password_server.address["port"], "db_password": "x"}
    assert (await on_database(sql(WHERE, **warehouse, args=args)))["rows"][0]["name"] == warehouse["database"]
    assert password_server.passwords == []


async def test_a_connection_string_replaces_a_whole_address(
    on_database: OnDatabase, empty_database: Database, warehouse: Warehouse
) -> None:
    """Parts beside the string override it."""
    said = {"auth": {"type": "postgres", **warehouse}, "dsn": empty_database.dsn}
    assert (await on_database(sql(WHERE, **said)))["rows"][0]["name"] == empty_database.name
    said["database"] = warehouse["database"]
    assert (await on_database(sql(WHERE, **said)))["rows"][0]["name"] == warehouse["database"]


async def test_empty_parts_of_an_address_are_ignored(on_database: OnDatabase, empty_database: Database) -> None:
    """They count as missing: templates often default to empty text."""
    empty: dict[str, Any] = dict.fromkeys(("db_host", "db_port", "db_user", "db_name", "db_schema", "dsn"), "")
    login = {"type": "basic", "user": urlsplit(empty_database.dsn).username}
    for said in (empty, {"args": empty}, {"connection": empty}, {"auth": empty | login}):
        result = await on_database(sql(WHERE, **said))
        assert (result["rows"][0]["name"], result["rows"][0]["schema"]) == (empty_database.name, "public")


async def test_an_empty_password_overrides_the_credential(
    on_database: OnDatabase, password_server: PasswordServer
) -> None:
    """It is explicit, so it wins."""
    await on_database(sql(WHERE, auth="pg_local", **password_server.address, password=""))
    assert password_server.passwords == [""]


async def test_several_schemas_are_a_search_path(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """In the given order."""
    said = {**warehouse, "schema": "public, stock"}
    result = await on_database(
        sql("select current_schemas(false)::text[] as path, (select count(*) from found)", **said)
    )
    assert result["rows"] == [{"path": ["public", "stock"], "count": 0}]


async def test_an_invalid_address_is_refused(on_database: OnDatabase) -> None:
    """A schema that is no name, without a retry; the SQL does not run on the worker's database instead."""
    said: list[dict[str, Any]] = [{"schema": schema} for schema in (["stock"], 7, {"name": "stock"}, "stock,", ",")]
    for keys in said:
        outcome = await on_database(sql("select 1 as a", **keys))
        assert (failed(outcome)["type"], outcome.retryable) == ("bad_value", False)
    for auth in ({"type": "snowflake", "user": "u", "password": "p"}, "token_only"):
        outcome = await on_database(sql("select 1 as a", auth=auth))
        assert "auth holds no address" in failed(outcome)["message"]
        assert not outcome.retryable


async def test_a_save_has_its_own_address(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """By the same keys as a step."""
    await on_database({"type": "noop", "save": {**warehouse, "schema": "stock", "table": "found", "data": {"a": 1}}})
    result = await on_database(sql("select a from stock.found", **warehouse))
    assert result["rows"] == [{"a": 1}]


async def test_an_error_has_its_sqlstate(on_database: OnDatabase) -> None:
    """For the log and for `retry_when`."""
    outcome = await on_database(sql("select 1/0"))
    assert (failed(outcome)["type"], failed(outcome)["sqlstate"]) == ("postgres", "22012")
    outcome = await on_database({"type": "postgres"})
    assert (failed(outcome)["type"], outcome.retryable) == ("bad_job", False)


async def test_a_save_writes_the_result_to_a_table(on_database: OnDatabase, rows_of: Callable[[str], Rows]) -> None:
    """Its templates read the result; the step's result is unchanged."""
    rows_of("create table found (id text primary key, temp numeric, raw jsonb)")
    save = {
        "storage": "postgres",
        "table": "public.found",
        "data": {"id": "{{ job.uuid }}:x", "temp": "{{ result.temp }}", "raw": "{{ this.data | tojson }}"},
    }
    assert await on_database({"type": "noop", "args": {"temp": 1.5}, "save": save}) == {"temp": 1.5}
    assert [(str(a), float(b), c) for a, b, c in rows_of("select * from found")] == [("42:x", 1.5, {"temp": 1.5})]


async def test_all_forms_of_a_save_do_the_same(on_database: OnDatabase, rows_of: Callable[[str], Rows]) -> None:
    """Each adds a row."""
    rows_of("create table t (a int)")
    forms: list[dict[str, Any]] = [
        {"storage": "postgres", "table": "t"},
        {"storage": {"type": "postgres", "table": "t"}},
        {"tool": "postgres", "table": "t", "auth": "pg_local"},
        {"table": "t"},
    ]
    for number, (form, word) in enumerate(product(forms, ("data", "args"))):
        await on_database({"type": "noop", "sink": {**form, word: {"a": number}}})
    assert rows_of("select a from t order by a") == [(number,) for number in range(8)]


async def test_an_upsert_overwrites_by_its_key(on_database: OnDatabase, rows_of: Callable[[str], Rows]) -> None:
    """Many rows at once; of two with one key the last counts; a missing column gets its default."""
    rows_of("create table t (id int primary key, \"Name\" text default 'none'); insert into t values (1, 'old')")
    data = [{"id": 1, "Name": "a"}, {"id": "1", "Name": "new'"}, {"id": 2}]
    save = {"type": "save", "table": "t", "mode": "upsert", "key": "id", "data": data}
    outcome = await on_database(save | {"data": data[1:]})
    assert outcome == {"saved": "postgres", "table": "t", "row_count": 2}
    assert rows_of("select * from t order by id") == [(1, "new'"), (2, "none")]


@pytest.mark.parametrize("keys", ["id", "at, id"])
async def test_an_upsert_keeps_columns_that_a_row_does_not_have(
    on_database: OnDatabase, rows_of: Callable[[str], Rows], keys: str
) -> None:
    """Whatever columns other rows have. A row with only the key is inserted or kept. All rows are saved or none."""
    rows_of(
        "create table t (id int unique, at int default 0, name text default 'none', mail text, primary key (at, id));"
        "insert into t values (1, 0, 'Ada', 'ada@x'), (2, 0, 'Grace', 'grace@x'), (3, 0, 'Edsger', 'edsger@x')"
    )
    rows: list[dict[str, Any]] = [{"id": 1, "name": "Ada L."}, {"id": 2, "mail": "g@y"}, {"id": 3}]
    rows += [{"mail": "new@y", "id": 4}, {"id": 5}]
    save = {"type": "save", "table": "t", "mode": "upsert", "key": keys, "data": [{**row, "at": 0} for row in rows]}
    assert (await on_database(save))["table"] == "t"
    stored: Rows = [(1, "Ada L.", "ada@x"), (2, "Grace", "g@y"), (3, "Edsger", "edsger@x")]
    stored += [(4, "none", "new@y"), (5, "none", None)]
    assert rows_of("select id, name, mail from t order by id") == stored
    wrong = [{"id": 1, "at": 0, "name": "lost"}, {"id": "no number", "at": 0, "mail": "x"}]
    failed(await on_database(save | {"data": wrong}))
    assert rows_of("select id, name, mail from t order by id") == stored


async def test_many_rows_are_saved(on_database: OnDatabase, rows_of: Callable[[str], Rows]) -> None:
    """In a few statements of one transaction."""
    rows_of("create table t (a int, b text)")
    data = [{"a": number, "b": "x"} for number in range(2_500)]
    outcome = await on_database({"type": "save", "table": "t", "data": data})
    assert outcome["row_count"] == 2_500
    assert rows_of("select count(*), max(a) from t") == [(2_500, 2_499)]


@pytest.mark.parametrize(
    "statement",
    ["insert into t values (:a, :b)", "insert into t values ({{ data.a }}, '{{ params.b }}-{{ result.c }}')"],
)
async def test_a_save_can_be_a_statement(
    on_database: OnDatabase, rows_of: Callable[[str], Rows], statement: str
) -> None:
    """With named parameters, or templates that read the data."""
    rows_of("create table t (a int, b text)")
    save = {"storage": "postgres", "statement": statement, "data": {"a": 1, "b": "x"}}
    await on_database({"type": "noop", "args": {"c": 3}, "save": save})
    assert rows_of("select a, left(b, 1) from t") == [(1, "x")]


INVALID: list[tuple[Any, str]] = [
    ({"table": "t; drop table t", "data": {"a": 1}}, "not a table name"),
    ({"table": "t", "data": "text"}, "a mapping of columns"),
    ({"table": "t", "mode": "upsert", "data": {"a": 1}}, "needs `key`"),
    ({"table": "t", "mode": "upsert", "key": "b", "data": {"a": 1}}, "'b' is not in the data"),
    ({"table": "t", "mode": "replace", "data": {"a": 1}}, "none of insert and upsert"),
    ({"storage": "duckdb", "data": {}}, "not supported"),
    ("text", "must be a mapping"),
]


async def test_an_invalid_save_is_refused(on_database: OnDatabase) -> None:
    """Without a retry, before anything runs. One without rows saves nothing."""
    for save, words in INVALID:
        outcome = await on_database({"type": "noop", "save": save})
        assert words in failed(outcome)["message"]
        assert not outcome.retryable
    assert await on_database({"type": "noop", "save": {"table": "t", "data": []}}) == {}


async def test_a_save_to_the_event_log_is_the_data(on_database: OnDatabase) -> None:
    """The result of a save step contains it."""
    action = {"type": "save", "storage": "event_log", "data": {"a": "{{ env.CITY }}"}}
    assert await on_database(action) == {"saved": "event_log", "data": {"a": "Oslo"}}


async def test_values_that_postgres_cuts_in_errors_show_no_part_of_a_secret(
    perform: Perform, shared: WorkerResources, empty_database: Database
) -> None:
    """The server shows 64 bytes of a refused value, the driver 40 characters of one that is no text."""
    key = "".join(map(chr, range(48, 123))) * 2
    environment = {**shared.environment, "NOETL_SECRET_LONG": key, "NOETL_SECRET_BYTES": f"{key}\udcff"}
    using = dataclasses.replace(shared, dsn=empty_database.dsn, environment=environment)
    command = "create table picky (word text check (length(word) < 9)); insert into picky values (:word)"
    for text in ("{{ secret.long }}", "Bearer {{ secret.long }}", "{{ secret.bytes }}"):
        action = {"type": "postgres", "command": command, "parameters": {"word": text}}
        message = failed(await perform(action, using=using))["message"]
        assert "[secret]..." in message
        assert not any(key[start : start + 3] in message for start in range(72))

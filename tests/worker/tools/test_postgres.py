"""The postgres tool and `save` on a real Postgres."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from noetl_broker.worker.tools.task import Lent
from tests.postgres import Database
from tests.worker.conftest import Perform, failed

Rows = list[tuple[Any, ...]]
OnDatabase = Callable[..., Awaitable[Any]]
Warehouse = dict[str, Any]


@pytest.fixture
def on_database(perform: Perform, lent: Lent, empty_database: Database) -> OnDatabase:
    """Run an action on a worker whose own database is this test's, with a credential that names it too."""
    parts = urlsplit(empty_database.dsn)
    credential = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
    credential |= {"database": empty_database.name, "type": "postgres"}
    words = {"host": "db_host", "port": "db_port", "user": "db_user", "password": "db_password", "database": "db_name"}
    renamed = {words.get(key, key): value for key, value in credential.items()}
    environment = {**lent.environment, "NOETL_CREDENTIAL_PG_LOCAL": json.dumps(credential)}
    environment |= {"NOETL_CREDENTIAL_PG_DB_WORDS": json.dumps(renamed)}
    environment |= {"NOETL_CREDENTIAL_TOKEN_ONLY": '{"token": "t"}'}
    own = dataclasses.replace(lent, dsn=empty_database.dsn, environment=environment)

    async def run(action: dict[str, Any], **more: Any) -> Any:
        return await perform(action, using=own, **more)

    return run


@pytest.fixture
def rows_of(empty_database: Database) -> Callable[[str], Rows]:
    """Ask the test's database."""

    def ask(statement: str) -> Rows:
        with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    return ask


def sql(text: str, **more: Any) -> dict[str, Any]:
    """Make a postgres action."""
    return {"type": "postgres", "command_b64": base64.b64encode(text.encode()).decode(), **more}


async def test_the_last_rows_are_the_answer(on_database: OnDatabase) -> None:
    """Each statement's own stand beside, under the names that playbooks use."""
    result = await on_database(sql("create table t (a int); insert into t values (1), (2); select a from t order by a"))
    assert (result["rows"], result["columns"], result["row_count"]) == ([{"a": 1}, {"a": 2}], ["a"], 2)
    assert result["command_1"] == {"status": "success", "row_count": 2, "message": "INSERT 0 2"}
    assert result["command_2"]["rows"] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("more", ["", "; insert into t values (2)", "; commit"])
async def test_two_columns_of_one_name_are_refused(
    on_database: OnDatabase, rows_of: Callable[[str], Rows], more: str
) -> None:
    """A result would hold one of them; the error names it and the remedy. Nothing of the transaction is left."""
    rows_of("create table t (id int); insert into t values (1)")
    outcome = await on_database(sql(f"delete from t; select a.id, b.id from t a join t b using (id){more}"))
    assert "2 columns of the name 'id'" in failed(outcome)["message"]
    assert "select a.id as a_id, b.id as b_id" in failed(outcome)["message"]
    assert not outcome.retryable
    assert rows_of("select id from t") == ([] if "commit" in more else [(1,)])


async def test_rows_that_nobody_wants_may_have_two_columns_of_one_name(on_database: OnDatabase) -> None:
    """Those before the last, and those of a save."""
    twins = "select setval('s', 1), setval('s', 2)"
    result = await on_database(sql(f"create sequence s; {twins}; select last_value as a from s"))
    assert result["rows"] == [{"a": 2}]
    failed(await on_database(sql(twins)))
    await on_database({"type": "save", "statement": twins, "data": {"b": 1}})


async def test_a_list_of_commands_runs_in_order(on_database: OnDatabase) -> None:
    """Each base64 of its own."""
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


async def test_a_left_template_in_a_command_is_finished(on_database: OnDatabase) -> None:
    """Also under base64."""
    assert (await on_database(sql("select '{{ job.uuid }}' as id")))["rows"] == [{"id": "42"}]


@pytest.mark.parametrize(
    "auth",
    ["pg_local", {"pg": {"type": "postgres", "key": "pg_local"}}, {"type": "postgres", "credential": "pg_local"}],
)
async def test_auth_names_a_credential(on_database: OnDatabase, lent: Lent, auth: Any) -> None:
    """In each of the forms that playbooks use."""
    del lent
    assert (await on_database(sql("select 1 as a", auth=auth)))["rows"] == [{"a": 1}]


async def test_an_address_may_stand_in_the_inputs(on_database: OnDatabase, empty_database: Database) -> None:
    """As `db_*` keys, with the port as text."""
    parts = urlsplit(empty_database.dsn)
    args = {"db_host": parts.hostname, "db_port": str(parts.port), "db_user": parts.username}
    args |= {"db_password": parts.password, "db_name": empty_database.name}
    result = await on_database(sql("select current_database() as name", args=args))
    assert result["rows"] == [{"name": empty_database.name}]


@pytest.fixture
def warehouse(empty_database: Database) -> Iterator[Warehouse]:
    """A second database beside the worker's own, with a login and a schema of its own."""
    name = f"{empty_database.name}_wh"
    with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
        connection.execute(f"create role \"{name}\" login password 'hush hush'".encode())
        connection.execute(f'create database "{name}" owner "{name}"'.encode())
    parts = urlsplit(empty_database.dsn)
    address = {"host": parts.hostname, "port": parts.port, "database": name, "user": name, "password": "hush hush"}
    with psycopg.connect(parts._replace(path=f"/{name}").geturl(), autocommit=True) as connection:
        connection.execute("create schema stock; create table stock.found (a int); grant all on schema stock to public")
        connection.execute("grant all on stock.found to public")
    yield address
    with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
        connection.execute(f'drop database "{name}" with (force)'.encode())
        connection.execute(f'drop role "{name}"'.encode())


WHERE = "select current_database()::text as name, current_user::text as login, current_schema()::text as schema"


async def test_sql_runs_where_the_step_says(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """The keys that the type defines are the address; the worker's own database is not asked."""
    result = await on_database(sql(WHERE, **warehouse | {"port": str(warehouse["port"])}, schema="stock"))
    assert result["rows"] == [{"name": warehouse["database"], "login": warehouse["user"], "schema": "stock"}]


@pytest.mark.parametrize("word", ["auth", "credential", "credentials"])
async def test_what_the_step_says_wins_over_its_credential(
    on_database: OnDatabase, warehouse: Warehouse, word: str
) -> None:
    """Whatever the credential calls its parts."""
    said = {word: "pg_db_words", "database": warehouse["database"]}
    assert (await on_database(sql(WHERE, **said)))["rows"][0]["name"] == warehouse["database"]


async def test_a_database_without_a_host_is_one_of_the_workers_server(
    on_database: OnDatabase, warehouse: Warehouse
) -> None:
    """As whoever the worker is there, or as the login that is named."""
    name = warehouse["database"]
    assert (await on_database(sql(WHERE, database=name)))["rows"][0]["name"] == name
    login = {"auth": {"type": "basic", "user": warehouse["user"], "password": warehouse["password"]}}
    assert (await on_database(sql(WHERE, **login, database=name)))["rows"][0]["login"] == warehouse["user"]


async def test_the_workers_own_login_goes_to_no_other_host(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """Who names a host names the login too."""
    outcome = await on_database(sql(WHERE, **{key: warehouse[key] for key in ("host", "port", "database")}))
    assert failed(outcome)["type"] == "postgres"


class Asker:
    """A server that asks for the password in clear text, keeps it, and lets nobody in."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.address: Warehouse = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask one client."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while (await _message(reader))[:4] == TLS_REQUEST:
                writer.write(b"N")
            writer.write(b"R" + struct.pack("!ii", 8, 3))
            await reader.readexactly(1)
            self.told.append((await _message(reader))[:-1].decode())
            refusal = b"SFATAL\0C28P01\0Mno\0\0"
            writer.write(b"E" + struct.pack("!i", len(refusal) + 4) + refusal)
        writer.close()


TLS_REQUEST = struct.pack("!i", 80877103)


async def _message(reader: asyncio.StreamReader) -> bytes:
    [length] = struct.unpack("!i", await reader.readexactly(4))
    return await reader.readexactly(length - 4)


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    """Run such a server on this machine."""
    own = Asker()
    server = await asyncio.start_server(own.serve, "127.0.0.1", 0)
    own.address = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}
    yield own
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("variable", ["PGPASSWORD", "PGPASSFILE"])
@pytest.mark.parametrize("form", ["parts", "port", "dsn", "connection", "inputs", "passfile", "credential"])
async def test_the_workers_own_password_goes_to_no_other_server(
    on_database: OnDatabase, asker: Asker, form: str, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wherever the worker has it: in its connection string, its environment or a file."""
    file = tmp_path / "passfile"
    file.write_text("*:*:*:*:hush\n")
    file.chmod(0o600)
    monkeypatch.setenv(variable, {"PGPASSWORD": "hush", "PGPASSFILE": str(file)}[variable])
    host, port = asker.address["host"], asker.address["port"]
    said: dict[str, dict[str, Any]] = {
        "parts": {"host": host, "port": port, "user": "me"},
        "port": {"port": port},
        "dsn": {"dsn": f"postgresql://me@{host}:{port}/x"},
        "connection": {"connection": {"host": host, "port": str(port), "user": "me"}},
        "inputs": {"args": {"db_host": host, "db_port": port}},
        "passfile": {"dsn": f"postgresql://me@{host}:{port}/x?passfile={file}"},
        "credential": {"auth": {"type": "postgres", "dsn": f"postgresql://{host}:{port}/x"}},
    }
    outcome = await on_database(sql(WHERE, **said[form]))
    assert (failed(outcome)["sqlstate"], asker.told) == ("28P01", [""])


@pytest.mark.parametrize("text", ["postgresql://me:a%40b@{}/x", "postgresql://me@{}/x?password=a%40b"])
async def test_a_connection_string_says_its_own_password(on_database: OnDatabase, asker: Asker, text: str) -> None:
    """In either place."""
    dsn = text.format("{host}:{port}".format(**asker.address))
    await on_database(sql(WHERE, dsn=dsn))
    assert asker.told == ["a@b"]


@pytest.mark.parametrize(
    "form",
    [
        {"db_host": "{host}", "db_port": "{port}"},
        {"db_port": "{port}"},
        {"pg_host": "{host}", "pg_port": "{port}", "pg_user": "me"},
        {"dsn": "postgresql://me@{host}:{port}/x"},
    ],
)
async def test_no_credential_goes_to_an_address_among_the_inputs(
    on_database: OnDatabase, asker: Asker, form: dict[str, str]
) -> None:
    """What a step fetched may choose their names: such an address takes the place of the credential, login and all."""
    args = {key: text.format(**asker.address) for key, text in form.items()}
    outcome = await on_database(sql(WHERE, auth="pg_local", args=args))
    assert (failed(outcome)["sqlstate"], asker.told) == ("28P01", [""])
    outcome = await on_database(sql(WHERE, args=args, user="me", password="hush"))  # noqa: S106 - a test's
    assert (failed(outcome)["type"], outcome.retryable, asker.told) == ("bad_value", False, [""])


async def test_an_address_of_the_step_is_over_one_among_the_inputs(
    on_database: OnDatabase, asker: Asker, warehouse: Warehouse
) -> None:
    """Also where they have a login for it."""
    args = {"db_host": asker.address["host"], "db_port": asker.address["port"], "db_password": "x"}
    assert (await on_database(sql(WHERE, **warehouse, args=args)))["rows"][0]["name"] == warehouse["database"]
    assert asker.told == []


async def test_a_connection_string_is_not_mixed_with_a_weaker_address(
    on_database: OnDatabase, empty_database: Database, warehouse: Warehouse
) -> None:
    """The string of the step is the whole address; parts that stand beside it win over it."""
    said = {"auth": {"type": "postgres", **warehouse}, "dsn": empty_database.dsn}
    assert (await on_database(sql(WHERE, **said)))["rows"][0]["name"] == empty_database.name
    said["database"] = warehouse["database"]
    assert (await on_database(sql(WHERE, **said)))["rows"][0]["name"] == warehouse["database"]


@pytest.mark.parametrize("where", ["action", "args", "connection", "auth"])
async def test_empty_text_says_nothing_of_an_address(
    on_database: OnDatabase, empty_database: Database, where: str
) -> None:
    """As what was not given: a default of nothing in the step's templates."""
    said: dict[str, Any] = dict.fromkeys(("db_host", "db_port", "db_user", "db_name", "db_schema", "dsn"), "")
    if where == "auth":
        said |= {"type": "basic", "user": urlsplit(empty_database.dsn).username}
    result = await on_database(sql(WHERE, **said if where == "action" else {where: said}))
    assert (result["rows"][0]["name"], result["rows"][0]["schema"]) == (empty_database.name, "public")


async def test_an_empty_password_is_one(on_database: OnDatabase, asker: Asker) -> None:
    """It is said, and wins over the credential's."""
    await on_database(sql(WHERE, auth="pg_local", **asker.address, password=""))
    assert asker.told == [""]


async def test_names_are_looked_for_in_several_schemas(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """In the order in which they stand."""
    said = {**warehouse, "schema": "public, stock"}
    result = await on_database(
        sql("select current_schemas(false)::text[] as path, (select count(*) from found)", **said)
    )
    assert result["rows"] == [{"path": ["public", "stock"], "count": 0}]


@pytest.mark.parametrize("schema", [["stock"], 7, {"name": "stock"}, "stock,", ","])
async def test_a_schema_that_is_no_name_is_refused(on_database: OnDatabase, schema: Any) -> None:
    """For good."""
    outcome = await on_database(sql("select 1 as a", schema=schema))
    assert (failed(outcome)["type"], outcome.retryable) == ("bad_value", False)


@pytest.mark.parametrize("auth", [{"type": "snowflake", "user": "u", "password": "p"}, "token_only"])
async def test_a_credential_that_is_none_for_postgres_is_refused(on_database: OnDatabase, auth: Any) -> None:
    """The step's SQL does not run on the worker's own database instead."""
    outcome = await on_database(sql("select 1 as a", auth=auth))
    assert "auth holds no address" in failed(outcome)["message"]
    assert not outcome.retryable


async def test_a_save_goes_where_it_says(on_database: OnDatabase, warehouse: Warehouse) -> None:
    """By the same keys as a step."""
    await on_database({"type": "noop", "save": {**warehouse, "schema": "stock", "table": "found", "data": {"a": 1}}})
    result = await on_database(sql("select a from stock.found", **warehouse))
    assert result["rows"] == [{"a": 1}]


async def test_an_error_carries_its_sqlstate(on_database: OnDatabase) -> None:
    """For the log and for `retry_when`."""
    outcome = await on_database(sql("select 1/0"))
    assert (failed(outcome)["type"], failed(outcome)["sqlstate"]) == ("postgres", "22012")
    outcome = await on_database({"type": "postgres"})
    assert (failed(outcome)["type"], outcome.retryable) == ("bad_job", False)


async def test_a_save_puts_the_result_into_a_table(on_database: OnDatabase, rows_of: Callable[[str], Rows]) -> None:
    """By templates that name the result; the step's result stays what it is."""
    rows_of("create table found (id text primary key, temp numeric, raw jsonb)")
    save = {
        "storage": "postgres",
        "table": "public.found",
        "data": {"id": "{{ job.uuid }}:x", "temp": "{{ result.temp }}", "raw": "{{ this.data | tojson }}"},
    }
    assert await on_database({"type": "noop", "args": {"temp": 1.5}, "save": save}) == {"temp": 1.5}
    assert [(str(a), float(b), c) for a, b, c in rows_of("select * from found")] == [("42:x", 1.5, {"temp": 1.5})]


@pytest.mark.parametrize(
    "form",
    [
        {"storage": "postgres", "table": "t"},
        {"storage": {"type": "postgres", "table": "t"}},
        {"tool": "postgres", "table": "t", "auth": "pg_local"},
        {"table": "t"},
    ],
)
@pytest.mark.parametrize("word", ["data", "args"])
async def test_forms_of_a_save(
    on_database: OnDatabase, rows_of: Callable[[str], Rows], form: dict[str, Any], word: str
) -> None:
    """All say the same."""
    rows_of("create table t (a int)")
    await on_database({"type": "noop", "sink": {**form, word: {"a": 1}}})
    assert rows_of("select a from t") == [(1,)]


async def test_an_upsert_overwrites_by_its_key(on_database: OnDatabase, rows_of: Callable[[str], Rows]) -> None:
    """Many rows at once; of two with one key the last counts; a column that is missing gets its default."""
    rows_of("create table t (id int primary key, \"Name\" text default 'none'); insert into t values (1, 'old')")
    data = [{"id": 1, "Name": "a"}, {"id": "1", "Name": "new'"}, {"id": 2}]
    save = {"type": "save", "table": "t", "mode": "upsert", "key": "id", "data": data}
    outcome = await on_database(save | {"data": data[1:]})
    assert outcome == {"saved": "postgres", "table": "t", "row_count": 2}
    assert rows_of("select * from t order by id") == [(1, "new'"), (2, "none")]


@pytest.mark.parametrize("keys", ["id", "at, id"])
async def test_an_upsert_leaves_alone_what_a_row_does_not_name(
    on_database: OnDatabase, rows_of: Callable[[str], Rows], keys: str
) -> None:
    """Whatever its neighbours name; a row of the key alone is there or comes to be; all or nothing is saved."""
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
async def test_a_save_by_statement(on_database: OnDatabase, rows_of: Callable[[str], Rows], statement: str) -> None:
    """With parameters by name, or with templates that see the data."""
    rows_of("create table t (a int, b text)")
    save = {"storage": "postgres", "statement": statement, "data": {"a": 1, "b": "x"}}
    await on_database({"type": "noop", "args": {"c": 3}, "save": save})
    assert rows_of("select a, left(b, 1) from t") == [(1, "x")]


@pytest.mark.parametrize(
    "save, words",
    [
        ({"table": "t; drop table t", "data": {"a": 1}}, "not a table name"),
        ({"table": "t", "data": []}, None),
        ({"table": "t", "data": "text"}, "a mapping of columns"),
        ({"table": "t", "mode": "upsert", "data": {"a": 1}}, "needs `key`"),
        ({"table": "t", "mode": "upsert", "key": "b", "data": {"a": 1}}, "'b' is not in the data"),
        ({"table": "t", "mode": "replace", "data": {"a": 1}}, "none of insert and upsert"),
        ({"storage": "duckdb", "data": {}}, "not supported"),
        ("text", "must be a mapping"),
    ],
)
async def test_a_save_that_makes_no_sense_is_refused(on_database: OnDatabase, save: Any, words: str | None) -> None:
    """For good, and before anything is run."""
    outcome = await on_database({"type": "noop", "save": save})
    if words is None:
        assert outcome == {}
    else:
        assert words in failed(outcome)["message"]
        assert not outcome.retryable


async def test_a_save_to_the_event_log_is_the_data(on_database: OnDatabase) -> None:
    """A save step's result holds it."""
    action = {"type": "save", "storage": "event_log", "data": {"a": "{{ env.CITY }}"}}
    assert await on_database(action) == {"saved": "event_log", "data": {"a": "Oslo"}}


@pytest.mark.parametrize("text", ["{{ secret.long }}", "Bearer {{ secret.long }}", "{{ secret.bytes }}"])
async def test_what_postgres_or_its_driver_cuts_shows_no_start_of_a_secret(
    perform: Perform, lent: Lent, empty_database: Database, text: str
) -> None:
    """The server tells 64 bytes of a value that a table refuses, the driver 40 characters of one that is no text."""
    key = "".join(map(chr, range(48, 123))) * 2
    environment = {**lent.environment, "NOETL_SECRET_LONG": key, "NOETL_SECRET_BYTES": f"{key}\udcff"}
    using = dataclasses.replace(lent, dsn=empty_database.dsn, environment=environment)
    command = "create table picky (word text check (length(word) < 9)); insert into picky values (:word)"
    action = {"type": "postgres", "command": command, "parameters": {"word": text}}
    message = failed(await perform(action, using=using))["message"]
    assert "[secret]..." in message
    assert not any(key[start : start + 3] in message for start in range(72))

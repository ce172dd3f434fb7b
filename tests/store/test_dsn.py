"""Passwords in connection strings are found and never shown."""

from __future__ import annotations

import pytest

from noetl_broker.errors import BrokerError
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.dsn import INSTEAD, UNNAMED, Database, database_names, secret_parts, without_secrets

PIECES = ("hunter", "sesame")


@pytest.mark.parametrize(
    "dsn, parts",
    [
        ("postgresql://u:hunter2@h:1/db", ("hunter2",)),
        ("postgres://u:hunt%40er@h/db", ("hunt%40er", "hunt@er")),
        ("postgresql://h/db?user=u&password=hunter2&x=1", ("hunter2",)),
        ("host=h password='hunter 2' user=u", ("hunter 2",)),
        ("postgresql://u:hun@ter@h/db", ("hun@ter",)),
        ("postgresql://u@h/db", ()),
        ("postgresql://h/db", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_passwords_of_a_dsn_are_found(dsn: str | None, parts: tuple[str, ...]) -> None:
    """Both as written and decoded."""
    assert secret_parts(dsn) == parts


def test_a_message_without_the_password_is_shown() -> None:
    """The text of the driver is unchanged."""
    message = "Connect call failed ('127.0.0.1', 1)"
    assert without_secrets(message, "postgresql://u:p/w@127.0.0.1:1/db") == message
    assert without_secrets("invalid port 'p'", "postgresql://u:p/w@127.0.0.1:1/db") == INSTEAD


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://u:{}@127.0.0.1:1/db",
        "postgresql://u:{}@127.0.0.1:port/db",
        "postgresql://:{}@/db",
        "mysql://u:{}@h/db",
        "u:{}@h/db",
        "postgresql://127.0.0.1:1/db?password={}",
        "host=127.0.0.1 password={}",
    ],
)
async def test_no_part_of_a_password_of_a_broken_dsn_is_shown(form: str) -> None:
    """The driver may take it for host, port or database. Its error is not chained."""
    for between in ("/", ":", "@", "?", "#", "[", "%zz", "=", "&", " ", "%", "'"):
        with pytest.raises((BrokerError, OSError)) as caught:
            await connect(Database(dsn=form.format(between.join(PIECES))), name="test")
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert not any(piece in str(caught.value) for piece in PIECES)


@pytest.mark.parametrize(
    "dsn, name",
    [
        ("postgresql://u:hunter2@h:1/db?sslmode=require", "h:1/db"),
        ("postgresql://h,i/db", "h,i/db"),
        ("postgresql://u:hun/ter@h/db", "h/db"),
        ("postgresql:///db?host=/run/postgresql", "/db"),
        ("postgresql://u:hunter?2@h/db", UNNAMED),
        ("postgresql://h/db?password=sesame@h", UNNAMED),
        ("postgresql://h/sesame?password=sesame", UNNAMED),
        ("host=h password=hunter2", UNNAMED),
        (None, UNNAMED),
    ],
)
def test_a_database_is_named_by_host_port_and_name(dsn: str | None, name: str) -> None:
    """A part that may belong to a password is left out."""
    assert database_names([Database(dsn=dsn)]) == (name,)


def test_without_a_dsn_the_pg_variables_name_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver reads the same variables."""
    monkeypatch.setenv("PGHOST", "h")
    monkeypatch.setenv("PGDATABASE", "db")
    assert database_names([Database()]) == ("h/db",)


def test_two_databases_have_different_names() -> None:
    """The same DSN twice, or two without a database, also get two names."""
    databases = [Database(dsn=dsn) for dsn in ("postgresql://h/db", "postgresql://h/db", None, None)]
    assert database_names(databases) == ("h/db", "h/db #2", UNNAMED, f"{UNNAMED} #4")


def test_two_schemas_of_one_database_have_different_names() -> None:
    """The default schema is not named."""
    databases = [Database(dsn="postgresql://h/db", schema=schema) for schema in ("noetl", "orders")]
    assert database_names(databases) == ("h/db", "h/db/orders")

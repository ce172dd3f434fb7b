"""Passwords in connection strings: found, and not shown where one is broken."""

from __future__ import annotations

import pytest

from noetl_broker.errors import BrokerError
from noetl_broker.store.dsn import INSTEAD, UNNAMED, database_names, secret_parts, without_secrets
from noetl_broker.store.pool import connect

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
def test_passwords_are_found(dsn: str | None, parts: tuple[str, ...]) -> None:
    """As written, and decoded."""
    assert secret_parts(dsn) == parts


def test_a_message_without_a_piece_of_the_password_is_told() -> None:
    """As the driver words it."""
    message = "Connect call failed ('127.0.0.1', 1)"
    assert without_secrets(message, "postgresql://u:p/w@127.0.0.1:1/db") == message
    assert without_secrets("invalid port 'p'", "postgresql://u:p/w@127.0.0.1:1/db") == INSTEAD


@pytest.mark.parametrize("between", ["/", ":", "@", "?", "#", "[", "%zz", "=", "&", " ", "%", "'"])
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
async def test_no_piece_of_a_password_is_told_of_a_broken_dsn(form: str, between: str) -> None:
    """Whatever the driver takes for host, port or database; nor is its own error chained to ours."""
    with pytest.raises((BrokerError, OSError)) as caught:
        await connect(form.format(between.join(PIECES)), name="test")
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
def test_a_database_is_named_by_its_place(dsn: str | None, name: str) -> None:
    """What may be a piece of a password names nothing."""
    assert database_names([dsn]) == (name,)


def test_without_a_dsn_the_usual_variables_name_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are where the driver looks then."""
    monkeypatch.setenv("PGHOST", "h")
    monkeypatch.setenv("PGDATABASE", "db")
    assert database_names([None]) == ("h/db",)


def test_two_databases_never_have_one_name() -> None:
    """The same one twice, or two whose DSN names none."""
    assert database_names(["postgresql://h/db", "postgresql://h/db", None, None]) == (
        "h/db", "h/db #2", UNNAMED, f"{UNNAMED} #4",
    )  # fmt: skip

"""Servers on copied data."""

from __future__ import annotations

import psycopg
import pytest

from tests import copied_data


def test_each_server_has_its_own_data_and_password() -> None:
    """As one that the real `initdb` has made."""
    with copied_data.start(settings={"fsync": "off"}) as one, copied_data.start(settings={"fsync": "off"}) as other:
        with psycopg.connect(one.dsn(), autocommit=True) as connection:
            connection.execute("create table own()")
        with psycopg.connect(other.dsn()) as connection:
            assert connection.execute("select to_regclass('own') is null").fetchone() == (True,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(other.dsn().replace(other.password, one.password))

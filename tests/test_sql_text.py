"""The end of a statement, and named parameters."""

from __future__ import annotations

import pytest

from noetl_broker.sql_text import (
    copies_with_client,
    lasts_until_disconnect,
    needs_no_transaction,
    numbered,
    quoted_name,
    quoted_table,
    split_statements,
)


@pytest.mark.parametrize(
    "text, statements",
    [
        ("", []),
        (" ; -- nothing\n; /* or ; this */", []),
        ("select 1", ["select 1"]),
        ("select 1; select 2;", ["select 1", "select 2"]),
        ("select ';'; select \"a;b\"", ["select ';'", 'select "a;b"']),
        ("select 'it''s; fine'; x", ["select 'it''s; fine'", "x"]),
        (r"select E'\';'; x", [r"select E'\';'", "x"]),
        (r"select '\'; x", [r"select '\'", "x"]),
        ("select $$a;b$$; x", ["select $$a;b$$", "x"]),
        ("do $f$ begin; $$;$$ end $f$; x", ["do $f$ begin; $$;$$ end $f$", "x"]),
        ("select a$b; select $1", ["select a$b", "select $1"]),
        ("select 1 -- one;\n; x", ["select 1 -- one;", "x"]),
        ("select /* a; /* b; */ c; */ 1; x", ["select /* a; /* b; */ c; */ 1", "x"]),
        ("create rule r as on insert to t do (select 1; select 2); x",
         ["create rule r as on insert to t do (select 1; select 2)", "x"]),
        ("create function f() returns int begin atomic select case when true then 1 end; select 2; end; x",
         ["create function f() returns int begin atomic select case when true then 1 end; select 2; end", "x"]),
        ("select 'open; ", ["select 'open;"]),
    ],
)  # fmt: skip
def test_statements_are_split_at_semicolons(text: str, statements: list[str]) -> None:
    """Not at those in strings, names, comments, brackets and function bodies."""
    assert split_statements(text) == statements


@pytest.mark.parametrize(
    "statement, alone",
    [
        ("vacuum t", True),
        ("-- first\nCREATE DATABASE x", True),
        ("create unique index concurrently i on t (a)", True),
        ("drop index concurrently i", True),
        ("reindex table\nconcurrently t", True),
        ("reindex (verbose, concurrently) table t", True),
        ("reindex (verbose) schema s", True),
        ("alter table t detach partition p concurrently", True),
        ("refresh materialized view concurrently v", False),
        ("reindex table t", False),
        ("alter table t detach partition p", False),
        ("call p()", True),
        ("begin", True),
        ("create table database (a int)", False),
        ("insert into t values ('vacuum')", False),
    ],
)
def test_statements_that_refuse_a_transaction_are_known(statement: str, alone: bool) -> None:
    """And those that begin or end one."""
    assert needs_no_transaction(statement) is alone


@pytest.mark.parametrize(
    "statement",
    [
        "select pg_create_logical_replication_slot('s', 'test_decoding', true)",
        "SELECT PG_BACKUP_START('b', true)",
        "select pg_replication_origin_session_setup('o')",
    ],
)
def test_what_no_reset_removes_is_known(statement: str) -> None:
    """In any case of letters."""
    assert lasts_until_disconnect(statement)


@pytest.mark.parametrize(
    "statement, with_client",
    [
        ("COPY t (a, b) FROM stdin with (format csv)", True),
        ("copy (select f(a) from t)\nto stdout", True),
        ("copy (select 1 from stdin) to 'rows.csv'", False),
        ("copy t from 'rows.csv'", False),
        ("insert into copy select 'copy t to stdout' from stdin", False),
    ],
)
def test_a_copy_from_or_to_the_client_is_known(statement: str, with_client: bool) -> None:
    """The client would have to send or receive the rows."""
    assert copies_with_client(statement) is with_client


@pytest.mark.parametrize(
    "statement, expected",
    [
        ("select :a, :b, :a", ("select $1, $2, $1", [1, 2])),
        ("select ':a', x::b, \":a\" -- :a", ("select ':a', x::b, \":a\" -- :a", [])),
        ("select :c, y[1:a], (:a)", ("select :c, y[1:a], ($1)", [1])),
    ],
)
def test_named_parameters_become_numbers(statement: str, expected: tuple[str, list[int]]) -> None:
    """Only names with a value, and none in a string, a cast or a slice."""
    assert numbered(statement, {"a": 1, "b": 2}) == expected


@pytest.mark.parametrize(
    "table, quoted",
    [("T", '"t"'), ("public.orders", '"public"."orders"'), ('"My Table"', '"My Table"'), ('s."A""B"', '"s"."A""B"')],
)
def test_a_table_name_is_quoted_part_by_part(table: str, quoted: str) -> None:
    """Unquoted parts are folded to lower case, quoted ones stay."""
    assert quoted_table(table) == quoted


@pytest.mark.parametrize("table", ["", "a b", "t; drop table t", "a.b.c", "a.", "t(x)", "'t'"])
def test_text_that_is_no_table_name_is_refused(table: str) -> None:
    """So that the statement contains only a name."""
    with pytest.raises(ValueError, match="is not a"):
        quoted_table(table)


def test_any_name_is_quoted() -> None:
    """A quote in it is doubled."""
    assert quoted_name('a"; drop') == '"a""; drop"'

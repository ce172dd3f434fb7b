"""Mutants come again from their seed, each can be compiled, and a place is found again in another version of a file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutation.mutants import Place, draw, find, places

PYTHON = '''
def due(row: "int | None", *, limit: int = 3) -> bool:
    """Not changed: 1 < 2 and True."""
    if row is None or not limit:
        raise ValueError(f"{1 + 1} is not {row and 2}")
    for one in [x for x in range(row) if x > 0]:
        if one + 1 == limit:
            break
        log.info("not changed")
        found.append("é" and one)
    return limit in found
'''
SQL = """
create or replace function noetl.f(a bigint) returns bigint language plpgsql as $$
begin
  -- not changed: where a = 1 and b is null
  perform pg_advisory_xact_lock(a, 6);
  select coalesce(x.a, greatest(1, 2)) into a
  from noetl.x x
  where x.a >= a and not exists (select from noetl.y y where y.a = 'a = 1' and y.b is null) and x.b < 3
  order by x.a desc
  limit 1
  for update of x skip locked;
  return a;
end
$$;
comment on function noetl.f is 'where a = 1';
"""


def changed(file: str, text: str) -> dict[str, Place]:
    """Return the possible mutants of a file as `before -> after`."""
    return {str(place.mutant).partition("] ")[2]: place for place in places(file, text)}


def test_a_seed_gives_the_same_mutants(tmp_path: Path) -> None:
    """7 of 10 in Python, none in a function that a later migration replaces."""
    for file, text in {"src/noetl_broker/a.py": PYTHON, "migrations/1.sql": SQL, "migrations/2.sql": SQL}.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
    drawn = draw(tmp_path, seed=7, count=10)
    assert drawn == draw(tmp_path, seed=7, count=10) != draw(tmp_path, seed=8, count=10)
    assert [mutant.file for mutant in drawn] == ["src/noetl_broker/a.py"] * 7 + ["migrations/2.sql"] * 3
    assert len({*drawn}) == 10


def test_each_change_of_python_compiles() -> None:
    """Types, messages, logs and documentation stay as they are."""
    found = changed("a.py", PYTHON)
    assert [*found] == [
        "3 -> 4",
        *("row is None or not limit -> False", "row is None or not limit -> True", "or -> and", "is -> is not"),
        "not -> (nothing)",
        *("x > 0 -> False", "x > 0 -> True", "> -> >=", "0 -> 1"),
        *("one + 1 == limit -> False", "one + 1 == limit -> True", "== -> !=", "+ -> -", "1 -> 2", "break -> pass"),
        *('found.append("é" and one) -> pass', "and -> or", "limit in found -> None", "in -> not in"),
    ]
    for place in found.values():
        text = place.changed(PYTHON)
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(PYTHON))
        assert text.count("not changed") == 1, place


def test_each_change_of_sql_is_of_its_function() -> None:
    """Texts, comments and documentation stay as they are."""
    found = changed("a.sql", SQL)
    assert {
        *("perform pg_advisory_xact_lock(a, 6); -> null;", "pg_advisory_xact_lock(a, 6) -> true"),
        *("coalesce(x.a, greatest(1, 2)) -> x.a", "greatest -> least", ">= -> >", "= -> <>", "not exists -> exists"),
        *("and x.b < 3 -> (nothing)", "is null -> is not null", "desc -> (nothing)", "1 -> 2", "< -> <="),
        *("for update of x skip locked -> (nothing)", "skip locked -> (nothing)"),
    } <= found.keys()
    assert not any("'a" in place.mutant.before for place in found.values() if len(place.mutant.before) < 9)
    assert {place.mutant.function for place in found.values()} == {"noetl.f"}
    for place in found.values():
        assert place.changed(SQL).count("not changed: where a = 1 and b is null") == 1


@pytest.mark.parametrize("file, text", [("a.py", PYTHON), ("a.sql", SQL)])
def test_a_place_is_found_in_another_version(file: str, text: str) -> None:
    """Lines above and another function change nothing; without its text it has no place."""
    other = f"\n\n{text}\n"
    for place in places(file, text):
        again = find(place.mutant, other)
        assert again is not None
        assert again.start == place.start + 2
        assert find(place.mutant, "") is None

"""JSON between Postgres and Python: values come back unchanged, stay text, or are refused when written."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noetl_broker.store.json_codec import dump_json, load_json, load_jsonb
from noetl_broker.template import number_of
from tests.postgres import Database
from tests.sessions import session

INFINITY = float("inf")
FINITE = st.floats(allow_nan=False, allow_infinity=False).map(number_of)
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(-(10**60), 10**60) | FINITE
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
# Around the limits of 64 bits, where the fast reader would make floats of integers.
EDGES = [0, 10**15, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**19, 10**20 - 1, 10**20, 10**400]


@given(VALUES)
def test_a_value_is_read_back_unchanged(value: Any) -> None:
    """Text, numbers and nesting, through our writer and reader."""
    assert load_json(dump_json(value)) == value


@given(VALUES, st.integers(0, 120))
def test_a_value_is_read_from_a_text_of_any_length(value: Any, pad: int) -> None:
    """Long texts are scanned differently from short ones."""
    assert load_json(dump_json([value, "x" * pad])) == [value, "x" * pad]


@pytest.mark.parametrize("number", ["1e400", "1E400", "-2.5e+400", "9" * 19, "9" * 20, "0." + "1" * 19])
@pytest.mark.parametrize("pad", [0, 100, 10_000])
def test_a_long_number_is_found_in_a_text_of_any_length(number: str, pad: int) -> None:
    """It is read as the standard library reads it, or as text if it would be infinity."""
    before, found, _ = load_json(f'["{"x1" * pad}", {number}, 3]')
    expected = json.loads(number)
    assert before == "x1" * pad
    assert (type(found), found) == ((str, number) if expected in {INFINITY, -INFINITY} else (type(expected), expected))


@pytest.mark.parametrize("number", ["9" * 19, "-" + "9" * 20, "0." + "1" * 19, str(10**400), "18446744073709551615"])
@pytest.mark.parametrize("pad", [0, 100, 10_000])
def test_jsonb_is_read_like_json(number: str, pad: int) -> None:
    """Text from jsonb has no exponents."""
    for text in (number, f'["{"x1" * pad}", {{"a": {number}}}, 3]', "[" * 300 + number + "]" * 300):
        assert load_jsonb(text) == load_json(text)
        assert type(load_jsonb(text)) is type(load_json(text))


async def test_jsonb_writes_no_exponents(database: Database) -> None:
    """The reader relies on this."""
    async with session(database) as own:
        for number in ("1e25", "1E400", "-2.5e+30", "1e-400", "123456789e15"):
            text = await own.fetchval("select $1::text::jsonb::text", number)
            assert "e" not in text.lower()
            assert await own.fetchval("select $1::text::jsonb", f'{{"n": {number}}}') == {"n": load_json(text)}


async def test_numbers_are_read_back_from_the_database(database: Database) -> None:
    """Past 64 bits an integer stays one. A whole float may come back as an integer of equal value."""
    integers = [*EDGES, *(-edge for edge in EDGES)]
    floats = [0.1, -0.0, 1.5e300, 5e-324, 1.7976931348623157e308, 123456789.123456789, 1e-7]
    async with session(database) as own:
        back = [await own.fetchval("select $1::jsonb", [number]) for number in integers]
        assert back == [[number] for number in integers]
        assert {type(number) for (number,) in back} == {int}
        assert [float(await own.fetchval("select $1::jsonb", number)) for number in floats] == floats


async def test_a_number_too_large_for_python_stays_exact_or_is_read_as_text(database: Database) -> None:
    """Postgres keeps 1e400. Python could not write infinity back, and refuses over 4,300 digits."""
    async with session(database) as own:
        assert await own.fetchval("select '1e400'::jsonb") == 10**400
        assert await own.fetchval("select '1e400'::json") == "1e400"
        assert await own.fetchval("select '-2.5e400'::json") == "-2.5e400"
        assert await own.fetchval("select ('1e400'::jsonb::text || '.5')::jsonb") == f"{10**400}.5"
        back = await own.fetchval("select jsonb_build_object('n', rpad('1', 5001, '0')::numeric)")
    assert back == {"n": "1" + "0" * 5000}


async def test_a_value_nested_too_deep_for_python_is_read_as_text(database: Database) -> None:
    """Postgres takes 3,000 levels; Python cannot read or write as many."""
    async with session(database) as own:
        for (opening, closing), depth, number in itertools.product(
            (("[", "]"), ('{"a":', "}")), (201, 1024, 3000), ("1", "1" * 30)
        ):
            text = opening * depth + number + closing * depth
            back = await own.fetchval("select $1::text::json", text)
            assert back == text
            assert await own.fetchval("select $1::jsonb", back) == back


async def test_a_value_that_was_read_can_be_written_inside_another(database: Database) -> None:
    """A value of 200 levels is written inside another one of 200."""
    async with session(database) as own:
        for number in (1, 10**30):
            value = json.loads("[" * 200 + str(number) + "]" * 200)
            assert load_json(dump_json(value)) == value
            for _ in range(200):
                value = {"a": value}
            assert await own.fetchval("select jsonb_typeof($1::jsonb)", value) == "object"


def test_writing_refuses_a_value_that_nests_too_deep() -> None:
    """The error is one sentence, not a recursion error."""
    value: Any = 1
    for _ in range(401):
        value = [value]
    with pytest.raises(ValueError, match="more than 400 levels"):
        dump_json(value)


def test_a_wide_value_is_not_deep() -> None:
    """A thousand lists in a list have two levels."""
    assert load_json("[" + ",".join(["[]"] * 1000) + "]") == [[]] * 1000


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\\\x00", "\\\\\x00", "\ud800", "x\udfff"])
@pytest.mark.parametrize("place", ["value", "key", "beside a long number"])
def test_writing_refuses_text_that_jsonb_cannot_hold(text: str, place: str) -> None:
    """NUL and half a surrogate pair would fail the whole batch."""
    value = {"value": {"a": text}, "key": {text: 1}, "beside a long number": [2**70, text]}[place]
    with pytest.raises(ValueError, match=r"NUL|surrogate"):
        dump_json(value)


async def test_text_that_looks_like_an_escape_is_written_unchanged(database: Database) -> None:
    """A backslash, a u and digits are not a NUL."""
    texts = ["\\u0000", "\\\\u0000", "\\\\\\u0000", "u0000", "\\ud800"]
    async with session(database) as own:
        assert await own.fetchval("select $1::jsonb", texts) == texts


@pytest.mark.parametrize("value", [{1: "a"}, {"a": b"b"}, {"a": {1, 2}}, [object()], {(1,): 2}])
def test_writing_refuses_values_that_are_not_json(value: object) -> None:
    """Keys are text, and JSON has six types."""
    with pytest.raises(TypeError):
        dump_json(value)


def test_measuring_the_depth_takes_no_memory() -> None:
    """The text has many brackets and a long number."""
    text = json.dumps({"brackets": [[]] * 300, "number": 10**30, "string": "y" * 3_000_000})
    tracemalloc.start()
    try:
        assert load_json(text)["number"] == 10**30
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(text)

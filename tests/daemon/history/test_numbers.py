"""Numbers: the core decides on the same values that Postgres returns later."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from noetl_broker import simulate
from noetl_broker.history.story import read_events
from noetl_broker.store.json_codec import dump_json, load_json
from tests.brokers import complete_jobs, drain, execute, register, rows, start
from tests.postgres import Database
from tests.sessions import session

# Floats that jsonb returns as another integer, or nearly; and the limits of both types.
FLOATS = [
    *(0.0, -0.0, 1.0, -1.5, 1e15, 9007199254740993.0, 9999999999999998.0, 1e16, -1e16, 1.2345678901234568e16),
    *(1.2345678901234568e17, 1e22, 1e23, 1e76, 1e77, 2.0**255, 2.0**256, -(2.0**256), 1.2e77, 1e78, 1e100),
    *(1.5e300, 1e308, -1e308, 1.7976931348623157e308, 1e-7, 5e-324, 2.2250738585072014e-308, 1e-16, 123456.789),
]
INTEGERS = [2**53 + 1, 10**16, 10**19, -(10**20), 12345678901234567890, 10**76 + 1, 2**256 - 1, -(2**256) + 1]
NUMBERS = (
    st.sampled_from(FLOATS)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(1e15, 1e20)
    | st.sampled_from(INTEGERS)
    | st.integers(-(2**256) + 1, 2**256 - 1)
    | st.integers()
)
NAMES = st.text("abcz", min_size=1, max_size=3)
VALUES = st.recursive(
    NUMBERS | st.none() | st.booleans() | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
ALL = [*FLOATS, *INTEGERS]


def exactly(value: Any) -> Any:
    """Give a value in a form that distinguishes 1 from 1.0 and 0.0 from -0.0, in any order of keys."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exactly(item) for item in value]
    return type(value).__name__, math.copysign(1, value) if value == 0 else 0, value


async def stored(database: Database, value: Any) -> Any:
    """Give a value as jsonb returns it."""
    async with session(database) as own:
        return await own.fetchval("select $1::jsonb", value)


def emitted(value: Any) -> list[Any]:
    """Give a value as it leaves turns: from the document, a template, the payload, a result, an end."""
    args = {"constant": value, "made": "{{ workload.text | from_json }}"}
    args |= {"sent": "{{ workload.sent }}", "given": "{{ workload.given }}"}
    body = {
        "workload": {"given": value},
        "workflow": [
            {"step": "start", "next": "a"},
            {"step": "a", "type": "python", "code": "result = 1", "args": args, "next": "b"},
            {"step": "b", "type": "python", "code": "result = 1", "args": {"answered": "{{ a.n }}"}, "next": "end"},
            {"step": "end", "result": {"n": "{{ a.n }}", "m": [value, "{{ workload.text | from_json }}"]}},
        ],
    }
    text = dump_json({"apiVersion": "noetl.io/v1", "kind": "Playbook", "metadata": {"name": "s", "path": "s"}, **body})
    story = simulate(text, {"a": {"n": value}, "b": None}, payload={"sent": value, "text": json.dumps(value)})
    assert story.status == "COMPLETED", story.error
    first, second = story.jobs
    assert second.args is not None
    values = [*first.args.values(), *second.args.values(), story.result["n"], *story.result["m"]]
    return [*values, story.workload["given"], story.workload["sent"]]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
@example(value=ALL)
async def test_values_of_a_turn_and_of_all_columns_are_those_of_jsonb(database: Database, value: Any) -> None:
    """With the same type and sign of zero, so that a replay decides on the same values.

    The action of a job is text, the state is json; a story has what came back.
    """
    written = dump_json(value)
    async with session(database) as own:
        back = await own.fetchval("select $1::jsonb", value)
        again = await own.fetchrow("select $1::text::json, $2::jsonb", written, back)
    [event] = read_events(f"> action_completed a {json.dumps(value)}")
    found = [*emitted(value), *(again or ()), load_json(written), event.result]
    assert [exactly(one) for one in found] == [exactly(back)] * 14


async def test_numbers_of_other_programs_are_read_as_jsonb_returns_them(database: Database) -> None:
    """Numerics with more digits than a float has, exponents, a signed zero; in a short text and in a long one."""
    numbers = "12345678901234567.25, 123456789012345678.5, -98765432109876543.0, 1.5e3, 1.50e1, 2E+20, -0, -0.0"
    async with session(database) as own:
        for pad in (0, 300):
            document = f'{{"pad": "{"x" * pad}", "n": [{numbers}]}}'
            read = await own.fetchval("select $1::text::jsonb", document)
            assert exactly(await own.fetchval("select $1::text::json", document)) == exactly(read)
            assert exactly(await own.fetchval("select $1::jsonb", read)) == exactly(read)


async def test_a_long_integer_of_another_program_stays_exact(database: Database) -> None:
    """20 to 77 digits and more: only what a float wrote is read as a float."""
    numbers = [10**19 + 1, int("9" * 77), 10**99 + 7, -(3**200), 10**400]
    assert exactly(await stored(database, numbers)) == exactly(numbers)
    assert exactly(await stored(database, [10**308, -(10**100)])) == exactly([1e308, -1e100])


async def test_a_number_that_json_cannot_hold_is_an_error(database: Database) -> None:
    """Infinity and NaN are refused by name. There is no dead letter, and no value replaces them."""
    for number, (template, reason) in enumerate(
        [
            ("{{ 1e308 * 10 }}", "inf is not a number that JSON can hold"),
            ("{{ a.n * 10 }}", "inf is not a number that JSON can hold"),
            ("{{ 'nan' | float }}", "nan is not a number that JSON can hold"),
            ("{{ '[1e400]' | from_json }}", "inf is not a number that JSON can hold"),
            ("{{ 2 * a.long }}", "it computes an integer of more than 256 bits"),
        ]
    ):
        await execute(database, "delete from noetl.execution")
        body = f"""
        workflow:
        - {{step: start, next: a}}
        - {{step: a, type: python, code: x, next: b}}
        - {{step: b, type: python, code: x, args: {{v: "{template}"}}}}
        """
        await register(database, body, path=f"p{number}")
        await start(database, f"p{number}")
        await drain(database)
        await complete_jobs(database, {"n": 1e308, "long": 2**256 - 1})
        await drain(database)
        [(status, error)] = await rows(database, "select status, error from noetl.execution")
        assert (status, error["message"]) == ("FAILED", reason)
        assert await rows(database, "select reason from noetl.dead_letter") == []

"""Forms of approvals are checked in SQL as in Python."""

from __future__ import annotations

import json
import random
from typing import Any

from noetl_broker.broker.model.values import as_stored
from noetl_broker.playbook.approval import complete_form, schema_of_form
from noetl_broker.playbook.value_schema import faults_of
from tests.brokers import rows, value
from tests.playbook.test_value_schema import ORDER, random_schema, random_value
from tests.postgres import Database

CHECK = """
select noetl.faults_of_value(p.schema::jsonb, p.value::jsonb)
from unnest($1::text[], $2::text[]) with ordinality p (schema, value, ordinal)
order by p.ordinal
"""
FORM = {
    "discount": {"type": "number", "minimum": 0, "maximum": 30, "default": 0},
    "reason": {"enum": ["gift", "error"], "required": True},
    "address": {"type": "object", "required": ["city"]},
    "any": True,
}


def listed(schema: Any, given: Any) -> list[str]:
    """Return each fault as SQL lists it."""
    return [f"{path}: {message}" for path, message in faults_of(as_stored(schema), as_stored(given))]


async def checked(database: Database, pairs: list[tuple[Any, Any]]) -> list[list[str]]:
    """Return the faults that SQL finds in each pair of a schema and a value."""
    schemas, values = zip(*pairs, strict=True)
    found = await rows(database, CHECK, [*map(json.dumps, schemas)], [*map(json.dumps, values)])
    return [faults for (faults,) in found]


async def test_random_values_have_the_same_faults_in_sql_and_in_python(database: Database) -> None:
    """The same places, the same words, the same order: 1,000 pairs a seed."""
    for seed in range(4):
        dice = random.Random(seed)
        pairs = [(random_schema(dice, 3), random_value(dice, 3)) for _ in range(1_000)]
        for pair, found in zip(pairs, await checked(database, pairs), strict=True):
            assert found == listed(*pair), pair


async def test_each_fault_names_its_place(database: Database) -> None:
    """Keys and indices from the value, also keys that are no names."""
    order = {"total": -1, "items": [{"n": 1}, {"n": 1.5}], "a b": 1}
    assert await checked(database, [(ORDER, order)]) == [[
        "order_id: is missing",
        "['a b']: is not allowed",
        "items[1].n: is 1.5, it must be integer",
        "total: is -1, the least is 0",
    ]]  # fmt: skip


async def test_no_more_faults_than_a_person_reads_are_listed(database: Database) -> None:
    """20, and one that says so."""
    (found,) = await checked(database, [({"items": {"type": "string"}}, [*range(100)])])
    assert (len(found), found[19:]) == (
        21,
        ["[19]: is 19, it must be string", ": has more faults than the 20 that are listed"],
    )


HOSTILE: list[tuple[Any, Any]] = [
    ({"allOf": [{"items": {"enum": [*range(5_000)]}}] * 50}, [1] * 5_000),
    ({"not": {"items": {"anyOf": [*[{"maxLength": 0}] * 1_000, True]}}}, ["x"] * 10_000),
    ({"items": {"allOf": [{"allOf": [True] * 100}] * 100}}, [1] * 10_000),
]


async def test_a_hostile_check_ends(database: Database) -> None:
    """Past its steps a check is a fault: a person waits for it, and a connection is held."""
    for pair in HOSTILE:
        assert await checked(database, [pair]) == [
            [": cannot be checked in 20000 steps: make the schema simpler, or the value smaller"]
        ]


async def test_forms_are_the_same_in_sql_and_in_python(database: Database) -> None:
    """Their schema: a rejection needs no field. And their values: fields that were left out have a default, or null."""
    for approved in (True, False):
        found = await value(database, "select noetl.schema_of_form($1, $2)::text", FORM, approved)
        assert json.loads(found) == schema_of_form(FORM, approved=approved)
        assert await value(database, "select noetl.schema_of_form('{}', $1)::text", approved) is not None
    for filled in ({}, {"discount": 5, "comment": "fine", "any": None}):
        found = await value(database, "select noetl.complete_form($1, $2)::text", FORM, filled)
        assert json.loads(found) == complete_form(FORM, filled)


async def test_a_limit_is_allowed_itself(database: Database) -> None:
    """Of characters, items and keys."""
    schemas = [
        {"minLength": 2, "maxLength": 2},
        {"minItems": 2, "maxItems": 2},
        {"minProperties": 2, "maxProperties": 2},
    ]
    assert await checked(database, [*zip(schemas, ("ab", [1, 2], {"a": 1, "b": 2}), strict=True)]) == [[], [], []]

"""Schemas of values: which keywords there are, what breaks them, and that hostile ones end."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from noetl_broker.playbook.value_schema import MOST_FAULTS, SchemaFinding, check_schema, faults_of

ORDER = {
    "type": "object",
    "required": ["order_id", "items"],
    "additionalProperties": False,
    "properties": {
        "order_id": {"type": ["string", "integer"]},
        "total": {"type": "number", "minimum": 0},
        "items": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "properties": {"n": {"type": "integer"}}},
        },
    },
}


def lines(schema: Any, value: Any) -> list[str]:
    """Return each fault as `path: message`."""
    return [f"{path}: {message}" for path, message in faults_of(schema, value)]


def test_a_value_that_fits_has_no_faults() -> None:
    """Decimals without a fraction are integers."""
    assert faults_of(ORDER, {"order_id": "o-1", "total": 2.5, "items": [{"n": 1.0}]}) == []


def test_each_fault_names_its_place() -> None:
    """Keys and indices from the value, as templates read them."""
    assert lines(ORDER, {"total": -1, "items": [{"n": 1}, {"n": 1.5}], "totl": 1}) == [
        "order_id: is missing",
        "total: is -1, the least is 0",
        "items[1].n: is 1.5, it must be integer",
        "totl: is not allowed",
    ]


@pytest.mark.parametrize(
    "schema, value, expected",
    [
        ({"type": ["string", "null"]}, 1, ": is 1, it must be string or null"),
        ({"type": "number"}, True, ": is true, it must be number"),
        ({"enum": ["s", 1]}, True, ": is true, it must be one of 's', 1"),
        ({"enum": [*range(12)]}, -1, ": is -1, it must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …"),
        ({"const": [1]}, [True], ": is a list of 1, it must be a list of 1"),
        ({"maximum": 3}, 3.5, ": is 3.5, the most is 3"),
        ({"exclusiveMinimum": 3}, 3, ": is 3, it must be more than 3"),
        ({"exclusiveMaximum": 3}, 3, ": is 3, it must be less than 3"),
        ({"multipleOf": 0.1}, 0.35, ": is 0.35, it must be a multiple of 0.1"),
        ({"multipleOf": 3}, 10**4_000, ": is a number of many digits, it must be a multiple of 3"),
        ({"minLength": 2}, "ä", ": has 1 characters, the least is 2"),
        ({"maxLength": 1}, "ab", ": has 2 characters, the most is 1"),
        ({"maxItems": 1}, [1, 2], ": has 2 items, the most is 1"),
        ({"minProperties": 1}, {}, ": has 0 keys, the least is 1"),
        ({"uniqueItems": True}, [1, 2, 1.0], "[2]: is the same as item 0, each may be there once"),
        (
            {"prefixItems": [{"type": "string"}], "items": {"type": "number"}},
            ["a", "b"],
            "[1]: is 'b', it must be number",
        ),
        ({"additionalProperties": {"type": "string"}}, {"a b": 1}, "['a b']: is 1, it must be string"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, ": is 1, it fits none of the 2 schemas of `anyOf`"),
        (
            {"oneOf": [{"minimum": 1}, {"minimum": 2}]},
            3,
            ": is 3, it fits 2 of the 2 schemas of `oneOf`, it must fit one",
        ),
        ({"not": {"const": None}}, None, ": is null, it fits the schema under `not`"),
        (False, 1, ": is not allowed"),
    ],
)
def test_a_fault_says_what_is_there_and_what_must_be(schema: Any, value: Any, expected: str) -> None:
    """In one sentence that goes on from the path."""
    assert check_schema(schema) == []
    assert lines(schema, value) == [expected]


def test_decimals_are_exact() -> None:
    """With binary fractions, 0.3 is no multiple of 0.1 and 19.99 none of 0.01."""
    assert faults_of({"multipleOf": 0.1}, 0.3) == []
    assert faults_of({"multipleOf": 0.01}, 19.99) == []


def test_no_more_faults_than_a_person_reads_are_listed() -> None:
    """One more line says that there are more."""
    found = faults_of({"items": {"type": "string"}}, [*range(100)])
    assert len(found) == MOST_FAULTS + 1
    assert found[-1] == ("", "has more faults than the 20 that are listed")


@pytest.mark.parametrize(
    "schema, expected",
    [
        ({"pattern": "^a"}, (("pattern",), "the keyword `pattern` is not supported", "`minLength`")),
        (
            {"properties": {"a": {"$ref": "#"}}},
            (("properties", "a", "$ref"), "`$ref` is not supported", "in its place"),
        ),
        ({"requird": ["a"]}, (("requird",), "unknown keyword `requird`", "did you mean `required`?")),
        ({"amount": {"type": "number"}}, (("amount",), "unknown keyword `amount`", "properties: {amount: …}")),
        ({"type": "int"}, (("type",), "`int` is no type of JSON", "write integer")),
        ({"type": ["string", None]}, (("type", 1), "null is no type of JSON", '"null", in quotes')),
        ({"type": []}, (("type",), "`type` is an empty list", "write one of")),
        ({"required": True}, (("required",), "`required` is a boolean", "beside `properties`")),
        ({"required": [1]}, (("required", 0), "`required` lists a number", "beside `properties`")),
        ({"enum": []}, (("enum",), "`enum` is an empty list", "write a list of values")),
        ({"minimum": "0"}, (("minimum",), "`minimum` is a string", "write a number")),
        ({"multipleOf": 0}, (("multipleOf",), "`multipleOf` is 0", "greater than 0")),
        ({"minLength": -1}, (("minLength",), "`minLength` is -1", "at least 0")),
        ({"uniqueItems": 1}, (("uniqueItems",), "`uniqueItems` is 1", "true or false")),
        ({"properties": []}, (("properties",), "`properties` is an empty list", "a schema for each name")),
        ({"anyOf": {}}, (("anyOf",), "`anyOf` is a mapping", "a list of schemas")),
        ({"items": [{}]}, (("items",), "a list is no schema", "write a mapping")),
        ("string", ((), "a string is no schema", "{type: string}")),
    ],
)
def test_a_schema_is_refused_with_its_location_and_a_remedy(schema: Any, expected: SchemaFinding) -> None:
    """A keyword that is not known would check nothing."""
    [fault] = check_schema(schema)
    location, message, hint = expected[:3]
    assert (fault.location, message in fault.message, hint in fault.hint) == (location, True, True), fault


def test_annotations_are_accepted() -> None:
    """They check nothing."""
    schema = {"title": "A", "description": "b", "default": 1, "examples": [1], "format": "email", "$schema": "x"}
    assert check_schema(schema) == []
    assert faults_of(schema, 7) == []


@pytest.mark.parametrize("seed", range(40))
def test_random_values_break_what_they_break_for_jsonschema(seed: int) -> None:
    """The library and our checker agree, for 100 pairs a seed."""
    dice = random.Random(seed)
    for _ in range(100):
        schema, value = random_schema(dice, 3), random_value(dice, 3)
        assert check_schema(schema) == []
        expected = Draft202012Validator(schema).is_valid(value)
        assert (faults_of(schema, value) == []) is expected, (schema, value)


NAMES = ("a", "b", "c")


def random_value(dice: random.Random, depth: int) -> Any:
    """Return a small JSON value."""
    kind = dice.randrange(8 if depth else 6)
    if kind == 6:
        return [random_value(dice, depth - 1) for _ in range(dice.randrange(4))]
    if kind == 7:
        return {name: random_value(dice, depth - 1) for name in NAMES if dice.random() < 0.6}
    return dice.choice([None, True, False, 0, 1, 1.0, 2, 2.5, -3, 0.5, 10**20, "", "a", "ab", "ä€", "1"])


def random_schema(dice: random.Random, depth: int) -> Any:
    """Return a schema of supported keywords alone."""
    if dice.random() < 0.1:
        return dice.random() < 0.7

    def inner() -> Any:
        return random_schema(dice, depth - 1)

    types = ("null", "boolean", "integer", "number", "string", "array", "object")
    makers: dict[str, Callable[[], Any]] = {
        "type": lambda: dice.choice(types) if dice.random() < 0.6 else dice.sample(types, 3),
        "enum": lambda: [random_value(dice, 1) for _ in range(3)],
        "const": lambda: random_value(dice, 1),
        **{word: lambda: dice.choice([-1, 0, 1, 1.0, 2.5]) for word in ("minimum", "maximum")},
        **{word: lambda: dice.choice([0, 1, 2.5]) for word in ("exclusiveMinimum", "exclusiveMaximum")},
        "multipleOf": lambda: dice.choice([1, 2, 0.5, 2.5]),
        **{
            f"{end}{what}": lambda: dice.randrange(3)
            for end in ("min", "max")
            for what in ("Length", "Items", "Properties")
        },
        "uniqueItems": lambda: dice.random() < 0.8,
        "required": lambda: dice.sample(NAMES, dice.randrange(3)),
    }
    if depth:
        makers |= {
            "items": inner,
            "additionalProperties": inner,
            "not": inner,
            "properties": lambda: {name: inner() for name in NAMES if dice.random() < 0.6},
            **{
                word: lambda: [inner() for _ in range(dice.randrange(1, 3))]
                for word in ("prefixItems", "allOf", "anyOf", "oneOf")
            },
        }
    return {word: makers[word]() for word in dice.sample([*makers], dice.randrange(4))}

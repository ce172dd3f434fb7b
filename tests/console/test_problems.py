"""Errors as problem documents."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.console.test_list_pages import send

LIST = "/api/v1/executions"
MAX_BODY_BYTES, MOST_VALUES = 8 << 20, 250_000  # what the console reads


async def test_a_wrong_parameter_is_named(api: httpx.AsyncClient) -> None:
    """With its value and its place. A misspelled filter would filter nothing; the driver refuses some moments."""
    cases = [
        ({"limit": "5000"}, 400, "'5000'"),
        ({"stauts": "FAILED"}, 400, "did you mean status?"),
        ({"cursor": "x"}, 404, ""),
        ({"since": "0001-01-01T00:00+23:00"}, 400, ""),
    ]
    for params, status, words in cases:
        answer = await api.get(LIST, params=params)
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True)
        assert answer.headers["Content-Type"] == "application/problem+json"
    problem = (await api.get(LIST, params={"limit": "5000"})).json()
    assert (problem["code"], problem["errors"][0]["at"]) == ("NB400", "query.limit")


async def test_a_wrong_body_is_told_in_plain_words(api: httpx.AsyncClient) -> None:
    """Each value once."""
    wrong: dict[tuple[str, str], str] = {
        ("", ""): "body: it is missing: send a JSON object",
        ("", "[]"): "body: it must be a JSON object; it is []",
        ("", "{}"): "body.path: it is missing",
        ("", '{"path": 5}'): "body.path: it must be a text; it is 5",
        ("/5/pause", '{"raeson": 1}'): "body.raeson: there is no such field; did you mean `reason`?",
        ("/5/retry", '{"foo": 1}'): "body.foo: there is no such field; known are: version, or_from_start",
        ("/5/resume", '{"foo": 1}'): "body.foo: there is no such field",
        ("/bulk/cancel", '{"which": {"stats": 1}}'): (
            "body.which.stats: there is no such field; did you mean `status`?"
        ),
        ("/bulk/cancel", '{"which": {"since": "2x"}}'): (
            "body.which.since: '2x' is neither a span (90s, 30min, 2h30m, 7d, 2w) nor a moment (2026-01-31,"
            " 2026-01-31T08:00Z)"
        ),
    }
    json = {"Content-Type": "application/json"}
    answers = {each: await api.post(f"{LIST}{each[0]}", content=each[1], headers=json) for each in wrong}
    assert {each: answer.json()["detail"] for each, answer in answers.items()} == wrong


async def test_a_large_body_is_refused(api: httpx.AsyncClient) -> None:
    """Also one that does not say how long it is."""
    body = b" " * (MAX_BODY_BYTES + 1)

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    json = {"Content-Type": "application/json"}
    answers = [await api.post(LIST, content=content, headers=json) for content in (body, pieces())]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(413, "NB413")] * 2


@pytest.mark.parametrize(
    "value, encoding, status",
    [
        ("[" + "{}," * MOST_VALUES + "1]", "utf-8", 413),
        ('["∀",' + "{}," * MOST_VALUES + "1]", "utf-16", 413),  # half of its ∀ is the byte of a quotation mark
        ('["\\\\",' + "{}," * MOST_VALUES + "1]", "utf-8", 413),
        ('"' + '\\",[{' * MOST_VALUES + '"', "utf-8", 404),
    ],
)
async def test_a_body_of_many_values_is_refused(api: httpx.AsyncClient, value: str, encoding: str, status: int) -> None:
    """To read millions of values holds up all others for seconds. A long text is one value, whatever it has."""
    body = f'{{"path": "nothing", "payload": {{"x": {value}}}}}'.encode(encoding)
    answer = await api.post(LIST, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text


async def test_a_field_of_a_form_with_many_values_is_refused(api: httpx.AsyncClient) -> None:
    """As a body."""
    typed = {"name": "paid", "key": "17", "payload": "[" + "{}," * MOST_VALUES + "1]"}
    answer = await send(api, "/signals/send", "/signals/send", typed)
    assert (answer.status_code, "more than" in answer.text) == (400, True)


async def test_an_answer_lists_a_bounded_number_of_wrong_fields(api: httpx.AsyncClient) -> None:
    """A body may have any number of them; to name each of thousands takes seconds."""
    few, many = [
        (await api.post(LIST, json={"path": "examples/fetch", **{f"field{n}": n for n in range(count)}})).json()
        for count in (900, 2_000)
    ]
    assert (len(few["errors"]), [error["at"] for error in many["errors"]]) == (20, ["body"])

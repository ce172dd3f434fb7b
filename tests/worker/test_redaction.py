"""Secrets in the output of a worker: which are known, and in which forms they are found."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from noetl_broker.worker.redaction import REPLACEMENT, Redactor

AWKWARD = 'pa/ss "w\u00f6rd"+1'


@pytest.mark.parametrize(
    "form",
    [
        AWKWARD,
        AWKWARD.upper(),
        quote(AWKWARD, safe=""),
        quote_plus(AWKWARD),
        json.dumps(AWKWARD)[1:-1],
        json.dumps(AWKWARD, ensure_ascii=False)[1:-1],
        repr(AWKWARD)[1:-1],
        base64.b64encode(AWKWARD.encode()).decode(),
    ],
)
def test_a_secret_is_found_in_every_form(form: str) -> None:
    """Plain and in each encoding."""
    redactor = Redactor({"NOETL_SECRET_X": AWKWARD}, None)
    cleaned = redactor.clean(f"before {form} after")
    assert cleaned.startswith(f"before {REPLACEMENT}")
    assert cleaned.rstrip("=").endswith(" after")


@pytest.mark.parametrize(
    "name, value, hidden",
    [
        ("NOETL_SECRET_X", "hunter2", ["hunter2"]),
        ("NOETL_SECRET_X", "first-line\nsecond-line", ["first-line", "second-line"]),
        ("NOETL_CREDENTIAL_X", "just-a-token", ["just-a-token"]),
        ("NOETL_CREDENTIAL_X", "postgresql://u:hunter2@host/db", ["hunter2"]),
        ("NOETL_CREDENTIAL_X", '{"host": "db-host", "password": "hunter2"}', ["hunter2"]),
        ("NOETL_CREDENTIAL_X", '{"more": {"key": ["hunter2"]}}', ["hunter2"]),
        ("NOETL_CREDENTIAL_X", '{"user": "me", "password": "hunter2"}', [base64.b64encode(b"me:hunter2").decode()]),
        ("PGPASSWORD", "hunter2", ["hunter2"]),
        ("GITHUB_TOKEN", "hunter2", ["hunter2"]),
        ("DATABASE_URL", "postgresql://u:hunter2@host/db", ["hunter2"]),
        ("NOETL_BROKER_DSN", "postgresql://u:hunter2@host/db", ["hunter2"]),
        (
            "NOETL_SECRET_X",
            "hunter20\udcff",
            ["hunter20\udcff", "hunter20%FF", base64.b64encode(b"hunter20\xff").decode()],
        ),
        ("NOETL_CREDENTIAL_X", '{"password": "hunter\\ud800"}', ["hunter\ud800", "hunter\\ud800"]),
    ],
)
def test_secrets_of_the_environment_are_known(name: str, value: str, hidden: list[str]) -> None:
    """By the names of variables, and from the fields of credentials."""
    redactor = Redactor({name: value}, None)
    assert [redactor.clean(text) for text in hidden] == [REPLACEMENT] * len(hidden)


@pytest.mark.parametrize(
    "environment",
    [
        {"CITY": "some-town"},
        {"NOETL_CREDENTIAL_X": '{"host": "some-town", "user": "some-town", "port": 5432, "database": "some-town"}'},
        {"NOETL_SECRET_X": "some"},
        {},
    ],
)
def test_values_that_are_no_secrets_are_not_replaced(environment: dict[str, str]) -> None:
    """An address, a user, another variable, and secrets that are too short."""
    assert Redactor(environment, None).clean("some-town") == "some-town"


def test_a_json_value_is_redacted_at_all_levels() -> None:
    """Only its texts."""
    redactor = Redactor({"NOETL_SECRET_X": "hunter2"}, None)
    assert redactor.clean({"a": ["x hunter2", 1, None], "hunter2": {"b": "hunter2"}}) == {
        "a": [f"x {REPLACEMENT}", 1, None],
        "hunter2": {"b": REPLACEMENT},
    }


@pytest.mark.parametrize(
    "text, cleaned",
    [
        ("row contains (7, Bearer hunter2-hun..., x)", f"row contains (7, Bearer {REPLACEMENT}..., x)"),
        ("it is HUNTER2-HUNT… (45 characters)", f"it is {REPLACEMENT}… (45 characters)"),
        ("hunter2-hunter3... and hun...", f"{REPLACEMENT}... and {REPLACEMENT}..."),
        ("hunhunt...", f"hun{REPLACEMENT}..."),
        ("hu... unter2... hunter... 3 hunter2", f"hu... unter2... {REPLACEMENT}... 3 hunter2"),
        ("...", "..."),
    ],
)
def test_the_start_of_a_secret_before_dots_is_found(text: str, cleaned: str) -> None:
    """Another program has cut it. Elsewhere a start of a secret is ordinary text."""
    redactor = Redactor({"NOETL_SECRET_X": "hunter2-hunter3"}, None)
    assert redactor.clean({"a": [text]}, cut=True) == {"a": [cleaned]}
    assert redactor.clean(text) == text.replace("hunter2-hunter3", REPLACEMENT)


@pytest.mark.parametrize(
    "most, end", [(6, " after"), (7, "[secret] after"), (20, "[secret] after"), (99, "x [secret] after")]
)
def test_the_end_of_a_text_shows_no_end_of_a_secret(most: int, end: str) -> None:
    """A secret across the cut is replaced."""
    redactor = Redactor({"NOETL_SECRET_X": "hunter2-hunter3"}, None)
    assert redactor.end_of("x hunter2-hunter3 after", most) == end
    assert Redactor({}, None).end_of("hunter2", 3) == "er2"


def test_the_password_of_the_workers_database_is_known() -> None:
    """It is in the DSN."""
    assert Redactor({}, "postgresql://u:hunter2@host/db").clean("no hunter2") == f"no {REPLACEMENT}"


def test_a_secret_that_a_template_read_is_known() -> None:
    """Whatever the name of its variable."""
    redactor = Redactor({"CITY": "hunter2"}, None)
    assert redactor.learn("hunter2") == "hunter2"
    assert redactor.clean("hunter2") == REPLACEMENT

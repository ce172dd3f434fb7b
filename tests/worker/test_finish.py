"""Templates that the broker left: which strings are finished, and which are data."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.worker.finish import finisher_of

ACTION: dict[str, Any] = {"args": {"city": "Paris"}}
CONTEXT: dict[str, Any] = {"workload": {"base": "http://x"}, "results": {"fetch": {"id": 5}}}
JOB = {"uuid": "42", "execution_id": 42}
ENVIRONMENT = {"HOST": "h", "NOETL_BROKER_DSN": "dsn", "NOETL_CREDENTIAL_PG": '{"user": "me"}', "NOETL_SECRET_T": "t"}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{{ env.HOST }}/{{ city }}/{{ workload.base }}", "h/Paris/http://x"),
        ("{{ fetch.id + 0 * (env.HOST | length) }}", 5),
        ("{{ job.uuid }}", "42"),
        ("{{ secret.t }}{{ secrets.T }}", "tt"),
        ("{{ keychain.pg.user }}", "me"),
        ("{{ env.NOPE | default('none') }}", "none"),
        ("{{ secret.nope | default('none') }}", "none"),
        ("{{ env.NOETL_BROKER_DSN | default('hidden') }}", "hidden"),
        ("{{ city }} is data", "{{ city }} is data"),
        ("{{ not a template", "{{ not a template"),
        ("plain", "plain"),
    ],
)
def test_a_string_that_names_a_worker_s_word_is_finished(text: str, expected: Any) -> None:
    """And any other is left as it is: it is data that the broker rendered."""
    finisher = finisher_of(ACTION, CONTEXT, JOB, ENVIRONMENT)
    assert finisher.finish({"a": [text]}) == {"a": [expected]}


def test_a_job_may_say_which_strings_are_templates() -> None:
    """Then data that looks like a template with a secret in it stays data."""
    action = ACTION | {"unfinished": [["headers", "A"], ["list", 1]]}
    finisher = finisher_of(action, CONTEXT, JOB, ENVIRONMENT)
    value = {"headers": {"A": "{{ env.HOST }}", "B": "{{ secret.t }}"}, "list": ["{{ secret.t }}", "{{ job.uuid }}"]}
    assert finisher.finish(value) == {
        "headers": {"A": "h", "B": "{{ secret.t }}"},
        "list": ["{{ secret.t }}", "42"],
    }

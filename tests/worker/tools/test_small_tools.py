"""Secrets, sleep, noop, and jobs without a tool."""

from __future__ import annotations

from tests.worker.conftest import Perform, failed


async def test_a_secret_comes_from_the_environment(perform: Perform) -> None:
    """Under the name that playbooks read."""
    action = {"type": "secrets", "provider": "env", "secret_name": "api-token"}
    assert await perform(action) == {"secret_value": "s3cret"}


async def test_another_provider_is_refused_with_the_remedy(perform: Perform) -> None:
    """The variable to set instead is in the message."""
    outcome = await perform({"type": "secrets", "provider": "google", "secret_name": "openai-api-key"})
    assert "NOETL_SECRET_OPENAI_API_KEY" in failed(outcome)["message"]
    assert not outcome.retryable


async def test_several_names_are_refused_with_the_remedy(perform: Perform) -> None:
    """A step may read one secret."""
    outcome = await perform({"type": "secrets", "provider": "env", "names": ["api-token"]})
    assert "`names` is not supported" in failed(outcome)["message"]
    assert not outcome.retryable


async def test_noop_returns_its_inputs(perform: Perform) -> None:
    """It does nothing."""
    assert await perform({"type": "noop", "args": {"a": 1}}) == {"a": 1}


async def test_sleep_waits_for_its_seconds(perform: Perform) -> None:
    """It returns them."""
    assert await perform({"type": "sleep", "args": {"seconds": 0}}) == {"slept": 0}
    assert failed(await perform({"type": "sleep", "seconds": "soon"}))["type"] == "bad_value"


async def test_an_unknown_type_is_not_retryable(perform: Perform) -> None:
    """The message lists the types of the worker."""
    outcome = await perform({"type": "duckdb"})
    assert (failed(outcome)["type"], outcome.retryable) == ("unknown_type", False)
    assert "postgres" in failed(outcome)["message"]

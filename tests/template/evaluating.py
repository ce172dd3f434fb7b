"""Helpers of the template tests: a scope of plain values, and the value or error of one template."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from noetl_broker.template import Allowance, Moment, Scope, StepResult, TemplateError, compile_text


def scope_with(
    *,
    inputs: dict[str, Any] | None = None,
    steps: dict[str, Any] | None = None,
    words: dict[str, Any] | None = None,
    workload: dict[str, Any] | None = None,
    never_ran: tuple[str, ...] = (),
    allowance: Allowance | None = None,
) -> Scope:
    """Return a scope; a step's value may be its data or a `StepResult`."""
    results = {
        name: value if isinstance(value, StepResult) else StepResult(value) for name, value in (steps or {}).items()
    }
    return Scope(
        inputs=inputs or {},
        steps=results.get,
        words=words or {},
        workload=lambda: workload or {},
        is_step=(*results, *never_ran),
        moment=Moment(execution_id=7, turn=3, at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), allowance=allowance),
    )


def value_of(source: str, **names: Any) -> Any:
    """Return the value of a text."""
    return compile_text(source, "here").evaluate(scope_with(**names))


def error_message_of(source: str, **names: Any) -> str:
    """Return the error message of a text that does not compile or fails."""
    with pytest.raises(TemplateError) as caught:
        value_of(source, **names)
    assert caught.value.template == source
    assert caught.value.at == "here"
    return caught.value.message

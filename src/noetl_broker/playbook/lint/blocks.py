"""Checks what a step says about its block."""

from __future__ import annotations

from noetl_broker.playbook.compile import Compilation
from noetl_broker.playbook.model import Step


def refuse_unknown_answer(block: Compilation, step: Step) -> None:
    """Report a `return_step` that names no step of the block."""
    task = step if step.iteration is None else step.iteration.task
    answer = task.raw.get("return_step")
    steps = block.reading.steps
    if not isinstance(answer, str) or "{{" in answer or answer in steps:
        return
    location = (*block.reading.location[:-1], "return_step")
    hint = block.reading.report.did_you_mean(answer, [*steps]) or "name a step of the block"
    block.reading.report.error("unknown-step", location, f"the block has no step `{answer}`", hint)

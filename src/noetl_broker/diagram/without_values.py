"""Diagrams for viewers."""

from __future__ import annotations

from dataclasses import replace

from noetl_broker.diagram.model import DiagramNode, Picture


def without_values(picture: Picture) -> Picture:
    """The diagram without values and workers: names, numbers, times and statuses are left."""
    execution = picture.execution
    if execution is not None:
        step = execution.failed_step
        execution = replace(execution, error=None if step is None else {"step": step})
    return replace(
        picture,
        nodes=tuple(map(_without_values, picture.nodes)),
        edges=tuple(replace(edge, condition=None) for edge in picture.edges),
        execution=execution,
    )


def _without_values(node: DiagramNode) -> DiagramNode:
    progress = node.progress
    return replace(
        node, description=None, progress=None if progress is None else replace(progress, message=None, worker=None)
    )

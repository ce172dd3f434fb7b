"""Explains how the items of iterators ended: how many, and which failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.explain.error_text import error_text
from noetl_broker.explain.progress import count_text, failures_text
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.waiting import explain_progress
from noetl_broker.node_ids import visit_name

if TYPE_CHECKING:
    from noetl_broker.broker.model.values import JSON, Visit
    from noetl_broker.explain.facts import Facts

LONGEST_ERROR = 200  # characters


def explain_ended_items(visit: Visit, facts: Facts) -> list[Reason]:
    """How many items of an ended visit ended and failed, and why; nothing if it has no items."""
    progress = facts.iterators.get(visit)
    if progress is None:
        return []
    numbers: dict[str, JSON] = {name: progress[name] for name in ("total", "ended", "failed")}
    return [Reason("counts", f"its items: {count_text(progress)}", numbers), *explain_progress(visit, facts)]


def explain_failed_items(visit: Visit, facts: Facts) -> list[Reason]:
    """The first failed items of a visit, one by one."""
    failed = facts.failed_items.get(visit, ())
    if not failed:
        return []
    lines = [
        Reason(
            "failed_item",
            f"{visit_name(*visit, item.item_index)}: {_error_line(item.error)}",
            {"index": item.item_index},
        )
        for item in failed
    ]
    progress = facts.iterators.get(visit)
    rest = progress["failed"] - len(failed) if progress is not None else 0
    if rest > 0:
        lines.append(Reason("more", f"… and {rest:,} more"))
    return [Reason("failed_list", "the failed items, by index:", {"count": len(failed)}, tuple(lines))]


def explain_went_on(facts: Facts) -> list[Reason]:
    """The iterators of a completed execution some of whose items failed."""
    reasons = []
    for visit, progress in facts.iterators.items():
        if progress["failed"]:
            name = visit_name(*visit)
            says = f"{name}: {count_text(progress)}; noetl-broker explain {facts.execution_id} {name} lists them"
            numbers: dict[str, JSON] = {"failed": progress["failed"], "total": progress["total"]}
            types = Reason("failed_items", failures_text(progress), {"errors": [*progress["errors"]]})
            reasons.append(Reason("went_on", says, {"step": visit[0], "visit": visit[1], **numbers}, (types,)))
    return reasons


def _error_line(error: JSON) -> str:
    text = " ".join(error_text(error).split())
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"

"""What changed between two states of an execution, as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.explain.progress import progress_text
from noetl_broker.explain.status_text import is_item, took
from noetl_broker.node_ids import name_of_row, visit_name

if TYPE_CHECKING:
    from collections.abc import Iterator


class State(NamedTuple):
    """The state of a part as text. A line shows it when `mark` has changed."""

    text: str
    mark: str


# The state of each part, by kind, name and (a step may have many jobs) the id of a job.
States = dict[tuple[str, str, int], State]


def part_states(found: dict[str, Any]) -> States:
    """Give the state of the execution, of each step that has started, of iterators, and of open jobs of steps."""
    time_taken = took(found["started_at"], found["ended_at"])
    states = {
        ("execution", str(found["execution_id"]), 0): _joined(found["status"], time_taken and f"after {time_taken}")
    }
    for step in found["steps"]:
        if step["visits"]:
            visit = f"visit {step['visits']}" if step["visits"] > 1 else None
            ended = step["status"] != "RUNNING" and took(step["started_at"], step["ended_at"])
            states["step", str(step["step"]), 0] = _joined(step["status"], visit, ended and f"after {ended}")
    for one in found["iterators"]:
        # a line for each percent: an item may end every millisecond
        percent = str(100 * one["ended"] // one["total"])
        states["items of", visit_name(one["step"], one["visit"]), 0] = State(progress_text(one), percent)
    for job in found["jobs"]:
        if is_item(job):
            continue
        lease = f"lease {job['attempts']}" if job["attempts"] > 1 else None
        worker = f"by {job['worker_id']}" if job["status"] == "leased" else None
        states["job of", name_of_row(job), job["queue_id"]] = _joined(job["status"], worker, lease)
    return states


def changes(before: States, now: States) -> Iterator[str]:
    """Give a line for each part whose state has changed; a job that is gone shows in its step."""
    for part, state in now.items():
        if part not in before or before[part].mark != state.mark:
            what, name, _ = part
            yield f"{what} {name}  {state.text}"


def _joined(*words: object) -> State:
    text = "  ".join(str(word) for word in words if word)
    return State(text, text)

"""Explains what an execution undoes, what is draining, and what is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from noetl_broker.broker.state.state import COMPENSATING
from tests.explanations import NOW, execution_lines, facts_of, job, step_lines
from tests.forks import history_of
from tests.stories import dedented, playbook

LEFT = "left"
PAY = """
    workflow:
    - {step: start, next: [charge, slow]}
    - {step: charge, type: http, compensate: {type: http}, next: ship}
    - {step: slow, type: http, compensate: {type: http}, next: ship}
    - {step: ship, type: http}
    """
CANCELLED = """
    > execution_start
    > action_completed charge 1
    > execution_cancel
    """
UNDOING = f"""{CANCELLED}
    > action_failed slow {{"message": "cancelled", "type": "cancelled"}}
    """


def explained(story: str, **more: Any) -> str:
    """The explanation of an execution of PAY."""
    history = history_of(playbook(PAY), story)
    return execution_lines(history, facts_of(history, **more))


def row(step: str, status: str, message: str = "") -> dict[str, Any]:
    """A row of `noetl.undo` that is left."""
    return {"step": step, "visit": 1, "index": None, "status": status, "error": {"message": message}}


def test_a_visit_that_is_draining_is_explained() -> None:
    """With the worker that has its job."""
    leased = job(status="leased", worker="w7", attempts=1, lease_until=NOW, last_heartbeat=NOW)
    undo = {"counts": {"open": 1}, "left": [row("charge", "open")], "status": None}
    said = explained(CANCELLED, status=COMPENSATING, undo=undo, jobs={("slow", 1, None): leased}).splitlines()
    assert said[1] == "  slow is over, but draining: if it still succeeds, that is undone"
    assert said[2].startswith("    worker w7 ")
    assert said[-2:] == ["  undo: 1 left", "  it went through start, charge and slow"]


def test_a_late_success_is_explained() -> None:
    """It says what became of it: undone, not undone, or to be undone."""
    late = f"{CANCELLED}    > action_completed slow 2\n    "
    undone = f"{late}> action_completed slow!undo"
    given = ((late, COMPENSATING), (undone, COMPENSATING), (f"{late}> action_failed slow!undo {{}}", "FAILED"))
    said = "slow of execution 1 (story version 1, {}) succeeded late, in turn 4, after it was over; "
    assert [of_slow(story, status) for story, status in given] == [
        said.format(COMPENSATING) + "that is to be undone",
        said.format(COMPENSATING) + "that was undone in turn 5",
        said.format("FAILED") + "its undo failed in turn 5",
    ]


def of_slow(story: str, status: str) -> str:
    """The headline of the step `slow`."""
    return step_lines(history_of(playbook(PAY), story), "slow", status=status).splitlines()[0]


def test_the_undo_that_runs_is_explained() -> None:
    """By its job."""
    undo = {"counts": {"running": 1}, "left": [row("charge", "running")], "status": None}
    said = explained(UNDOING, status=COMPENSATING, undo=undo, jobs={("charge!undo", 1, None): job(type="http")})
    waits = "    the job of charge!undo has been waiting for a worker of type http for 4 min 0 s"
    assert said.splitlines()[1:3] == ["  it undoes charge", waits]


def test_the_end_says_what_failed_and_what_is_left() -> None:
    """The turn that failed the execution is named, not the last one; the remedy is `undo`."""
    story = """
        > execution_start
        > action_completed charge 1
        > action_completed slow 2
        > action_failed ship {"message": "no ship"}
        > action_failed slow!undo {"message": "gone"}
        """
    left = [row("slow", "failed", "gone"), row("charge", "open")]
    undo = {"counts": {"failed": 1, "open": 1}, "left": left, "status": LEFT}
    assert explained(story, undo=undo) == dedented("""
        execution 1 (story version 1) failed after 1 min 30 s, in step ship: no ship
          ship failed on action_failed (event 104, turn 4)
          undo: 1 failed, 1 left
          the undo of slow failed: gone
          not undone: charge
          noetl-broker undo 1 goes on with what is left
          it went through start, charge, slow and ship
    """)


def test_a_step_says_what_became_of_its_undo() -> None:
    """It was undone, or it is left."""
    story = """
        > execution_start
        > action_completed charge 1
        > action_completed slow 2
        > action_failed ship {"message": "no ship"}
        > action_completed slow!undo
        > action_failed charge!undo {"message": "gone"}
        """
    history = history_of(playbook(PAY), story)
    failed = {"counts": {"done": 1, "failed": 1}, "left": [row("charge", "failed", "gone")], "status": LEFT}
    assert "\n  it was undone in turn 5" in step_lines(history, "slow", undo=failed)
    assert step_lines(history, "charge", undo=failed).endswith(
        "\n  undo: 1 failed\n  the undo of charge failed: gone\n  noetl-broker undo 1 goes on with what is left"
    )
    assert "undone" not in step_lines(history, "ship", undo=failed)


def test_a_retry_of_what_was_undone_starts_anew() -> None:
    """And the explanation says so."""
    story = f"{UNDOING.replace('execution_cancel', 'execution_deadline')}\n> action_completed charge!undo"
    history = history_of(playbook(PAY, metadata="deadline: 60"), story)
    undo = {"counts": {"done": 1}, "left": [], "status": "undone"}
    said = execution_lines(replace(history), facts_of(history, undo=undo))
    assert said.endswith("noetl-broker retry 1 starts it again from the start, because what it did was undone")


def test_an_undo_after_the_end_is_explained() -> None:
    """While it runs, nothing is advised."""
    story = f"{UNDOING.replace('execution_cancel', 'execution_deadline')}\n> action_completed charge!undo"
    history = history_of(playbook(PAY, metadata="deadline: 60"), story)
    undo = {"counts": {"running": 1}, "left": [row("charge", "running")], "status": "undoing"}
    text = execution_lines(history, facts_of(history, undo=undo))
    assert "\n  it is undoing what it did\n  undoing charge\n" in text
    assert "noetl-broker" not in text


def test_an_undo_that_may_have_happened_has_its_remedy() -> None:
    """Nothing else is left, so nothing goes on by itself."""
    story = """
        > execution_start
        > action_completed charge 1
        > action_failed slow {"message": "no answer", "type": "timeout"}
        > action_completed charge!undo 1
        """
    undo = {"counts": {"unknown": 1, "done": 1}, "left": [row("slow", "unknown")], "status": LEFT}
    said = explained(story, undo=undo).splitlines()
    assert "  noetl-broker undo 1 --unknown undoes what may not have happened" in said

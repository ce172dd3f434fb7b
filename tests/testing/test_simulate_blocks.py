"""`simulate`: blocks, what starts when an execution has failed, and the undo of what its actions did."""

from __future__ import annotations

import pytest

from noetl_broker import JobFailed, SimulationFault, delayed, in_turn, simulate
from noetl_broker.resources import playbooks_folder
from tests.stories import dedented, document

EXAMPLES = playbooks_folder()
BLOCK = document("""
workflow:
- {step: start, next: pay}
- step: pay
  type: playbook
  args: {total: 5}
  workflow:
  - {step: start, next: charge}
  - {step: charge, type: http, url: "http://bank/{{ total }}"}
  next: charge
- {step: charge, type: http, url: "http://other"}
""")


def test_a_block_runs_with_the_answers_of_its_steps() -> None:
    """`pay.charge` is the step in the block, `charge` alone would be both."""
    story = simulate(BLOCK, {"pay.charge": {"id": 1}, "story:charge": {"id": 2}})
    assert story.result == {"id": 2}
    assert [(child.path, child.workload, child.names) for child in story.children] == [
        ("story#pay", {"total": 5}, ["charge"])
    ]
    assert simulate(BLOCK, {"charge": 3}).children[0].result == 3
    # An answer for the whole step replaces its block.
    assert simulate(BLOCK, {"pay": {"id": 1}, "story:charge": 2}).children == ()
    with pytest.raises(SimulationFault, match=r"answers\['pay.chrge'\]: there is no such step; did you mean"):
        simulate(BLOCK, {"pay.chrge": 1})


def test_a_failed_execution_starts_its_alarm() -> None:
    """If the simulation has it."""
    watched, load = EXAMPLES / "watched_import.yaml", {"load": JobFailed("no rows")}
    story = simulate(watched, load | {"tell": lambda job: job.args}, playbooks=[EXAMPLES / "alarm.yaml"])
    [alarm] = story.children
    assert story.status == "FAILED"
    assert alarm.result == {
        "team": "data",
        "text": "examples/watched_import failed in load: 2026-11-27 is missing: no rows",
    }
    assert simulate(watched, load).children == ()


CHILD = document(
    """
    workflow:
    - {step: start, next: reserve}
    - {step: reserve, type: http, url: u, compensate: {type: http, url: u, args: {id: "{{ result.id }}"}}}
    """,
    path="child",
)
PAY = document(
    """
    workflow:
    - {step: start, next: [charge, call]}
    - step: charge
      type: http
      url: u
      compensate: {type: http, url: u, args: {id: "{{ result.id }}"}, retry: 3}
      next: ship
    - {step: call, type: playbook, path: child, next: ship}
    - {step: ship, type: http, url: u}
    """,
    path="pay",
)


def test_undos_are_answered_by_their_name() -> None:
    """Also those of a child; the last success is undone first."""
    story = simulate(
        PAY,
        {
            "charge": {"id": 1},
            "reserve": {"id": 2},
            "ship": JobFailed("no"),
            "charge!undo": in_turn(JobFailed("busy"), None),
            "reserve!undo": None,
        },
        playbooks=[CHILD],
    )
    assert (story.status, story.error["message"]) == ("FAILED", "no")
    assert [(job.step, job.args) for job in story.jobs] == [
        ("charge", {}),
        ("ship", {}),
        ("charge!undo", {"id": 1}),
        ("charge!undo", {"id": 1}),
    ]
    assert [(child.status, [job.step for job in child.jobs]) for child in story.children] == [
        ("COMPLETED", ["reserve", "reserve!undo"]),
    ]


def test_what_is_draining_ends_before_the_undo() -> None:
    """A job that runs while another branch fails completes late, and is undone."""
    story = simulate(
        document(
            """
            workflow:
            - {step: start, next: [slow, bad]}
            - {step: slow, type: http, url: u, compensate: {type: http, url: u}}
            - {step: bad, type: http, url: u}
            """
        ),
        {"slow": delayed({"id": 1}, after="1h"), "bad": JobFailed("no"), "slow!undo": None},
    )
    assert story.text == dedented("""
        > execution_start
            event step_started slow
            event step_started bad
            job   slow
            job   bad
        > action_failed bad {"type": "failure", "message": "no"}
            event step_failed bad "no"
            event execution_compensating "no"
            dead  bad
            cancel all work
            drain slow
        > action_completed slow {"id": 1}  (late)
            event compensation_started slow
            job   slow!undo
            undo  slow
        > action_completed slow!undo
            event compensation_completed slow
            event execution_failed "no"
        """)


def test_an_undo_without_an_answer_is_a_fault() -> None:
    """Its name is in the message."""
    with pytest.raises(SimulationFault, match=r"step charge!undo \(type http\) of pay has no answer"):
        simulate(PAY, {"charge": {"id": 1}, "call": 1, "ship": JobFailed("no")})


def test_an_undo_by_a_playbook_is_tried_again_with_a_new_child() -> None:
    """After its delay."""
    undo = document("workflow: [{step: start, type: http, url: u}]", path="refund")
    pay = """
    workflow:
    - {step: start, next: charge}
    - step: charge
      type: http
      url: u
      compensate: {type: playbook, path: refund, retry: {max_attempts: 2, initial_delay: 1h, jitter: false}}
      next: ship
    - {step: ship, type: http, url: u}
    """
    answers = {"charge": 1, "ship": JobFailed("no"), "start": in_turn(JobFailed("busy"), None)}
    story = simulate(document(pay), answers, playbooks=[undo])
    assert [child.status for child in story.children] == ["FAILED", "COMPLETED"]
    assert "event compensation_completed charge" in story.text

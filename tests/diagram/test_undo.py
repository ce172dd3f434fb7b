"""Diagrams show what undoes a step, and how far its undo is."""

from __future__ import annotations

from noetl_broker.diagram.build import picture_of_playbook
from noetl_broker.diagram.labels import step_texts
from tests.paths import picture_of_story
from tests.stories import playbook

PAY = """
workflow:
- {step: start, next: charge}
- {step: charge, type: http, compensate: {type: playbook, path: refund}, next: send}
- step: send
  type: iterator
  collection: [1, 2]
  element: item
  task: {type: http, compensate: {type: http}}
  next: ship
- {step: ship, type: http}
"""


def test_a_step_says_what_undoes_it() -> None:
    """An iterator what undoes its items; other steps say nothing."""
    texts = {node.step: step_texts(node).traits for node in picture_of_playbook(playbook(PAY)).nodes}
    assert texts == {"start": "", "charge": "↶ playbook refund", "send": "↶ http", "ship": ""}


def test_an_execution_says_how_far_its_undos_are() -> None:
    """Beside the state of the step, which stays."""
    picture = picture_of_story(
        PAY,
        """
        > execution_start
        > action_completed charge 1
        > action_completed send[0] 1
        > action_completed send[1] 2
        > iterator_completed send [1, 2]
        > action_failed ship {"message": "no"}
        > action_completed send[1]!undo
        > action_failed send[0]!undo {"message": "gone"}
        """,
    )
    states = {node.step: step_texts(node).state for node in picture.nodes}
    assert states["send"].endswith("↶ undone, undo failed")
    assert "↶" not in states["charge"]

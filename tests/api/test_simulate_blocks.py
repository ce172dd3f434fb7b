"""`simulate`: blocks, and what starts when an execution has failed."""

from __future__ import annotations

import pytest

from noetl_broker import JobFailed, SimulationFault, simulate
from noetl_broker.resources import playbooks_folder

EXAMPLES = playbooks_folder()
HEAD = "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {name: story, path: story}\n"
ORDER = f"""{HEAD}
workflow:
- {{step: start, next: pay}}
- step: pay
  type: playbook
  args: {{total: 5}}
  workflow:
  - {{step: start, next: charge}}
  - {{step: charge, type: http, url: "http://bank/{{{{ total }}}}"}}
  next: charge
- {{step: charge, type: http, url: "http://other"}}
"""


def test_a_block_runs_with_the_answers_of_its_steps() -> None:
    """`pay.charge` is the step in the block, `charge` alone would be both."""
    story = simulate(ORDER, {"pay.charge": {"id": 1}, "story:charge": {"id": 2}})
    assert story.result == {"id": 2}
    assert [(child.path, child.workload, child.names) for child in story.children] == [
        ("story#pay", {"total": 5}, ["charge"])
    ]
    assert simulate(ORDER, {"charge": 3}).children[0].result == 3


def test_a_step_with_a_block_may_be_answered_as_a_whole() -> None:
    """Then its block does not run."""
    assert simulate(ORDER, {"pay": {"id": 1}, "story:charge": 2}).children == ()


def test_a_misspelled_step_of_a_block_is_refused() -> None:
    """With the name that is meant."""
    with pytest.raises(SimulationFault, match=r"answers\['pay.chrge'\]: there is no such step; did you mean"):
        simulate(ORDER, {"pay.chrge": 1})


def test_a_failed_execution_starts_its_alarm() -> None:
    """If the simulation has it."""
    watched, load = EXAMPLES / "watched_import.yaml", {"load": JobFailed("no rows")}
    story = simulate(watched, load | {"tell": lambda job: job.args}, playbooks=[EXAMPLES / "alarm.yaml"])
    [alarm] = story.children
    assert (story.status, alarm.result) == (
        "FAILED",
        {"team": "data", "text": "examples/watched_import failed in load: 2026-11-27 is missing: no rows"},
    )
    assert simulate(watched, load).children == ()

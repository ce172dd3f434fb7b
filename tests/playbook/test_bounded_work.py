"""Documents and values that need far more work than their size."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from noetl_broker.playbook import PlaybookRules
from noetl_broker.playbook.value_schema import MOST_FAULTS, faults_of
from tests.playbook.documents import HEAD, document_findings, findings_of
from tests.playbook.hostile import HOSTILE, STEPS, VALUES, many
from tests.test_tidy import ROOT


def test_every_hostile_document_and_value_is_read() -> None:
    """Its findings are a list of bounded length."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    finished = subprocess.run(
        [sys.executable, "-m", "tests.playbook.hostile"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    reports = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [name for name, _, _ in reports] == [*HOSTILE, *VALUES], finished.stderr
    assert [name for name, findings, size in reports if not 0 < findings <= 2_002 or size > 1_000_000] == []
    assert [name for name, faults, _ in reports if name in VALUES and faults > MOST_FAULTS + 1] == []


def test_a_check_past_its_steps_is_a_fault() -> None:
    """A turn holds a lock."""
    [(_, message)] = faults_of(*VALUES["many schemas"])
    assert message == "cannot be checked in 200,000 steps: make the schema simpler, or the value smaller"


def test_findings_past_a_thousand_are_counted() -> None:
    """The last line has the number of further findings. An error among them stays an error."""
    found = findings_of("workload: {" + "k: 1, " * 1_500 + "}\nworkflow: [{step: start}]\n")
    assert len(found) == 1_001
    assert found[-1] == "-2:1 error too-many-findings : … and 499 more errors (fix these, and check again)"


def test_a_thousand_warnings_hide_no_error() -> None:
    """Errors and warnings have separate limits."""
    unreachable = many("- {step: k#}\n", 1_500)
    found = findings_of(f"workflow:\n- {{step: start, next: a}}\n{unreachable}- {{step: a, join: 1}}\n")
    assert [one for one in found if " error " in one] == [one for one in found if "bad-value" in one or "`join`" in one]
    assert sum(" error " in one for one in found) == 1


def test_a_document_that_takes_too_much_work_is_refused() -> None:
    """The hint has the remedy."""
    source = HEAD + STEPS + many("- {step: s#}\n", 50)
    [found] = document_findings(source, PlaybookRules(most_work=100))
    assert found.startswith(
        "1:1 error too-much-work : reading the document takes more than 100 steps of work (split it"
    )


def test_warnings_that_take_too_much_work_are_left_out() -> None:
    """A warning says so."""
    conditions = many("{when: x == #, step: s0}, ", 60)
    source = f"{HEAD}workload: {{x: 1}}\nworkflow:\n- {{step: start, next: [{conditions}]}}\n- {{step: s0}}\n"
    found = document_findings(source, PlaybookRules(most_work=2_000))
    assert found[0].startswith(
        "1:1 warning too-much-work : looking for warnings takes more than 2,000 steps of work: some are missing (split"
    )


def test_the_first_findings_have_a_suggestion() -> None:
    """The number of words to compare is limited."""
    targets = many("step_numbr_#, ", 300)
    found = findings_of(f"workflow:\n- {{step: start, next: [{targets}]}}\n" + many("- {step: step_number_#}\n", 300))
    assert "(did you mean `step_number_0`?)" in found[0]
    assert "(add the step, or remove the transition)" in found[-1]

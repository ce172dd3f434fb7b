"""The reference of the simulation: rules that random executions rarely show."""

from __future__ import annotations

import pytest

from tests.simulation.expressions import Constant, EvaluationError, FailedItems, Outcome
from tests.simulation.plans import Entry, Iterate, Plan, Step, Target
from tests.simulation.reference import Reference
from tests.simulation.reference_model import ReferenceEvent

ITEMS = Iterate(collection=Constant([1, 2]), inputs=())
EACH = Plan(
    path="main",
    steps=(
        Step(name="start", entries=(Entry(then=(Target("each"),)),)),
        Step(name="each", kind="iterator", iterate=ITEMS, on_error="continue"),
    ),
)


@pytest.mark.parametrize(
    "lease, through_job, counts",
    [(1, True, True), (None, False, True), (2, False, True), (1, False, False), (0, False, False)],
)
def test_a_failure_of_an_item_beside_its_job_counts_unless_it_names_another_lease(
    lease: int | None, *, through_job: bool, counts: bool
) -> None:
    """The job had two leases. A worker that lost the first may still send an error."""
    reference = Reference(EACH)
    reference.apply(ReferenceEvent("start", value={}))
    failure = ReferenceEvent("item_failed", "each", 0, {}, lease=lease, leases=2, through_job=through_job)
    assert ("iteration_failed" in [effect.what for effect in reference.apply(failure)]) is counts


def test_a_key_of_the_data_hides_the_failed_items_of_an_iterator() -> None:
    """A child may return the places of its own failed items under that key."""
    failed = FailedItems("a")
    assert failed.evaluate(lambda _name: Outcome([None, 1], failed=(0,))) == [0]
    assert failed.evaluate(lambda _name: Outcome({"failed": []})) == []
    with pytest.raises(EvaluationError):
        failed.evaluate(lambda _name: Outcome({"failed": [0]}))

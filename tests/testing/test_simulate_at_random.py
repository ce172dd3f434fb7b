"""`simulate` on random families of playbooks: they end as the reference of the seeded simulation does."""

from __future__ import annotations

from collections import Counter

import pytest

from noetl_broker import Job, JobFailed
from noetl_broker.broker.model.rules import Rules
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.model import Step
from noetl_broker.store.json_codec import dump_json
from noetl_broker.testing.answers import Answers
from noetl_broker.testing.simulate import Simulation
from tests.simulation.plans import document
from tests.simulation.reference_run import End, run_reference
from tests.simulation.scenarios import STABLE_EVERY, Scenario, answer, scenario

pytestmark = pytest.mark.simulation


def lineage(simulation: Simulation, number: int) -> str:
    """The name of an execution in its family, as in scenarios."""
    execution = simulation.executions[number - 1]
    parent, source = execution.parent, execution.state.parent
    if parent is None or source is None:
        return "0"
    node = parent.step if parent.visit == 1 else f"{parent.step}#{parent.visit}"
    return f"{lineage(simulation, parent.execution.number)}/{node}.{parent.item_index}@{source.attempt}"


def played(tried: Scenario) -> tuple[End, int]:
    """How the first execution of a scenario ends, and how many executions there are."""
    family = {
        one.path: compile_playbook(dump_json(document(one)), rules=PlaybookRules()) for one in tried.plan.family()
    }

    def work(job: Job) -> object:
        node = job.name if job.item_index is None else f"{job.step}#{job.visit}.{job.item_index}"
        failures = job.attempt - 1 if job.item_index is None else 0
        given = answer(tried, lineage(simulation, job.execution_id), node, failures)
        if given.error is None:
            return given.result
        details = {key: value for key, value in given.error.items() if key != "message"}
        return JobFailed(given.error["message"], retryable=given.retryable, **details)

    steps = {
        f"{path}:{name}": work
        for path, playbook in family.items()
        for name, step in playbook.steps.items()
        if not calls_playbook(step)
    }
    simulation = Simulation(family, Answers(steps), Rules())
    story = simulation.run(family[tried.plan.path], dict(tried.payload)).story()
    return End(story.status, story.result), len(simulation.executions)


def calls_playbook(step: Step) -> bool:
    """Whether an answer would replace a child."""
    return (step if step.iteration is None else step.iteration.task).call is not None


@pytest.mark.parametrize("first", range(0, 1000, 200))
def test_random_families_end_as_the_reference_says(first: int) -> None:
    """Joins, loops, retries, iterators and children, with failures among the answers."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + 200, STABLE_EVERY):
        tried = scenario(seed)
        end, executions = played(tried)
        assert (seed, end) == (seed, run_reference(tried, 0))
        seen.update([end.status, "family" if executions > 1 else "alone"])
    assert seen.keys() == {"COMPLETED", "FAILED", "family", "alone"}

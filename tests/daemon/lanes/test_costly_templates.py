"""Executions whose templates use all their limits fail, and the others do not wait for them."""

from __future__ import annotations

import json

import pytest

from noetl_broker.daemon import batch
from noetl_broker.daemon.metrics import registry as metric
from tests.brokers import broken_invariants, complete_jobs, drain, register, rows, start, value
from tests.postgres import Database
from tests.template.escapes import grown, often

ROWS = [{"n": number, "s": str(number)} for number in range(100)]
# The worst of the corpus, each of some tens of milliseconds, as an input and as a condition.
INPUTS = [
    often("{% for j in [] %}{% else %}" + "{{ i }}" * 500 + "{% endfor %}"),
    often("{{ ('a' * 2400).find('a' * 1000 ~ 'ba' ~ 'a' * 190) }}"),
    often("{{ rows | map('tojson') | list | length }}"),
    often("{{ {'a': [i, i]} | tojson | from_json | to_json }}"),
    often("{% for j in range(100000) %}x{% endfor %}"),
    grown("[n.x, n.x]", 60, after="{{ n.x | tojson }}"),
]
CONDITIONS = [
    "range(100000) | map('string') | map('upper') | list",
    "range(30000) | select('odd') | list | sort | map('string') | join | length > 1",
    "(')' * 40000 ~ 'a)') | urlize",
    "(['x' * 1000000] * 50) | join",
    "range(1000000000) | list",
    "'a' * 10000000000",
]
BYSTANDER = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: [{when: "a.ok", step: end}]}
- {step: end}
"""


@pytest.fixture
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one costly template use up the time of a batch, however fast the machine is."""
    monkeypatch.setattr(batch, "DECIDE_SECONDS", 0.001)


async def start_costly(database: Database, *, each: int) -> list[int]:
    """Start so many executions of each costly template; gives their ids."""
    planted: list[int] = []
    for index, source in enumerate(INPUTS):
        body = f"workflow:\n- {{step: start, next: a}}\n- {{step: a, type: http, args: {{x: {json.dumps(source)}}}}}\n"
        await register(database, body, path=f"input{index}")
        planted += await start(database, f"input{index}", {"rows": ROWS}, count=each)
    for index, source in enumerate(CONDITIONS):
        entry = f"{{when: {json.dumps(source)}, step: a}}"
        body = f"workflow:\n- {{step: start, next: [{entry}]}}\n- {{step: a, type: http}}\n"
        await register(database, body, path=f"when{index}")
        planted += await start(database, f"when{index}", count=each)
    return planted


@pytest.mark.usefixtures("short_batches")
async def test_costly_templates_fail_their_executions_and_delay_no_others(database: Database) -> None:
    """They are first in the inbox. Batches stay short, and new mail is not decided last."""
    await register(database, BYSTANDER, path="bystander")
    planted = await start_costly(database, each=2)
    others = await start(database, "bystander", count=20)
    service = await drain(database, lanes=1)
    assert service.metrics.total(metric.TURNS) == len(planted) + len(others)
    assert service.metrics.total(metric.BATCHES) >= 5
    decided = """
        select x.path
        from noetl.turn t
        join noetl.execution x using (execution_id)
        order by t.decided_at"""
    order = [path for (path,) in await rows(database, decided)]
    assert order.index("bystander") < len(planted) / 2
    assert await complete_jobs(database, {"ok": True}) == len(others)
    await drain(database)
    found = await rows(database, "select path, status, error from noetl.execution order by execution_id")
    assert {(path, status) for path, status, _ in found if path == "bystander"} == {("bystander", "COMPLETED")}
    errors = [(path, error) for path, status, error in found if path != "bystander" and status == "FAILED"]
    assert len(errors) == len(planted)
    places = {f"input{index}": ("workflow[1].args.x", source) for index, source in enumerate(INPUTS)}
    places |= {f"when{index}": ("workflow[0].next[0].when", source) for index, source in enumerate(CONDITIONS)}
    assert [path for path, error in errors if (error["at"], error["template"]) != places[path]] == []
    bounds = ("(template_max_", "a list of")
    assert [error for _, error in errors if not any(bound in error["message"] for bound in bounds)] == []
    assert await broken_invariants(database) == {}


@pytest.mark.usefixtures("short_batches")
async def test_the_mail_of_one_execution_is_decided_in_several_batches(database: Database) -> None:
    """Eight answers, each with a condition that takes longer than a batch may."""
    costly = json.dumps("range(10000) | select('odd') | list | length > 1")
    tasks = "".join(
        f"- {{step: {name}, type: python, code: x, next: [{{when: {costly}, step: end}}]}}\n" for name in "abcdefgh"
    )
    await register(database, "workflow:\n- {step: start, next: [a, b, c, d, e, f, g, h]}\n" + tasks + "- {step: end}\n")
    await start(database)
    await drain(database)
    await complete_jobs(database)
    service = await drain(database, lanes=1)
    assert service.metrics.total(metric.TURNS) == 8
    assert service.metrics.largest_batch < 8
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    assert await broken_invariants(database) == {}

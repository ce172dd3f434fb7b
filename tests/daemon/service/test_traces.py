"""Traces: one for an execution and its children, sent by broker and workers, with computed ids."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.status import StatusCode

from noetl_broker.daemon import tracer as tracer_module
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.store.connect.connection import create_pool
from noetl_broker.tracing.otlp import Exporter
from noetl_broker.tracing.spans import span_id_of, trace_id_of
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import complete_jobs, drain, execute, register, rows, running, start, until_ended, value
from tests.postgres import Database

PARENT = """
workflow:
- {step: start, next: flaky}
- step: flaky
  type: python
  code: "def main(): raise ValueError('not yet')"
  retry: {max_attempts: 2, initial_delay: 0.01}
  on_error: continue
  next: route
- {step: route, next: call}
- {step: call, type: playbook, path: child, next: end}
- {step: end}
"""
CHILD = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: "def main(): return {'ok': True}", next: end}
- {step: end}
"""
CALL = """
workflow:
- {step: start, next: call}
- {step: call, type: playbook, path: child, next: end}
- {step: end}
"""
NOTHING = """
workflow:
- {step: start, next: end}
- {step: end}
"""
ITEMS = """
workflow:
- {step: start, next: each}
- step: each
  type: iterator
  collection: [1, 2]
  element: n
  distribute: true
  task: {type: python, args: {n: "{{ n }}"}, code: "def main(n): return n"}
  next: end
- {step: end}
"""


@dataclass(frozen=True, slots=True)
class SpanRecorder:
    """Records the spans that are exported."""

    exporter: Exporter
    memory: InMemorySpanExporter

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All spans, ordered by their starts."""
        return tuple(
            sorted(self.memory.get_finished_spans(), key=lambda span: (span.start_time or 0, -(span.end_time or 0)))
        )

    def tree(self) -> list[str]:
        """Each span indented below its parent, by name and status; spans without a parent are at the top."""
        children: dict[int | None, list[ReadableSpan]] = {}
        known = {span.context.span_id for span in self.spans}
        for span in self.spans:
            above = span.parent.span_id if span.parent is not None else None
            children.setdefault(above if above in known else None, []).append(span)

        def lines(of: int | None, indent: str) -> Iterator[str]:
            for span in children.get(of, ()):
                failed = " failed" if span.status.status_code is StatusCode.ERROR else ""
                yield f"{indent}{span.name}{failed}"
                yield from lines(span.context.span_id, indent + "  ")

        return [*lines(None, "")]


@pytest.fixture
def recorder() -> Iterator[SpanRecorder]:
    """Yield a recorder of spans."""
    memory = InMemorySpanExporter()
    exporter = Exporter(SimpleSpanProcessor(memory), "test")
    yield SpanRecorder(exporter, memory)
    exporter.close()


async def test_an_execution_with_a_child_and_a_retry_is_one_trace(database: Database, recorder: SpanRecorder) -> None:
    """Broker and worker send their spans: attempts below visits, the child below its step."""
    await register(database, PARENT)
    await register(database, CHILD, path="child")
    stop = asyncio.Event()
    options = WorkerOptions(
        dsn=database.dsn, schema=database.schema, types=("python",), emit=recorder.exporter.emit, poll_max_seconds=0.05
    )
    worker = asyncio.create_task(run_worker(options, stop))
    async with running(database, emit=recorder.exporter.emit) as service:
        [execution_id] = await start(database)
        await until_ended(database)
    stop.set()
    await worker
    assert recorder.tree() == [
        "story",
        "  flaky failed",
        "    python flaky failed",
        "    python flaky failed",
        "  route",
        "  call",
        "    child",
        "      work",
        "        python work",
    ]
    assert {f"{span.context.trace_id:032x}" for span in recorder.spans} == {trace_id_of(execution_id)}
    assert (service.metrics.total(metric.SPANS), service.metrics.total(metric.SPANS_DROPPED)) == (6, 0)


async def test_spans_have_the_times_of_the_tables(database: Database, recorder: SpanRecorder) -> None:
    """Their starts and ends equal the columns."""
    await register(database, CHILD)
    await start(database)
    await drain(database, emit=recorder.exporter.emit)
    await complete_jobs(database, {"ok": True})
    await drain(database, emit=recorder.exporter.emit)
    times = {span.name: (span.start_time, span.end_time) for span in recorder.spans}
    nanoseconds = "(extract(epoch from {}) * 1000000)::bigint * 1000"
    began = nanoseconds.format("started_at")
    ended = nanoseconds.format("ended_at")
    assert times == {
        "work": (await rows(database, f"select {began}, {ended} from noetl.workflow where step_name = 'work'"))[0],
        "story": (await rows(database, f"select {began}, {ended} from noetl.execution"))[0],
    }


async def test_each_item_of_an_iterator_has_a_span(database: Database, recorder: SpanRecorder) -> None:
    """Below its visit."""
    await register(database, ITEMS)
    await start(database)
    await drain(database, emit=recorder.exporter.emit)
    while await complete_jobs(database, {"ok": True}):
        await drain(database, emit=recorder.exporter.emit)
    assert recorder.tree() == ["story", "  each", "    each[0]", "    each[1]"]


async def test_the_sql_function_gives_the_same_traceparent(database: Database) -> None:
    """Computed from the root execution and the node."""
    await register(database, CALL)
    await register(database, CHILD, path="child")
    [execution_id] = await start(database)
    await drain(database)
    child, node = (await rows(database, "select execution_id, node_id from noetl.queue where node_name = 'work'"))[0]
    expected = f"00-{trace_id_of(execution_id)}-{span_id_of(node)}-01"
    assert await value(database, "select noetl.traceparent($1, $2)", child, node) == expected
    assert await value(database, "select noetl.traceparent($1, null)", child) == (
        f"00-{trace_id_of(execution_id)}-{span_id_of(child)}-01"
    )


async def test_spans_beyond_the_limit_are_dropped_and_counted(
    database: Database, recorder: SpanRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker does not wait for the exporter."""
    monkeypatch.setattr(tracer_module, "MAX_WAITING", 3)
    await register(database, NOTHING)
    await start(database, count=5)
    service = await drain(database, emit=recorder.exporter.emit)
    assert (service.metrics.total(metric.SPANS), service.metrics.total(metric.SPANS_DROPPED), len(recorder.spans)) == (
        3,
        2,
        3,
    )


async def test_spans_are_kept_while_the_database_does_not_answer(database: Database, recorder: SpanRecorder) -> None:
    """They are sent when it answers."""
    await register(database, NOTHING)
    await start(database)
    body = await value(database, "select pg_get_functiondef('noetl.root_of(bigint)'::regprocedure)")
    await execute(
        database,
        """
        create or replace function noetl.root_of(execution_id bigint) returns bigint language plpgsql as
        $$ begin raise exception using errcode = '57P03'; end $$""",
    )
    service = await drain(database, emit=recorder.exporter.emit)
    assert (service.metrics.total(metric.SPANS), recorder.spans) == (0, ())
    await execute(database, body)
    assert service.tracer is not None
    pool = await create_pool(database, name="test", size=1)
    await service.tracer.send(pool)
    await pool.close()
    assert [span.name for span in recorder.spans] == ["story"]


def test_without_traces_the_library_is_not_loaded() -> None:
    """Neither by the broker nor by a worker: it costs memory and need not be installed."""
    code = """
import sys, noetl_broker.cli.run, noetl_broker.cli.worker
print([name for name in sys.modules if name.startswith("opentelemetry")])"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"

"""A worker with tasks of its own: functions that do jobs, with all that the reference worker does around them.

Leases, heartbeats, timeouts, loops, `save`, the templates that only a worker can finish, the stop in good order: the
same loop serves both, and only the tools are others.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import json
import signal
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from noetl_broker.errors import JobFailed, OperatorFault
from noetl_broker.job import Job, readable
from noetl_broker.store.results import jsonable
from noetl_broker.worker.faults import ToolFault
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.pool import run_worker
from noetl_broker.worker.tools.task import Task, Tool

TaskFunction = TypeVar("TaskFunction", bound=Callable[[Job], Any])


class Worker:
    """Does jobs by functions of yours, each for one type of step.

    ```python
    worker = Worker("postgresql://localhost/database")


    @worker.task("resize")
    async def resize(job: Job) -> object:
        return {"width": job.args["width"] // 2}


    asyncio.run(worker.run())
    ```
    """

    def __init__(self, dsn: str | None = None, **options: Any) -> None:
        """`dsn` None: the PG* variables; `options` are those of WorkerOptions (`concurrency`, `lease_seconds`, …)."""
        self._options: dict[str, Any] = {"dsn": dsn, **options}
        self._tools: dict[str, Tool] = {}

    def task(self, node_type: str) -> Callable[[TaskFunction], TaskFunction]:
        """Let the decorated function do the jobs of a type; it is given the `Job`, and gives its result as JSON.

        A plain function runs in a thread of its own, which a timeout or a lost lease cannot end: its result is dropped
        then. Raise JobFailed to say how it failed; whatever else is raised fails the attempt with its name and message.
        """

        def keep(function: TaskFunction) -> TaskFunction:
            if node_type in self._tools:
                raise OperatorFault(f"the worker has a function for {node_type} already")
            self._tools[node_type] = _tool(function)
            return function

        return keep

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Work until `stop` is set, or SIGTERM, SIGINT or SIGHUP comes; running jobs have `drain_seconds` to finish.

        Raises OperatorFault for options that cannot work, PermissionFault and SchemaFault where the database will not
        have this worker; while the database is away it waits.
        """
        if not self._tools:
            raise OperatorFault('the worker has no function; decorate one with @worker.task("type")')
        stopping = stop or asyncio.Event()
        options = WorkerOptions(**self._options)
        with _signals(stopping):
            await run_worker(options, stopping, self._tools)


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    """Set the event at a signal; where we are not in the main thread, signals are not ours."""
    loop, taken = asyncio.get_running_loop(), []
    wanted = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        wanted.append(signal.SIGHUP)
    for number in wanted:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stopping.set)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


def _tool(function: Callable[[Job], Any]) -> Tool:
    async def run(task: Task) -> Any:
        job = job_of(task)
        try:
            if inspect.iscoroutinefunction(function):
                return await function(job)
            answer = await in_a_thread(function, job)
            return await answer if isinstance(answer, Awaitable) else answer
        except JobFailed as failed:
            raise told_by(failed) from failed
        except GeneratorExit:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            trace = "".join(traceback.format_exception(error))
            message = str(error) or type(error).__name__
            raise ToolFault(message, kind=type(error).__name__, traceback=trace) from error

    return run


def _is_cancelled() -> bool:
    """Tell whether somebody cancelled this job; else a function has met a cancellation of something else's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def in_a_thread(function: Callable[[Job], Any], job: Job) -> Any:
    """Call a plain function in a thread of its own; one that does not return ends with the program, and holds up none.

    The threads of asyncio.to_thread are a handful, whatever `concurrency` says, and the program waits for each.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def tell(answer: Any, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((answer, error))

    def call() -> None:
        answer, error = None, None
        try:
            answer = context.run(function, job)
        except BaseException as raised:  # noqa: BLE001 - it is raised where the answer is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, answer, error)

    threading.Thread(target=call, name=f"job {job.step}", daemon=True).start()
    answer, error = await ended
    if error is not None:
        raise error
    return answer


def told_by(failed: JobFailed) -> ToolFault:
    """Make of what a function raised a fault that can be stored: all of it JSON."""
    # Written once here: what JSON cannot hold at all is then an error of this job, and not of who answers for all.
    details = json.loads(json.dumps(jsonable(failed.details)))
    return ToolFault(failed.message, kind=str(failed.kind), retryable=failed.retryable, **details)


def job_of(task: Task) -> Job:
    """The job as its function sees it."""
    leased, visit = task.job, task.context.get("visit")
    return Job(
        step=task.name,
        type=task.type,
        args=task.args,
        visit=visit if isinstance(visit, int) else 1,
        attempt=leased.attempt,
        place=_place(leased.node_id),
        path=str(task.context.get("path") or ""),
        execution_id=leased.execution_id,
        action=readable(task.action),
        context=task.context,
    )


def _place(node_id: str) -> int | None:
    """`…:step#1.7` is item 7 of an iterator."""
    place = node_id.rpartition("#")[2].partition(".")[2]
    return int(place) if place.isascii() and place.isdigit() else None

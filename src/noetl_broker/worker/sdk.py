"""A worker whose jobs are run by your functions.

It runs the loop of the reference worker with other tools: the same leases, timeouts, iterators, `save`, deferred
strings and drain.
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
from dataclasses import replace
from typing import Any, TypeVar

from noetl_broker.errors import JobFailed, OperatorFault
from noetl_broker.job import Job, readable
from noetl_broker.node_ids import parse_node
from noetl_broker.worker.errors import ToolFault
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.output_capture import captured, capturing
from noetl_broker.worker.run import run_worker
from noetl_broker.worker.sql.values import jsonable
from noetl_broker.worker.tools.task import Task, Tool

TaskFunction = TypeVar("TaskFunction", bound=Callable[[Job], Any])


class Worker:
    """Runs jobs by your functions, one for each step type.

    ```python
    worker = Worker("postgresql://localhost/database")


    @worker.task("resize")
    async def resize(job: Job) -> object:
        return {"width": job.args["width"] // 2}


    asyncio.run(worker.run())
    ```
    """

    def __init__(self, dsn: str | None = None, **options: Any) -> None:
        """`dsn` None: the PG* variables. `options` are fields of WorkerOptions (`concurrency`, `lease_seconds`, …)."""
        self._options: dict[str, Any] = {"dsn": dsn, **options}
        self._tools: dict[str, Tool] = {}

    def task(self, node_type: str, *, transaction: bool = False) -> Callable[[TaskFunction], TaskFunction]:
        """Run the jobs of a type by the decorated function, which takes the `Job` and returns JSON.

        A function that is not async runs in a thread. A cancel, a timeout or a lost lease cannot end that thread. It
        sets `job.cancelled`, and the result is dropped. Raise JobFailed to set the error; any other exception fails the
        attempt with its name and message.

        With `transaction`, `job.connection` is an asyncpg connection to the broker's database, in a transaction. When
        the function returns, its rows and the completion of the job commit together. A failed attempt, and one whose
        lease was lost or whose job was cancelled, writes nothing. The function must be async, and cannot commit or
        roll back.
        """

        def register(function: TaskFunction) -> TaskFunction:
            if node_type in self._tools:
                raise OperatorFault(f"the worker has a function for {node_type} already")
            if transaction and not inspect.iscoroutinefunction(function):
                raise OperatorFault(f"the function for {node_type} needs `async def`: job.connection is asyncpg's")
            self._tools[node_type] = _tool(function, transaction=transaction)
            return function

        return register

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Work until `stop` is set, or SIGTERM, SIGINT or SIGHUP comes; running jobs have `drain_seconds` to finish.

        Waits while the database is away. Raises OperatorFault for wrong options, and PermissionFault and SchemaFault
        when the database refuses this worker.
        """
        if not self._tools:
            raise OperatorFault('the worker has no function; decorate one with @worker.task("type")')
        stopping = stop or asyncio.Event()
        options = WorkerOptions(**self._options)
        with _signals(stopping), capturing():
            await run_worker(options, stopping, self._tools)


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    """Set the event at a signal. Outside the main thread there is nothing to handle."""
    loop, taken = asyncio.get_running_loop(), []
    wanted = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it is
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


def _tool(function: Callable[[Job], Any], *, transaction: bool = False) -> Tool:
    async def run(task: Task) -> Any:
        job = job_of(task)
        try:
            with captured(task.log):
                if transaction:
                    async with task.own_transaction().statements() as connection:
                        return await function(replace(job, connection=connection))
                if inspect.iscoroutinefunction(function):
                    return await function(job)
                answer = await run_in_thread(function, job)
                return await answer if isinstance(answer, Awaitable) else answer
        except JobFailed as failed:
            raise fault_of(failed) from failed
        except GeneratorExit:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                job.cancelled.set()
                raise
            trace = "".join(traceback.format_exception(error))
            message = str(error) or type(error).__name__
            raise ToolFault(message, kind=type(error).__name__, traceback=trace) from error

    return run


def _is_cancelled() -> bool:
    """Whether this job was cancelled, and not something that the function awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def run_in_thread(function: Callable[[Job], Any], job: Job) -> Any:
    """Call a function in a daemon thread. If it does not return, it ends with the program and blocks nothing.

    asyncio.to_thread has a fixed number of threads, whatever `concurrency` says, and the program waits for them.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def finish(answer: Any, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((answer, error))

    def call() -> None:
        answer, error = None, None
        try:
            answer = context.run(function, job)
        except BaseException as raised:  # noqa: BLE001 - raised again below
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish, answer, error)

    threading.Thread(target=call, name=f"job {job.step}", daemon=True).start()
    answer, error = await ended
    if error is not None:
        raise error
    return answer


def fault_of(failed: JobFailed) -> ToolFault:
    """The fault of what a function raised, with all details as JSON."""
    # Details that are no JSON raise here, as a fault of this job, and not in the reporter.
    details = json.loads(json.dumps(jsonable(failed.details)))
    return ToolFault(failed.message, kind=str(failed.kind), retryable=failed.retryable, **details)


def job_of(task: Task) -> Job:
    """The job that the function gets."""
    leased, visit = task.job, task.context.get("visit")
    return Job(
        step=task.name,
        type=task.type,
        args=task.args,
        visit=visit if isinstance(visit, int) else 1,
        attempt=leased.attempt,
        item_index=parse_node(leased.node_id, None).item_index,
        path=str(task.context.get("path") or ""),
        execution_id=leased.execution_id,
        action=readable(task.action),
        context=task.context,
        progress=task.progress.set,
    )

"""A worker of functions: items that cancel themselves, or whose results cannot be stored."""

from __future__ import annotations

from noetl_broker import Job
from tests.postgres import Database
from tests.worker.test_loop import Queue, queue
from tests.worker.test_sdk import awaits_the_cancelled, cancels_itself, doing

__all__ = ["queue"]
RESULTS: dict[str, object] = {
    "a NUL": "a\x00b",
    "half a character": "\ud800",
    "no number": float("nan"),
    "no JSON": object(),
    "too large": "x" * 2_100_000,
}
BAD = {name: "max_result_bytes" if name == "too large" else "bad_result" for name in RESULTS}
BAD["cancelled"] = "CancelledError"


async def test_an_item_without_a_result_fails_its_iterator_or_is_null(database: Database, queue: Queue) -> None:
    """The error has its index. With `on_error: continue` the item is listed beside the results of the others."""

    async def gives(job: Job) -> object:
        number, what = job.args["n"], job.args["what"]
        if number == 2 and what in RESULTS:
            return RESULTS[what]
        if number == 2:
            await (awaits_the_cancelled if what == "cancelled" else cancels_itself)(job)
        return number

    loop = {"collection": [1, 2, 3], "element": "n"}
    async with doing(database, gives):
        for what, kind in BAD.items():
            job = {"type": "own", "args": {"n": "{{ n }}", "what": what}}
            going_on = await queue.put_one({**job, "loop": {**loop, "on_error": "continue"}})
            assert await queue.until(going_on, "failed", "done") == "done"
            ending = await queue.put_one({**job, "loop": loop})
            assert await queue.until(ending, "failed", "done") == "failed"
            [(_, results, _)] = await queue.events(going_on)
            [(_, _, error)] = await queue.events(ending)
            assert results["data"] == [1, None, 3]
            assert [(one["index"], one["error"]["type"]) for one in results["meta"]["failed"]] == [(1, kind)]
            assert (error["index"], error["type"]) == (1, kind)
        cancelling = await queue.put_one({"type": "own", "args": {"n": "{{ n }}", "what": ""}, "loop": loop})
        assert await queue.until(cancelling, "failed", "done") == "failed"
    [(_, _, error)] = await queue.events(cancelling)
    assert error["type"] == "CancelledError"

"""DBOS: a workflow whose steps are recorded one by one; as many threads as it is usually given."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS, DBOSConfig

workflows, steps = int(sys.argv[1]), int(sys.argv[2])
concurrency = int((sys.argv[3:] or ["16"])[0])
config: DBOSConfig = {
    "name": "bench",
    "system_database_url": os.environ["PEER_DSN"],
    "run_admin_server": False,
    "log_level": "ERROR",
}
DBOS(config=config)


@DBOS.step()
def step(number: int) -> int:
    """Nothing."""
    return number


@DBOS.workflow()
def workflow() -> None:
    """Steps in a row."""
    for number in range(steps):
        step(number)


DBOS.launch()
workflow()
began = time.perf_counter()
with ThreadPoolExecutor(concurrency) as threads:
    for done in [threads.submit(workflow) for _ in range(workflows)]:
        done.result()
print(json.dumps({"steps": workflows * steps, "seconds": time.perf_counter() - began}))
DBOS.destroy()

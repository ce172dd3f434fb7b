"""docs/python.md: its programs run as they are printed."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import noetl_broker
from noetl_broker.playbook.findings import Rules as PlaybookRules
from tests.brokers import register, running
from tests.postgres import Database

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
PICTURE = """
workload: {width: 2}
workflow:
  - {step: start, next: shrink}
  - {step: shrink, type: resize, args: {width: "{{ workload.width }}"}, next: end}
  - {step: end, result: "{{ shrink.width }}"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's programs, and the playbook of the readme."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    hello = next(block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "examples/hello" in block)
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "hello.yaml").write_text(hello, encoding="utf-8")
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_tests_on_the_page_pass(folder: Path) -> None:
    """In a pytest of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_hello.py"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert (answer.returncode, "3 passed" in answer.stdout) == (0, True), answer.stdout


async def test_the_worker_does_what_the_producer_orders(folder: Path, database: Database) -> None:
    """Both as programs, with a broker between; the worker ends well at SIGTERM."""
    await register(database, PICTURE, path="shop/picture")
    environment = {**os.environ, "NOETL_BROKER_DSN": database.dsn}
    async with running(database, playbook_rules=PlaybookRules(extra_step_types=frozenset({"resize"}))):
        worker = await asyncio.create_subprocess_exec(sys.executable, "worker.py", cwd=folder, env=environment)
        order = await asyncio.create_subprocess_exec(
            sys.executable, "order.py", cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await asyncio.wait_for(order.communicate(), 60)
        worker.terminate()
        ended = await asyncio.wait_for(worker.wait(), 30)
    assert (told.decode().strip(), ended) == ("320", 0)


def test_the_page_names_all_that_may_be_imported() -> None:
    """And `noetl_broker` has each of it."""
    told = PAGE.split("## ")[0]
    missing = [name for name in noetl_broker.__all__ if name != "__version__" and f"`{name}`" not in told]
    assert missing == []
    assert [name for name in noetl_broker.__all__ if not hasattr(noetl_broker, name)] == []


def test_the_program_hears_what_a_worker_tells(folder: Path) -> None:
    """On stderr, in the words of the page."""
    tells = "from noetl_broker.worker.pool import log; log.info('job_ended'); log.debug('job_started')"
    program = f"{(folder / 'hear.py').read_text(encoding='utf-8')}\n{tells}"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert (answer.stdout, answer.stderr) == ("", "INFO:noetl_broker.worker.pool:job_ended\n")

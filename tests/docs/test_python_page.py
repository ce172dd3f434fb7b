"""docs/python.md: its programs run as shown."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

import noetl_broker
from tests.brokers import drain, register, start, value
from tests.docs.pages import code_blocks, read_page
from tests.docs.shell import blocks, run_script
from tests.postgres import Database

PAGE = read_page("python")
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's programs and its playbook."""
    hello, picture = code_blocks(PAGE, "yaml")
    (tmp_path / "picture.yaml").write_text(picture, encoding="utf-8")
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "hello.yaml").write_text(hello, encoding="utf-8")
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_tests_on_the_page_pass(folder: Path) -> None:
    """In their own pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_hello.py"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert (answer.returncode, "3 passed" in answer.stdout) == (0, True), answer.stdout


def test_the_worker_runs_what_the_client_starts(folder: Path, database: Database) -> None:
    """The commands of the page run in order, then the program that starts an execution."""
    answer = run_script(f"{''.join(blocks(PAGE))}python order.py\n", folder, database)
    assert answer.stdout.splitlines()[-1] == "320"


def test_the_program_signals_and_approves(folder: Path, database: Database) -> None:
    """It prints what waits; afterwards nothing does."""
    body = "workflow: [{step: start, next: ask}, {step: ask, type: approval, title: Order 7, assignees: [finance]}]"
    asyncio.run(register(database, body, path="shop/order"))
    [execution] = asyncio.run(start(database, "shop/order"))
    asyncio.run(drain(database))
    answer = run_script("python decide.py\n", folder, database)
    assert answer.stdout == f"{execution} ask Order 7 None\n"
    asyncio.run(drain(database))
    assert asyncio.run(value(database, "select status from noetl.execution")) == "COMPLETED"
    assert asyncio.run(value(database, "select name || ' ' || key from noetl.signal")) == "payment 42"


def test_the_page_lists_every_public_name() -> None:
    """`noetl_broker` has each of them."""
    listed = PAGE.split("## ")[0]
    missing = [name for name in noetl_broker.__all__ if name != "__version__" and f"`{name}`" not in listed]
    assert missing == []
    assert [name for name in noetl_broker.__all__ if not hasattr(noetl_broker, name)] == []


def test_the_program_gets_the_log_of_a_worker(folder: Path) -> None:
    """On stderr, from level info on."""
    tells = "from noetl_broker.worker.loop import log; log.info('job_ended'); log.debug('job_started')"
    program = f"{(folder / 'hear.py').read_text(encoding='utf-8')}\n{tells}"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600)
    assert (answer.stdout, answer.stderr) == ("", "INFO:noetl_broker.worker.loop:job_ended\n")

"""The pages that a newcomer follows run as they are written, with the processes that they start."""

from __future__ import annotations

import itertools
import signal
import subprocess
from contextlib import closing

import pytest

from noetl_broker.playbook import PlaybookRules, check
from tests.chaos.under_load import until
from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.daemon.processes.test_health_port import free_port
from tests.docs.pages import README, code_blocks, read_page
from tests.docs.runner import PageRun, comparable
from tests.postgres import Database
from tests.running_dev import RunningDev, folder_for_every_account, read_to


def test_the_readme_and_getting_started_run_beside_dev() -> None:
    """In one folder: a playbook runs, is explained and looked at; `dev` prints what is shown, but for the places."""
    [order], [greet] = code_blocks(README, "yaml"), code_blocks(read_page("first-playbook"), "yaml")
    [install, start_order], [dev, *others] = code_blocks(README, "sh"), code_blocks(read_page("first-playbook"), "sh")
    assert (install.splitlines()[-1], dev) == ("noetl-broker dev", "noetl-broker dev\n")
    assert check(order, file="order.yaml", rules=PlaybookRules()) == ()
    with folder_for_every_account() as folder:
        (folder / "order.yaml").write_text(order, encoding="utf-8")
        command = Command(folder, None)
        reader = PageRun(command)
        running = RunningDev(command)
        printed = reader.run(start_order)
        assert printed.splitlines()[-1] == '"not reviewed"'
        reader.calls_of(README)
        reader.calls.pop(0)  # `make dev`
        reader.ids = iter(printed.splitlines())
        reader.shown("noetl-broker explain")
        (folder / "greet.yaml").write_text(greet, encoding="utf-8")
        running.read_until("greet.yaml: registered first/greet version 1")
        assert '"Hello, Ada!"' in reader.run("".join(others))
        assert running.end(signal.SIGINT) == 0
        command.close()


def test_the_worker_of_the_tutorial_does_its_jobs() -> None:
    """One succeeds, one is tried again, one is cancelled."""
    page = read_page("worker")
    [program], [playbook] = code_blocks(page, "python"), code_blocks(page, "yaml")
    begin, succeed, retry, cancel = code_blocks(page, "sh")
    with folder_for_every_account() as folder:
        (folder / "resize.py").write_text(program, encoding="utf-8")
        command = Command(folder, None)
        reader = PageRun(command)
        running = RunningDev(command)
        reader.run(begin.replace("export ", ""))
        database = Database(name="postgres", dsn=(folder / ".noetl" / "dsn").read_text(encoding="utf-8").strip())
        reader.aside(until(database, "select count(*) > 0 from noetl.step_type where name = 'resize'"))
        (folder / "picture.yaml").write_text(playbook, encoding="utf-8")
        running.read_until("picture.yaml: registered first/picture version 1")
        assert reader.run(succeed).splitlines()[-1] == "320"
        printed = reader.run(retry)
        assert [line in printed for line in ("\n6\n", "attempt 1 for 13", "attempt 2 for 13")] == [True] * 3
        assert "CANCEL" in reader.run(cancel)
        reader.close()
        assert running.end(signal.SIGINT) == 0
        command.close()


def test_the_order_of_the_tutorial_is_refunded_and_retried_beside_dev() -> None:
    """The second terminal is a process; it prints the lines that the page shows, in this order."""
    page = read_page("order-with-refund")
    [order], [added], shown = code_blocks(page, "yaml"), code_blocks(page, "python"), code_blocks(page, "")
    with folder_for_every_account() as folder, closing(Command(folder, None)) as command:
        (folder / "order.yaml").write_text(order, encoding="utf-8")
        reader, running = PageRun(command), RunningDev(command)
        reader.calls_of(page)
        start, ask = reader.calls.pop(0)
        first = command.start_with(subprocess.PIPE, subprocess.STDOUT, *start.split()[1:])
        asked = read_to(first, "approve waits for a person")
        failed = asked.splitlines()[0]
        reader.ids = itertools.repeat(failed)
        reader.shown("noetl-broker approve")
        ended = first.communicate(timeout=PATIENCE_SECONDS)[0]
        assert (in_order(ask, asked), in_order(shown[2], ended), first.returncode) == ([], [], 1)
        reader.shown("noetl-broker explain")
        reader.shown("noetl-broker logs")
        lines = order.splitlines(keepends=True)
        lines.insert(lines.index("      def main(weight):\n"), added)
        (folder / "order.yaml").write_text("".join(lines), encoding="utf-8")
        running.read_until("order.yaml: registered shop/order version 2")
        reader.shown("noetl-broker retry")
        retried = command.json("executions")[0]["execution_id"]
        watch, result = reader.calls.pop(0)
        second = command.start(*watch.split()[1:2], retried, "--watch")
        read_to(second, "step approve  RUNNING")
        assert command("approve", retried, "approve").exit_code == 0
        assert in_order(result, second.communicate(timeout=PATIENCE_SECONDS)[0]) == []
        assert running.end(signal.SIGINT) == 0


def in_order(shown: str, printed: str) -> list[str]:
    """Return the shown lines that were not printed in this order; ids and times are free, `…` is any text."""
    lines = iter(comparable(printed))
    return [line for line in comparable(shown.replace("…\n", "")) if line not in lines]


def test_the_program_of_the_http_api_runs(reader: PageRun) -> None:
    """With a console on a free port."""
    page, address = read_page("api"), f"localhost:{free_port()}"
    (reader.folder / "hello.yaml").write_text(code_blocks(page, "yaml")[0], encoding="utf-8")
    page = page.replace("localhost:8080", address).replace("curl -s", "curl --fail-with-body -sS")
    page = page.replace("noetl-broker console &", f"noetl-broker console --port {address.partition(':')[2]} &")
    page = page.replace("|| true", "|| test $? = 28")  # the time of the open stream is over
    printed = reader.page(page)
    assert ("Hello, Ada!" in printed, '{"role":"operator","name":"laptop"}' in printed) == (True, True)


@pytest.fixture
def programs(reader: PageRun) -> PageRun:
    """The programs and playbooks of docs/reference/python.md are in the folder."""
    page = read_page("python")
    hello, picture = code_blocks(page, "yaml")
    (reader.folder / "playbooks").mkdir()
    (reader.folder / "playbooks" / "hello.yaml").write_text(hello, encoding="utf-8")
    (reader.folder / "picture.yaml").write_text(picture, encoding="utf-8")
    for text in code_blocks(page, "python"):
        if text.startswith("# ") and text.partition("\n")[0].endswith(".py"):
            (reader.folder / text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    return reader


def test_the_tests_of_the_python_page_pass(programs: PageRun) -> None:
    """In their own pytest."""
    without = "".join(f" -p no:{plugin}" for plugin in ("cacheprovider", "schemathesis", "hypothesispytest", "xdist"))
    assert "3 passed" in programs.run(f"python -m pytest -q{without} -p no:pytest_postgresql test_hello.py")


def test_the_worker_of_the_python_page_runs_what_its_client_starts(programs: PageRun) -> None:
    """And what it waits for is approved; the page itself has a broker."""
    body = "workflow: [{step: start, next: ask}, {step: ask, type: approval, title: Order 7, approvers: [finance]}]"
    programs.register(body, "shop/order")
    execution = programs.start("shop/order")
    programs.decides = False
    [commands] = code_blocks(read_page("python"), "sh")
    programs.run(commands)
    assert programs.run("python order.py").splitlines()[-1] == "320"
    assert programs.run("python decide.py") == f"{execution} ask Order 7 None\n"
    assert programs.run("python hear.py") == ""
    assert programs.sql("select name, key from noetl.signal") == [[("payment", "42")]]

"""Each page's commands and statements run once, in the order of the page."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from noetl_broker.cli.main import cli
from noetl_broker.embedded_postgres.binaries import find_bin_folder
from noetl_broker.playbook import PlaybookRules, check
from noetl_broker.resources import playbooks_folder
from tests.docs.pages import BLOCK, PAGES, code_blocks, read_page, table_rows
from tests.docs.runner import PageRun
from tests.periods import LONG_AGO, ended_in

# Pages whose commands and statements run elsewhere.
ELSEWHERE = {
    "agents": "tests/agents",
    "api": "test_walkthroughs.py",
    "beside-noetl": "test_beside_page.py; a real server: tests/interop",
    "citus": "tests/citus/test_page.py",
    "settings": "tests/cli/test_completion.py",
    "console": "test_walkthroughs.py: the page about the API starts a console, too",
    "data-of-persons": "test_data_page.py",
    "first-playbook": "test_walkthroughs.py",
    "order-with-refund": "test_walkthroughs.py",
    "python": "test_walkthroughs.py",
    "recover": "test_recover_page.py, test_backups.py",
    "rows-once": "test_rows_once_page.py",
    "replay": "test_examples.py; with a database: tests/cli",
    "run": "test_security_page.py; services and containers: tests/deploy",
    "security": "test_security_page.py",
    "troubleshoot": "test_troubleshoot_page.py",
    "upgrade": "tests/packaging/test_upgrade_page.py",
    "worker-protocol": "test_workers_page.py",
    "worker": "test_walkthroughs.py",
    "workers": "test_workers_page.py",
}


def approvals(reader: PageRun, page: str) -> str:
    """Three executions wait for a person."""
    reader.register(code_blocks(page, "yaml workflow")[0])
    reader.ids = iter([reader.start("examples/story") for _ in range(3)])
    return page


def archive(reader: PageRun, page: str) -> str:
    """A period is over. What the dry run shows is done, and undone; then a period is copied."""
    assert reader.database is not None
    reader.aside(ended_in(reader.database, LONG_AGO))
    reader.sql("update noetl.execution set ended_at = ended_at - interval '91 days'")
    dry_run, by_hand = code_blocks(page, "sh")
    [restore] = re.findall(r"`(noetl-broker archive --restore \d+)`", page)
    leave = dry_run.replace(" --dry-run", "")
    places = f"{find_bin_folder()}/\\1 --dbname '{reader.database.dsn}'"
    by_hand = re.sub(r"^(\w+)", places, by_hand.replace(", …", ""), flags=re.MULTILINE)
    commands = f"{dry_run}{leave}{restore}\n{leave}{by_hand}"
    return f"```sh\n{commands.replace(restore.split()[-1], LONG_AGO)}```\n"


def buckets(reader: PageRun, page: str) -> str:
    """The page's playbook is in the folder; the installation has a name of its own."""
    playbook = f"apiVersion: noetl.io/v1\nkind: Playbook\n{code_blocks(page, 'yaml')[0]}workflow: [{{step: start}}]\n"
    (reader.folder / "ship.yaml").write_text(playbook, encoding="utf-8")
    [make], starts = code_blocks(page, "sh"), code_blocks(page, "sql")
    commands = "".join(f"{line} --schema shop\n" for line in make.splitlines())
    return f"```sh\n{commands}```\n```sql\n{''.join(starts).replace('noetl.', 'shop.')}```\n"


def cookbook(reader: PageRun, page: str) -> str:
    """There is a table of payments, and an import has failed."""
    reader.sql("create schema shop; create table shop.payments (order_id bigint, amount numeric)")
    failing = "workflow: [{step: start, next: a}, {step: a, type: fail, error: a table does not exist}]\n"
    reader.register(failing, "examples/import_orders")
    reader.start("examples/import_orders")
    return page


def editor(reader: PageRun, page: str) -> str:
    """The playbook is in the folder."""
    (reader.folder / "hello.yaml").write_text(code_blocks(page, "yaml")[0], encoding="utf-8")
    return page


def graph(reader: PageRun, page: str) -> str:
    """The examples are in the folder; one is in the catalog, and runs."""
    shutil.copytree(playbooks_folder(), reader.folder / "playbooks")
    reader.run("noetl-broker register playbooks/diamond.yaml")
    reader.ids = itertools.repeat(reader.start("examples/diamond"))
    return page


def limits(reader: PageRun, page: str) -> str:
    """The job of one execution has the only slot of its limit; that of another waits."""
    reader.register(
        """
        workflow:
          - {step: start, next: charge}
          - {step: charge, type: http, url: "http://payments.example", next: end,
             throttle: {name: payments, concurrency: 1}}
          - {step: end}
        """,
        "billing",
    )
    reader.ids = itertools.repeat([reader.start("billing") for _ in range(2)][-1])
    return page


def scaling(reader: PageRun, page: str) -> str:
    """There is an execution, so it has a size."""
    reader.register("workflow: [{step: start}]\n")
    reader.start("examples/story")
    assert re.fullmatch(r"\d+ (kB|MB)", str(reader.sql(code_blocks(page, "sql")[0])[0][0][0]))
    return page


def schedules(reader: PageRun, page: str) -> str:
    """`register` puts the schedule of the page's playbook. It is deleted last; nobody waits for an execution."""
    (reader.folder / "nightly.yaml").write_text(code_blocks(page, "yaml")[0], encoding="utf-8")
    reader.run("noetl-broker register nightly.yaml")
    commands, delete = "".join(code_blocks(page, "sh")), "noetl-broker schedule delete nightly\n"
    [statements] = code_blocks(page, "sql")
    commands = commands.replace(delete, "").replace(" --wait", "")
    return f"```sh\n{commands}{delete}```\n```sql\n{statements}```\n"


def signals(reader: PageRun, page: str) -> str:
    """An execution waits."""
    reader.register("workflow: [{step: start, next: wait}, {step: wait, type: wait, signal: go}]\n")
    reader.ids = itertools.repeat(reader.start("examples/story"))
    return page


PREPARED: dict[str, Callable[[PageRun, str], str]] = {
    each.__name__: each
    for each in (approvals, archive, buckets, cookbook, editor, graph, limits, scaling, schedules, signals)
}


@pytest.mark.parametrize("name", PREPARED)
def test_the_commands_and_statements_of_a_page_run(reader: PageRun, name: str) -> None:
    """None fails, and files that they name are written."""
    text = PREPARED[name](reader, read_page(name))
    reader.page(text)
    assert [
        file
        for file in re.findall(r"(?:--output|--file|>) (\w\S+)", _commands(text))
        if not _is_full(reader.folder / file)
    ] == []


def _commands(page: str) -> str:
    return "".join(body for form, body in BLOCK.findall(page) if form in {"", "sh"})


def _is_full(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def test_each_page_with_commands_or_statements_is_run() -> None:
    """Here or elsewhere."""
    shown = {name for name in PAGES if re.search(r"^```(sh|sql|console)$|^\$ ", read_page(name), re.MULTILINE)}
    assert shown == PREPARED.keys() | ELSEWHERE.keys()


def test_each_command_of_the_checklist_exists() -> None:
    """With its options; each line of the list has one, and a page to read."""
    lines = table_rows(read_page("going-to-production"), "| what")
    commands = [re.findall(r"`(?:noetl-broker|curl) ([^`]+)`", shown) for _, shown, _ in lines]
    refused = [
        words
        for words in itertools.chain(*commands)
        if not words.startswith(("http", "--head"))
        and CliRunner().invoke(cli, [*words.split(), "--help"]).exit_code != 0
    ]
    assert (refused, all(commands), all("](" in page for *_, page in lines)) == ([], True, True)


def test_the_settings_of_an_editor_name_the_file_that_its_command_writes() -> None:
    """So does the first line of the playbook, which has no finding."""
    page = read_page("editor")
    [playbook], [settings] = code_blocks(page, "yaml"), code_blocks(page, "json")
    [file] = json.loads(settings)["yaml.schemas"]
    assert f"noetl-broker schema > {Path(file).name}\n" in page
    assert playbook.startswith(f"# yaml-language-server: $schema={Path(file).name}\n")
    assert check(playbook, file="page", rules=PlaybookRules()) == ()

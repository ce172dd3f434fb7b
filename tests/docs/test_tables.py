"""Tables that are a contract list exactly what the program has: settings, events, messages, states, limits, files."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from types import ModuleType
from typing import Any

import pytest

import noetl_broker
from noetl_broker import errors
from noetl_broker.broker import core, dispatcher, initial
from noetl_broker.broker.draft import draft, writes
from noetl_broker.broker.model.event_types import EVENT_TYPES, RECORDED
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.work import iterators
from noetl_broker.cli.replay.command import replay
from noetl_broker.cli.schema import schema
from noetl_broker.console import problem
from noetl_broker.diagram.labels import STATES
from noetl_broker.diagram.model import as_document
from noetl_broker.playbook import PlaybookRules
from noetl_broker.playbook.keywords import INPUT_WORDS
from noetl_broker.playbook.schedules import KEYS as SCHEDULE
from noetl_broker.playbook.step_types import OWN_KEYS
from noetl_broker.settings import Settings
from noetl_broker.store.admin.verify import CHECKS, TABLES, TURNS
from noetl_broker.store.connect.sqlstates import FAULT_CLASSES
from noetl_broker.template import budget, engine, grammar
from tests.brokers import value
from tests.docs.pages import CONTRIBUTING, DOCS, README, quoted, read_page, table, table_rows
from tests.docs.pictures import pictures
from tests.periods import partitions
from tests.postgres import Database
from tests.test_tidy import ROOT

PACKAGE = ROOT / "src" / "noetl_broker"


def test_each_setting_has_its_default_and_bounds() -> None:
    """In the order of the class."""
    listed = {name: cells[:2] for name, cells in table(read_page("settings"), "| setting |").items()}
    assert [*listed.items()] == [
        (name, [_plain(field.default), _bounds(name)]) for name, field in Settings.model_fields.items()
    ]


def _plain(default: Any) -> str:
    if default is None:
        return ""
    return f"`{json.dumps(sorted(default) if isinstance(default, frozenset) else default)}`"


def _bounds(name: str) -> str:
    found = Settings.model_json_schema()["properties"][name]
    found |= found.get("anyOf", [{}])[0]  # of what may be None
    if "enum" in found:
        return ", ".join(found["enum"])
    return f"{found['minimum']:.12g} to {found['maximum']:.12g}" if "minimum" in found else ""


def test_the_settings_called_rules_are_fields_of_rules() -> None:
    """An execution keeps exactly these."""
    [paragraph] = re.findall(r"are \*\*rules\*\*.*?\n\n(.*?)\n\n", read_page("settings"), re.DOTALL)
    assert quoted(paragraph) == {name for name in Settings.model_fields if name in Rules.__dataclass_fields__}


def test_each_event_type_is_listed_with_its_aliases() -> None:
    """Those that need a decision, and those that are recorded."""
    page = read_page("events")
    decided, recorded = (
        table(page.partition(f"## {heading}\n")[2], "| type |")
        for heading in ("What asks for a decision", "What is recorded")
    )
    assert {kind: quoted(cells[0]) for kind, cells in decided.items()} == {
        kind: {*aliases} for kind, aliases in EVENT_TYPES.items()
    }
    assert EVENT_TYPES.keys() == dispatcher.REACTIONS.keys()
    assert recorded.keys() == RECORDED


def test_each_outcome_is_listed() -> None:
    """The outcomes are read from the tables and the source of the core."""
    given = {
        writes.DECIDED,
        *_texts(dispatcher, ast.Return),
        *_texts(core, ast.Call),
        *_texts(initial, ast.Call),
        *(
            outcome
            for rows in (dispatcher.BY_STATUS, dispatcher.BY_VISIT)
            for row in rows.values()
            for outcome in row.values()
        ),
    }
    assert table(read_page("messages"), "| outcome |").keys() == given - {"reacts", "by visit", "by undo"}


def _texts(module: ModuleType, of: type[ast.AST]) -> Iterator[str]:
    """Yield the texts in the returns, or in the calls of Decision, of a module."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        match node:
            case ast.Return(value=ast.expr() as where) if of is ast.Return:
                pass
            case ast.Call(func=ast.Name(id="Decision"), args=[where, *_]) if of is ast.Call:
                pass
            case _:
                continue
        for part in [where.body, where.orelse] if isinstance(where, ast.IfExp) else [where]:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def test_each_code_is_listed() -> None:
    """Of the exit, of a database error with its remedy, and of a refused request."""
    page = read_page("messages")
    codes = {0, *(number for name, number in vars(errors).items() if name.startswith("EXIT_"))}
    assert {int(code) for code in table(page, "| code |")} == codes
    remedies = {state: cells[0] for state, cells in table(page, "| SQLSTATE |").items()}
    assert remedies == {state: fault_class.remedy.value for state, fault_class in FAULT_CLASSES.items()}
    assert {f"NB{status.value}" for _, status in problem.STATUSES} <= quoted(read_page("api"))


def test_each_invariant_and_each_option_of_replay_is_listed() -> None:
    """Options that all commands share are not."""
    page = read_page("replay")
    numbers = sorted((check.invariant for check in (*CHECKS, TABLES, TURNS)), key=lambda name: int(name[1:]))
    assert [row[0] for row in table_rows(page, "| invariant |")] == numbers
    shared = {option for parameter in schema.params for option in parameter.opts} | {"--dsn", "--schema"}
    options = {option for parameter in replay.params for option in parameter.opts if option.startswith("--")}
    assert {option for option in options - shared if option not in page} == set()


def test_each_state_and_each_key_of_a_graph_is_listed() -> None:
    """The keys are those of an execution's document."""
    page = read_page("graph")
    assert table(page, "| symbol |").keys() == {style.symbol for style in STATES.values()}
    document = as_document(dict(pictures())[DOCS / "pictures" / "graph-execution.svg"])
    nodes, arcs = document.pop("nodes"), document.pop("arcs")
    listed: dict[str, set[str]] = {"": set(), "node": set(), "arc": set()}
    for keys, of, _ in table_rows(page, "| key |"):
        listed[of] |= quoted(keys)
    assert listed == {"": {*document}, "node": {*nodes[0]}, "arc": {*arcs[0]}}


def test_the_bounds_of_playbooks_are_those_of_the_code() -> None:
    """By the name of a setting, a rule or a constant."""
    modules = (budget, grammar, engine, draft, iterators)
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    known = (
        {name: number for module in modules for name, number in vars(module).items()}
        | asdict(PlaybookRules())
        | settings
    )
    rows = [cells for name in PLAYBOOKS for cells in _rows(read_page(name), "| bound | value |")]
    written = {name: int(number) for text, number in rows for name in quoted(text)}
    assert written
    assert {name: known[name] for name in written} == written


PLAYBOOKS = ("playbooks", "joins", "iterators", "child-playbooks", "failures", "undo", "playbook-rules", "step-types")


def _rows(page: str, head: str) -> list[list[str]]:
    """Return the rows of all tables with this first line."""
    return [cells for part in page.split(f"\n{head}")[1:] for cells in table_rows(f"\n{head}{part}", head)]


def test_the_words_of_playbooks_are_those_of_the_code() -> None:
    """Step types, the words for inputs with the weakest first, and the keys of a schedule."""
    pages = "\n".join(map(read_page, PLAYBOOKS))
    types = {name for cells in _rows(pages, "| type | what it does |") for name in quoted(cells[0])}
    assert types
    assert types <= {*OWN_KEYS, "workbook"}
    assert f"`{' < '.join(INPUT_WORDS)}`" in pages.replace("\n", " ")
    assert table(read_page("schedules"), "| key |").keys() == SCHEDULE.known.keys() - {"description"}


def test_the_page_for_the_first_days_is_short() -> None:
    """What is rare has a page of its own."""
    assert len(read_page("playbooks").splitlines()) <= 350


def test_every_public_name_is_listed() -> None:
    """`noetl_broker` has each of them."""
    names = {*noetl_broker.__all__} - {"__version__"}
    assert names - quoted(read_page("python").split("## ")[0]) == set()
    assert [name for name in names if not hasattr(noetl_broker, name)] == []


@pytest.mark.parametrize(
    "row, used_in, pattern",
    [("channels", "migrations/*.sql", r"pg_notify\('noetl_(\w+)'"), ("roles", "deploy/roles.sql", r"'noetl_(\w+)'")],
)
def test_everything_that_has_the_name_of_the_schema_is_listed(row: str, used_in: str, pattern: str) -> None:
    """Of a schema `orders`: each channel that is notified, each role that is made."""
    [told] = re.findall(rf"^\| {row} \| (.*) \|$", read_page("run"), re.MULTILINE)
    used = {name for file in ROOT.glob(used_in) for name in re.findall(pattern, file.read_text(encoding="utf-8"))}
    assert quoted(told) == {f"orders_{name}" for name in used}


async def test_the_partitioned_tables_are_listed(database: Database) -> None:
    """In the section about periods."""
    [named] = re.findall(r"The tables of history \((.*?)\)", read_page("scaling"), re.DOTALL)
    period = await value(database, "select min(name) from noetl.period")
    assert sorted(quoted(named)) == await partitions(database, "noetl_history", str(period))


def test_the_layout_lists_each_file_and_folder() -> None:
    """Files of the package, two of which may share a line, and the folders beside it."""
    [layout] = re.findall(r"^## Layout\n\n```\n(.*?)^```", read_page("architecture"), re.DOTALL | re.MULTILINE)
    names = re.findall(r"^( *)(\w\S*(?:  \w+\.py)?)", layout, re.MULTILINE)
    inside = {name.rstrip("/") for indent, line in names if len(indent) == 2 for name in line.split()}
    assert inside == {entry.name for entry in PACKAGE.iterdir()} - {"__init__.py", "__pycache__", "py.typed"}
    assert [line for indent, line in names if not indent and not (ROOT / line).is_dir()] == []


@pytest.mark.parametrize("place, folder", [*enumerate(("broker", "history", "explain", "store", "daemon", "template"))])
def test_the_tables_of_modules_list_each_module(place: int, folder: str) -> None:
    """Each once."""
    rows = read_page("architecture").split("\n| module | what |\n")[1:][place].split("\n\n")[0].splitlines()[1:]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    files = (PACKAGE / folder).rglob("*.py") if folder in {"broker", "store"} else (PACKAGE / folder).glob("*.py")
    assert sorted(named) == sorted(file.stem for file in files if file.stem != "__init__")


def test_each_word_of_contributing_is_in_the_file_that_it_names() -> None:
    """A word that moves to another file moves on the page."""
    pairs = re.findall(r"`([\w.]+)`(?: in| of| \() ?`((?:src|tests|migrations|deploy)/[\w/.]+\.\w+)`", CONTRIBUTING)
    assert len(pairs) > 20
    missing = [
        (word, file)
        for word, file in pairs
        if word.removeprefix("noetl.") not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_each_make_target_exists() -> None:
    """Those of the README and of CONTRIBUTING."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", README + CONTRIBUTING)) - targets == set()

"""The rules of the house that no linter knows: who imports whom, what the core may touch, how long things are."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import asyncpg

import noetl_broker
from noetl_broker.store import queries
from noetl_broker.store.sql_text import split_statements
from tests.postgres import Database

PACKAGE = Path(noetl_broker.__file__).parent
ROOT = Path(__file__).parent.parent
FILE_LINES = 500
FUNCTION_LINES = 60

# Who may import whom; a part may always import itself. Values are passed down: only the outermost parts see settings.
LAYERS: dict[str, set[str]] = {
    "__init__": {"errors", "job", "simulation", "client", "worker"},
    "errors": set(),
    "job": set(),
    "resources": {"errors"},
    "times": set(),
    "visible": set(),
    "template": {"errors"},
    "playbook": {"errors", "template"},
    "broker": {"errors", "times", "template", "playbook"},
    "drawing": {"errors", "times", "visible", "template", "playbook", "broker"},
    "store": {"errors", "resources", "times", "template", "playbook", "broker"},
    "daemon": {"__init__", "errors", "template", "playbook", "broker", "store"},
    "worker": {"__init__", "errors", "job", "template", "playbook", "broker", "store"},
    "simulation": {"errors", "job", "template", "playbook", "broker"},
    "client": {"errors", "store"},
    "testing": {"__init__"},
    "settings": {"errors"},
    "logs": {"errors", "visible"},
    "tracing": {"__init__", "errors", "broker"},
}
LAYERS["cli"] = {*LAYERS}
LAYERS["__main__"] = {"cli"}

# What a decision may be made with: no clock, no die, no door.
PURE = {
    "__future__",
    "base64",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "functools",
    "graphlib",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "noetl_broker",
    "operator",
    "re",
    "string",
    "types",
    "typing",
    "uuid",
    "zlib",
}
IMPURE_NAMES = {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "input", "open", "print"}
IMPURE_ATTRIBUTES = {"fromtimestamp", "getnode", "now", "today", "utcnow", "uuid1", "uuid4"}

SQL_TEXT = re.compile(
    r"\s*(select|with|insert\s+into|update\s+\S+\s+set|delete\s+from|create\s+(table|index|schema|database|role|function)"
    r"|alter\s+(table|role|database)|drop\s+(table|index|schema|database|role)|truncate|listen|notify|set\s+local"
    r"|copy|grant|revoke|lock\s+table)\b.*",
    re.IGNORECASE | re.DOTALL,
)
# Whoever prints by one of these goes past what makes text visible (cli/output.py).
PRINTS = {"print", "echo", "secho", "echo_via_pager", "Console", "print_exc", "print_exception", "pprint"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
WRITES = {"write", "writelines", "buffer"}
# Functions whose statement has a part that no parameter can stand for, with the reason.
SQL_MADE_OF_PARTS: dict[str, str] = {
    "worker.save.insertions": "the playbook names the table and its columns; both are quoted as names",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file: `name` is its dotted name below the package, `part` the first word of it."""

    path: Path
    name: str
    part: str
    text: str
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        """Return where a node stands, as an editor understands it."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@cache
def modules() -> tuple[Module, ...]:
    """Return all modules of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        words = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(words[:-1] if words[-1] == "__init__" and len(words) > 1 else words)
        text = path.read_text(encoding="utf-8")
        found.append(Module(path=path, name=name, part=words[0], text=text, tree=ast.parse(text)))
    return tuple(found)


def imported(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each import with the dotted name of the module that it names; a name of a package counts as its module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node, full if below(full) in {other.name for other in modules()} else str(node.module)


def below(name: str) -> str:
    """Return a dotted name without the package's own; `__init__` for the package itself."""
    return name.removeprefix("noetl_broker").removeprefix(".") or "__init__"


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions and methods."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_imports_go_one_way() -> None:
    """Each part of the program imports only the parts that LAYERS allows it."""
    assert [
        f"{module.at(node)} {module.name} imports {name}"
        for module in modules()
        for node, name in imported(module)
        if name.split(".")[0] == "noetl_broker" and below(name).split(".")[0] not in {module.part} | LAYERS[module.part]
    ] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Inside a part as well there is an order in which its modules can be read."""
    names = {module.name for module in modules()}
    graph = {
        module.name: {below(name) for _, name in imported(module) if name.startswith("noetl_broker")} & names
        for module in modules()
        # A package's own file only repeats names of its modules.
        if module.path.name != "__init__.py"
    }
    try:
        order = [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        order = [f"circle: {' -> '.join(error.args[1])}"]
    assert [name for name in order if name.startswith("circle")] == []


def test_only_the_store_speaks_to_the_database() -> None:
    """The driver is imported in store/ and nowhere else."""
    assert [
        module.at(node)
        for module in modules()
        for node, name in imported(module)
        if name.split(".")[0] == "asyncpg" and module.part != "store"
    ] == []


def test_only_the_command_line_reads_a_command_line() -> None:
    """What draws, decides or remembers is called by programs as well."""
    assert [
        module.at(node)
        for module in modules()
        for node, name in imported(module)
        if name.split(".")[0] == "click" and module.part != "cli"
    ] == []


def test_the_core_imports_nothing_that_acts() -> None:
    """A decision has no clock, no die, no database and no log to reach for."""
    assert [
        f"{module.at(node)} {name}"
        for module in modules()
        if module.part == "broker"
        for node, name in imported(module)
        if name.split(".")[0] not in PURE
    ] == []


def test_the_core_calls_nothing_that_acts() -> None:
    """Nor does it wait, read the time, make an id, or change a global."""
    assert [
        module.at(node)
        for module in modules()
        if module.part == "broker"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Global)
        or (isinstance(node, ast.Name) and node.id in IMPURE_NAMES)
        or (isinstance(node, ast.Attribute) and node.attr in IMPURE_ATTRIBUTES)
    ] == []


def test_files_are_short() -> None:
    """A file that grows past the limit holds two subjects."""
    files = [path for pattern in ("*.py", "*.sql") for path in sorted(PACKAGE.rglob(pattern))]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


def test_functions_fit_a_screen() -> None:
    """A function that does not fit does several things."""
    assert {
        f"{module.at(node)} {node.name}": length
        for module in modules()
        for node in functions(module)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    } == {}


def test_imports_stand_at_the_top() -> None:
    """An import inside a function hides a dependency; only the command line and the package load when asked."""
    nested = {
        module.at(node)
        for module in modules()
        for function in functions(module)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    by_name = {
        module.at(node)
        for module in modules()
        if module.part not in {"cli", "__init__"}
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).split(".")[-1] == "import_module"
    }
    assert sorted(nested | by_name) == []


def test_every_module_begins_with_a_sentence() -> None:
    """The first line says to a stranger what the module is."""
    assert [
        module.at(module.tree)
        for module in modules()
        if not (ast.get_docstring(module.tree) or "").split("\n")[0].strip().endswith((".", ":"))
    ] == []


def test_sql_is_not_put_together() -> None:
    """Statements stand in store/sql; what is put together from parts can be broken by a part."""
    offenders = []
    for module in modules():
        for function in functions(module):
            name = f"{module.name}.{function.name}"
            texts = [node for node in ast.walk(function) if _is_sql_of_parts(node)]
            offenders += [f"{module.at(node)} {name}" for node in texts if name not in SQL_MADE_OF_PARTS]
    assert offenders == []


def _is_sql_of_parts(node: ast.AST) -> bool:
    """Tell whether a node is an f-string, `…%…`, `…+…` or `….format(…)` that begins as SQL does."""
    match node:
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            return SQL_TEXT.fullmatch(text) is not None
        case ast.BinOp(op=ast.Mod() | ast.Add(), left=ast.Constant(value=str(text))):
            return SQL_TEXT.fullmatch(text) is not None
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Constant(value=str(text)))):
            return SQL_TEXT.fullmatch(text) is not None
    return False


def printing(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what writes to a standard stream by itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in PRINTS:
                yield node
        elif isinstance(node, ast.Attribute) and node.attr in WRITES and getattr(node.value, "attr", "") in STREAMS:
            yield node


def test_only_one_module_prints() -> None:
    """So that no command can forget to make visible what it prints."""
    assert [
        module.at(node) for module in modules() if module.name != "cli.output" for node in printing(module.tree)
    ] == []


def test_a_new_way_to_print_is_found() -> None:
    """Each of these would bypass the one module."""
    ways = ("click.echo(x)", "print(x)", "sys.stdout.write(x)", "sys.stderr.buffer", "Console()", "click.secho(x)")
    assert [way for way in ways if not [*printing(ast.parse(way))]] == []


def test_every_statement_is_used() -> None:
    """A named statement that no module names is dead."""
    assert sorted(set(queries.load()) - _texts()) == []


def _texts() -> set[str]:
    nodes = (node for module in modules() for node in ast.walk(module.tree))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


async def test_every_statement_prepares(database: Database) -> None:
    """Postgres understands each one on the migrated schema: its names, its parameters and their types."""
    connection = await asyncpg.connect(database.dsn)
    faults = {}
    for name, text in queries.load().items():
        for statement in split_statements(text):
            try:
                await connection.prepare(statement)
            except asyncpg.PostgresError as error:
                faults[name] = str(error)
    await connection.close()
    assert faults == {}


# Written in pieces, so that this file does not name what it forbids.
_MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|tmp|home|Users)/\w")
_REGISTRY = re.compile(r"\b(?:(?:pypi|pythonhosted|npmjs|debian|golang)\.org|(?:docker|ghcr|quay|crates)\.io)\b")


def test_no_file_knows_a_machine_or_a_registry() -> None:
    """The project is built wherever Python is, with the package sources that are configured there."""
    offenders = []
    for path in project_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, start=1):
            if _MACHINE_PATH.search(line) or _REGISTRY.search(line):
                offenders.append(f"{path.relative_to(ROOT)}:{number} {line.strip()}")
    assert offenders == []


def project_files() -> list[Path]:
    """Return the files of the project: what git would track, or (without git) all but what tools leave behind."""
    answer = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - git of the machine
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode == 0 and answer.stdout:
        paths = [ROOT / name for name in answer.stdout.split("\0") if name]
        return [path for path in paths if path.is_file()]
    found = []
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = [name for name in subfolders if name in {".ci", ".github"} or not name.startswith((".", "__"))]
        found += [Path(folder) / name for name in names]
    return found

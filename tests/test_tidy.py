"""The project's own rules: imports between packages, the purity of the core, lengths, and where SQL is written."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import asyncpg
import pytest

import noetl_broker
from noetl_broker.sql_text import split_statements
from noetl_broker.store import queries
from noetl_broker.store.connect.migrations import compat_noetl, of_bucket
from tests.postgres import Database, asyncpg_connect

PACKAGE = Path(noetl_broker.__file__).parent
ROOT = Path(__file__).parent.parent
FILE_LINES = 500
FUNCTION_LINES = 60
SQL_LINES = 120  # of a function in migrations, and of a named statement
SQL_FUNCTION = re.compile(r"^create or replace function ([\w.]+).*?^\$\$;$", re.MULTILINE | re.DOTALL)
SQL_STATEMENT = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)

# What each package may import beside itself. Only `cli` sees settings; it passes values down.
LAYERS: dict[str, set[str]] = {
    "__init__": {"errors", "job", "testing", "client", "sync_client", "worker"},
    "commands": set(),
    "errors": set(),
    "job": {"node_ids"},
    "node_ids": {"errors"},
    "compiled_form": set(),
    "resources": {"errors"},
    "sql_text": set(),
    "text": set(),
    "visible": set(),
    "growing_pauses": set(),
    "tasks": set(),
    "template": {"errors"},
    "playbook": {"errors", "node_ids", "template"},
    "broker": {"errors", "node_ids", "text", "template", "playbook"},
    "history": {"errors", "node_ids", "text", "visible", "template", "playbook", "broker"},
    "explain": {"errors", "node_ids", "text", "template", "playbook", "broker", "history"},
    "diagram": {"errors", "node_ids", "text", "visible", "template", "playbook", "broker", "history"},
    "store": {
        *(
            "__init__",
            "commands",
            "errors",
            "node_ids",
            "resources",
            "sql_text",
            "text",
            "template",
            "playbook",
            "broker",
            "history",
            "explain",
        ),
        "growing_pauses",
        "tasks",
    },
    "embedded_postgres": {"errors"},
    "tracing": {"__init__", "errors", "text", "template", "playbook", "broker"},
    "daemon": {
        "__init__",
        "errors",
        "logs",
        "node_ids",
        "template",
        "playbook",
        "broker",
        "store",
        "tracing",
        "growing_pauses",
        "tasks",
    },
    "worker": {
        "__init__",
        "errors",
        "job",
        "node_ids",
        "sql_text",
        "template",
        "playbook",
        "broker",
        "store",
        "tracing",
        "growing_pauses",
        "tasks",
    },
    "testing": {"errors", "job", "node_ids", "template", "playbook", "broker", "history"},
    "client": {"errors", "template", "broker", "service", "store"},
    "sync_client": {"client", "store"},
    "service": {
        "errors",
        "node_ids",
        "text",
        "template",
        "playbook",
        "broker",
        "history",
        "explain",
        "diagram",
        "store",
        "testing",
    },
    "pytest_plugin": {"__init__"},
    "dev_folder": {"errors"},
    "dev": {
        *("errors", "tasks", "text", "resources", "playbook", "broker", "explain", "embedded_postgres"),
        *("store", "service", "daemon", "worker", "dev_folder"),
    },
    "settings": {"errors", "store", "dev_folder", "template"},
    "logs": {"errors", "visible"},
}
LAYERS["console"] = {
    *(
        "__init__",
        "errors",
        "node_ids",
        "text",
        "visible",
        "template",
        "playbook",
        "broker",
        "history",
        "explain",
        "diagram",
    ),
    *("store", "service", "testing", "client", "growing_pauses", "tasks"),
}
LAYERS["cli"] = {*LAYERS}
LAYERS["__main__"] = {"cli"}

# The folders of a package and the modules beside them, from the ground up: each imports only what stands below it.
FLOORS: dict[str, tuple[set[str], ...]] = {
    "broker": (
        {"model"}, {"state"}, {"draft"}, {"writing"}, {"undo"}, {"flow"}, {"waits", "work"},
        {"arrivals", "compensation"}, {"finalize", "holds"}, {"initial"}, {"dispatcher"}, {"core"},
    ),
    "store": ({"json_codec", "row_layout"}, {"queries"}, {"connect"}, {"turn", "worker"}, {"admin"}),
}  # fmt: skip

# The faces of the service. They import it, and of the store only connections.
FACES = ("client", "sync_client", "cli.", "console.agents.", "console.api.", "console.pages.")
# These are no faces: what they do, no other face does.
NO_FACES = {
    *("cli.archive", "cli.demo", "cli.dev", "cli.doctor"),
    *("cli.migrate", "cli.run", "cli.worker", "cli.console"),
}
# These serve one face alone: a stream of what changes, the completion of a shell, the counts of the navigation, and in
# the client the type of an approval.
OF_ONE_FACE = {
    *("cli.arguments", "cli.logs", "cli.start", "cli.status_view", "cli.tail", "console.api.changes"),
    *("console.pages.attention", "client"),
}

# The pure packages (no clock, randomness or I/O), and the libraries that they may import.
PURE_PARTS = {"broker", "history", "explain"}
PURE_LIBRARIES = {
    "__future__",
    "base64",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
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
    "textwrap",
    "types",
    "typing",
    "uuid",
    "yaml",
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
# These print without cli/output.py, which makes control characters visible.
PRINTS = {"print", "echo", "secho", "echo_via_pager", "Console", "print_exc", "print_exception", "pprint"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
WRITES = {"write", "writelines", "buffer"}
# Functions whose statement has a part that cannot be a parameter, with the reason.
SQL_MADE_OF_PARTS: dict[str, str] = {
    "store.connect.connection.call": "the name of a function stands in the program, and its arguments are parameters",
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
        """Return the place of a node as `file:line`."""
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
    """Yield each import with the dotted name of its module; for a name of a package, that of the package."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node, full if below(full) in {other.name for other in modules()} else str(node.module)


def below(name: str) -> str:
    """Return a dotted name below the package; `__init__` for the package itself."""
    return name.removeprefix("noetl_broker").removeprefix(".") or "__init__"


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions and methods."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_imports_go_one_way() -> None:
    """Each package imports only what LAYERS allows."""
    assert [
        f"{module.at(node)} {module.name} imports {name}"
        for module in modules()
        for node, name in imported(module)
        if name.split(".")[0] == "noetl_broker" and below(name).split(".")[0] not in {module.part} | LAYERS[module.part]
    ] == []


def test_no_modules_import_each_other() -> None:
    """The modules of a package have an order of reading."""
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


@pytest.mark.parametrize("package", FLOORS)
def test_no_folder_imports_one_above_it(package: str) -> None:
    """A reader begins with the first."""
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS[package]) for room in rooms}
    assert [
        f"{module.at(node)} {name}"
        for module in modules()
        if module.name.startswith(f"{package}.")
        for node, name in imported(module)
        if name.startswith(f"noetl_broker.{package}.")
        for own, other in [(module.name.split(".")[1], below(name).split(".")[1])]
        if own != other and floor_of[other] >= floor_of[own]
    ] == []


def test_a_face_asks_the_service_and_not_the_store() -> None:
    """So a rule, a bound or a statement stands once."""
    assert [
        f"{module.at(node)} {name}"
        for module in modules()
        if module.name.startswith(FACES) and module.name not in NO_FACES | OF_ONE_FACE
        for node, name in imported(module)
        if name.startswith("noetl_broker.store.") and not name.startswith("noetl_broker.store.connect.")
    ] == []


def test_only_the_store_uses_the_driver() -> None:
    """The driver is imported in store/ and, for the worker's `postgres` step, in worker/sql/."""
    assert [
        module.at(node)
        for module in modules()
        for node, name in imported(module)
        if name.split(".")[0] == "asyncpg" and module.part != "store" and not module.name.startswith("worker.sql.")
    ] == []


def test_only_the_command_line_uses_click() -> None:
    """Programs call the other packages, too."""
    assert [
        module.at(node)
        for module in modules()
        for node, name in imported(module)
        if name.split(".")[0] == "click" and module.part != "cli"
    ] == []


def test_only_the_console_uses_its_extra() -> None:
    """A plain install has no FastAPI."""
    assert [
        module.at(node)
        for module in modules()
        for node, name in imported(module)
        if name.split(".")[0] in {"fastapi", "mcp", "mcp_types", "starlette", "uvicorn"} and module.part != "console"
    ] == []


def test_the_core_imports_only_pure_libraries() -> None:
    """Decisions use no clock, randomness, database or log."""
    assert [
        f"{module.at(node)} {name}"
        for module in modules()
        if module.part in PURE_PARTS
        for node, name in imported(module)
        if name.split(".")[0] not in PURE_LIBRARIES
    ] == []


def test_the_core_calls_only_pure_functions() -> None:
    """Decisions do not wait, read the time, make random ids, or change globals."""
    assert [
        module.at(node)
        for module in modules()
        if module.part in PURE_PARTS
        for node in ast.walk(module.tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Global)
        or (isinstance(node, ast.Name) and node.id in IMPURE_NAMES)
        or (isinstance(node, ast.Attribute) and node.attr in IMPURE_ATTRIBUTES)
    ] == []


def test_files_are_short() -> None:
    """A longer file has two subjects."""
    files = [path for pattern in ("*.py", "*.sql") for path in sorted(PACKAGE.rglob(pattern))]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


def test_functions_are_short() -> None:
    """A longer function does several things."""
    assert {
        f"{module.at(node)} {node.name}": length
        for module in modules()
        for node in functions(module)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    } == {}


def test_imports_are_at_the_top() -> None:
    """An import in a function hides a dependency.

    Only the command line and the package load names on demand; so do the processes of python steps, to be forked fast.
    """
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
        if module.part not in {"cli", "__init__"} and not module.name.startswith("worker.tools.python_")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).split(".")[-1] == "import_module"
    }
    assert sorted(nested | by_name) == []


def test_every_module_begins_with_a_sentence() -> None:
    """The first line says what the module is."""
    assert [
        module.at(module.tree)
        for module in modules()
        if not (ast.get_docstring(module.tree) or "").split("\n")[0].strip().endswith((".", ":"))
    ] == []


def test_a_class_name_names_one_class() -> None:
    """So a reader who looks a name up finds the class that is meant."""
    homes: dict[str, list[str]] = {}
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module.name)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_sql_is_not_built_from_strings() -> None:
    """Statements are in store/sql. A statement that is built from parts can be broken by a part."""
    offenders = []
    for module in modules():
        for function in functions(module):
            name = f"{module.name}.{function.name}"
            texts = [node for node in ast.walk(function) if _is_sql_of_parts(node)]
            offenders += [f"{module.at(node)} {name}" for node in texts if name not in SQL_MADE_OF_PARTS]
    assert offenders == []


def _is_sql_of_parts(node: ast.AST) -> bool:
    """Tell whether a node is an f-string, `…%…`, `…+…` or `….format(…)` that begins like SQL."""
    match node:
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            return SQL_TEXT.fullmatch(text) is not None
        case ast.BinOp(op=ast.Mod() | ast.Add(), left=ast.Constant(value=str(text))):
            return SQL_TEXT.fullmatch(text) is not None
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Constant(value=str(text)))):
            return SQL_TEXT.fullmatch(text) is not None
    return False


def printing(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield writes to a standard stream."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in PRINTS:
                yield node
        elif isinstance(node, ast.Attribute) and node.attr in WRITES and getattr(node.value, "attr", "") in STREAMS:
            yield node


def test_only_one_module_prints() -> None:
    """So each command makes control characters visible."""
    assert [
        module.at(node) for module in modules() if module.name != "cli.output" for node in printing(module.tree)
    ] == []


def test_a_new_way_to_print_is_found() -> None:
    """Each of these bypasses the output module."""
    ways = ("click.echo(x)", "print(x)", "sys.stdout.write(x)", "sys.stderr.buffer", "Console()", "click.secho(x)")
    assert [way for way in ways if not [*printing(ast.parse(way))]] == []


def test_every_statement_is_used() -> None:
    """A statement that no module names is dead code."""
    assert sorted(set(queries.load()) - _texts()) == []


def _texts() -> set[str]:
    nodes = (node for module in modules() for node in ast.walk(module.tree))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_no_sql_function_or_statement_is_long() -> None:
    """A longer function or statement must be split."""
    texts: dict[str, str] = {}
    for file in (ROOT / "migrations").glob("*.sql"):
        texts |= {found[1]: found[0] for found in SQL_FUNCTION.finditer(file.read_text(encoding="utf-8"))}
    for file in (ROOT / "src/noetl_broker/store/sql").glob("*/*.sql"):
        _, *parts = SQL_STATEMENT.split(file.read_text(encoding="utf-8"))
        texts |= dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    lengths = {name: len(text.splitlines()) for name, text in texts.items()}
    assert {name: length for name, length in lengths.items() if length > SQL_LINES} == {}


async def test_every_statement_prepares(database: Database) -> None:
    """Postgres can PREPARE each statement on the migrated schema."""
    connection = await asyncpg_connect(database)
    await connection.execute(compat_noetl().text)
    installation = (ROOT / "migrations/installation.sql").read_text(encoding="utf-8")
    await connection.execute(installation.replace("{buckets}", "4"))
    await connection.execute(of_bucket().numbered(0, 4).text)
    faults = {}
    of_citus = {*SQL_STATEMENT.findall((PACKAGE / "store/sql/admin/citus.sql").read_text(encoding="utf-8"))}
    for name, text in queries.load().items():
        if name in of_citus:  # tests/store/test_citus.py runs them
            continue
        for statement in split_statements(text):
            try:
                await connection.prepare(statement)
            except asyncpg.PostgresError as error:
                faults[name] = str(error)
    await connection.close()
    assert faults == {}


# Public, although they begin with an underscore: of named tuples and enums, and the end of a forked process.
PUBLIC = {"_asdict", "_exit", "_field_defaults", "_fields", "_make", "_name_", "_replace"}
DEFINITION = re.compile(r"(?:def|class)\s+(_\w+)|(?:self|cls)\.(_\w+)\s*[:=]|^\s*(_\w+)\s*[:=]", re.MULTILINE)
# The only way to hear what the server logs on connections of a pool that the daemon makes.
REPLACED = {"tests/daemon/lanes/test_access_by_execution.py asyncpg.create_pool"}


def own_names(texts: Iterable[str]) -> set[str]:
    """Return the names with an underscore that our code defines."""
    return {name for text in texts for names in DEFINITION.findall(text) for name in names}


def library_internals(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Yield each private name of a library that a module reads, and each name of a library that it replaces."""

    def is_private(name: str) -> bool:
        return name.startswith("_") and not name.startswith("__") and name not in PUBLIC | own

    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    libraries = {alias.asname or alias.name.split(".")[0] for node in imports for alias in node.names} - {"sys"}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names if is_private(alias.name))
            case ast.Attribute(value=value, attr=name) if is_private(name) and ast.unparse(value) != "self":
                yield ast.unparse(node)
            case ast.Attribute(value=value, ctx=ast.Store()) if ast.unparse(value).split(".")[0] in libraries:
                yield ast.unparse(node)
            case ast.Call(func=func, args=[target, ast.Constant(value=str(name)), *_]):
                verb = ast.unparse(func).split(".")[-1]
                replaces = verb in {"setattr", "delattr"} and ast.unparse(target).split(".")[0] in libraries
                if replaces or (verb in {"setattr", "delattr", "getattr"} and is_private(name)):
                    yield f"{ast.unparse(target)}.{name}"


def test_no_test_reads_or_replaces_what_a_library_keeps_for_itself() -> None:
    """A test that does may fail with the next version of the library. That says nothing about the program."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}
    own = own_names([*texts.values(), *(module.text for module in modules())])
    found = {
        f"{path.relative_to(ROOT)} {name}" for path in texts for name in library_internals(ast.parse(texts[path]), own)
    }
    assert found == REPLACED


@pytest.mark.parametrize(
    "source, found",
    [
        ("import subprocess\nrun = subprocess._fork_exec", "subprocess._fork_exec"),
        ("import asyncpg\nasyncpg.Connection._introspect_types = f", "asyncpg.Connection._introspect_types"),
        ("import asyncio\nasyncio.run = f", "asyncio.run"),
        ("import asyncpg\nmonkeypatch.setattr(asyncpg, 'connect', f)", "asyncpg.connect"),
        ("getattr(connection, '_protocol')", "connection._protocol"),
        ("from asyncpg import _testbase", "asyncpg._testbase"),
        ("from noetl_broker.daemon import batch\nbatch.DECIDE_SECONDS = 1.0", None),
        ("class A:\n    def __init__(self):\n        self._own = 1\nA()._own", None),
    ],
)
def test_a_use_of_what_a_library_keeps_for_itself_is_found(source: str, found: str | None) -> None:
    """Names of our own are free."""
    assert next(library_internals(ast.parse(source), own_names([source])), None) == found


# Written in pieces, so that this file does not name what it forbids.
_MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|tmp|home|Users)/\w")
_REGISTRY = re.compile(r"\b(?:(?:pypi|pythonhosted|npmjs|debian|golang)\.org|(?:docker|ghcr|quay|crates)\.io)\b")


def test_no_file_names_a_machine_or_a_registry() -> None:
    """The project builds with the package index that a machine has configured."""
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
    """Return the files of the project: those of git, or without git all except caches of tools."""
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

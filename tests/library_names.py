"""Finds where a test reads or replaces what a library keeps for itself.

Two looks: a path that begins at an import of a library, and a private name that no code of ours defines.
"""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType

OWN = {"__future__", "benchmarks", "hatch_build", "noetl_broker", "tests"}
# Public, although they begin with an underscore: of named tuples, and the end of a forked process.
PUBLIC = {"_asdict", "_exit", "_field_defaults", "_fields", "_make", "_replace"}
REPLACEABLE = {"sys.argv", "sys.stderr", "sys.stdin", "sys.stdout"}  # data that Python lets a program replace
READS_BY_NAME = {"attrgetter", "getattr", "hasattr", "methodcaller"}
REPLACES_BY_NAME = {"delattr", "object", "patch", "setattr"}  # of Python, of monkeypatch and of unittest.mock


def is_private(name: str) -> bool:
    """Tell whether a name begins with one underscore; `__name__` and `_name_` of an enum have another meaning."""
    return name.startswith("_") and not name.startswith("__") and not name.endswith("_") and name not in PUBLIC


def defined_names(trees: Iterable[ast.Module]) -> set[str]:
    """Return the private names that our code defines: functions, classes, fields, module variables."""
    found = set()
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(name)
                case ast.ClassDef(name=name, body=body):
                    found |= {name, *_assigned(body)}
                case ast.Module(body=body):
                    found |= {*_assigned(body)}
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                    found.add(name)
    return {name for name in found if is_private(name)}


def _assigned(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def uses_of_libraries(tree: ast.Module, defined: set[str]) -> Iterator[tuple[int, str]]:
    """Yield the line of each use with the name that is read or replaced, in the order of `ast.walk`."""
    nodes = [*ast.walk(tree)]
    names = {name: path for node in nodes for name, path in _imported(node)}
    for node in nodes:  # another name of a library is that library
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if path := _path(value, names):
                names.setdefault(name, path)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if path := _path(value, names):
                names.setdefault(name, path)
    for node in nodes:
        for found in (*_private_imports(node), *_uses(node, names, defined)):
            yield getattr(node, "lineno", 0), found


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each name of an import with its dotted path."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            yield name, alias.name if alias.asname else name
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _private_imports(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=parts):
            paths = [part.name for part in parts]
        case ast.ImportFrom(module=str(module), names=parts):
            paths = [f"{module}.{part.name}" for part in parts]
        case _:
            return
    yield from (path for path in paths if not _is_own(path) and any(map(is_private, path.split("."))))


def _is_own(path: str) -> bool:
    return path.partition(".")[0] in OWN


def _path(node: ast.AST, names: Mapping[str, str]) -> str:
    """Return the dotted path that an expression has from an import on; empty if it has none."""
    base, name = "", ""
    match node:
        case ast.Name(id=own):
            base = names.get(own, "")
        case ast.Attribute(value=value, attr=name):
            base = _path(value, names)
        case ast.Call(func=func, args=[value] | [_, value]) if _last(func) in {"cast", "vars"}:
            base = _path(value, names)
        case ast.Call(func=func, args=[ast.Constant(value=str(module))]) if _last(func) == "import_module":
            base = module
        case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name)), *_]):
            base = _path(value, names)
        case ast.Subscript(value=value, slice=ast.Constant(value=str(module))):
            base = module if _path(value, names) == "sys.modules" else ""
    return f"{base}.{name}" if base and name else base


def _last(node: ast.AST) -> str:
    """Return the last word of a name with dots."""
    return node.attr if isinstance(node, ast.Attribute) else str(getattr(node, "id", ""))


def _is_library(path: str) -> bool:
    """Tell whether a path ends at a library, also through a module of ours that imports it."""
    if not _is_own(path):
        return path != ""
    found = _resolved(path)
    home = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", "noetl_broker")
    return isinstance(found, ModuleType | type) and not _is_own(str(home))


def _resolved(path: str) -> object:
    """Return what a dotted path names; None if it names nothing."""
    try:
        return pkgutil.resolve_name(path)
    except (AttributeError, ImportError):
        return None


def _uses(node: ast.AST, names: Mapping[str, str], defined: set[str]) -> Iterator[str]:
    match node:
        case ast.Attribute(value=value, attr=name) if is_private(name):
            if name not in defined or _is_library(_path(value, names)):
                yield ast.unparse(node)
        case ast.Attribute(value=value, attr=name, ctx=ast.Store() | ast.Del()):
            path = _path(value, names)
            if _is_library(path) and f"{path}.{name}" not in REPLACEABLE:
                yield ast.unparse(node)
        case ast.Subscript(value=value, slice=ast.Constant(value=str(name)), ctx=ctx) if _is_namespace(value):
            path = _path(value, names).removesuffix(".__dict__")
            if _is_library(path) and (is_private(name) or not isinstance(ctx, ast.Load)):
                yield ast.unparse(node)
        case ast.Call(func=func, args=args) if _last(func) in READS_BY_NAME | REPLACES_BY_NAME:
            if _is_by_name(_last(func), args, names, defined):
                yield ast.unparse(node)
        case ast.ClassDef(bases=bases, body=body):
            yield from _overridden(node.name, [_path(base, names) for base in bases], body)


def _is_namespace(node: ast.AST) -> bool:
    return (isinstance(node, ast.Call) and _last(node.func) == "vars") or _last(node) == "__dict__"


def _is_by_name(function: str, args: list[ast.expr], names: Mapping[str, str], defined: set[str]) -> bool:
    """Tell whether a call such as `setattr` names something private, or replaces something of a library."""
    replaces = function in REPLACES_BY_NAME
    match args:
        case [ast.Constant(value=str(name)), *_] if function != "getattr":
            path, _, last = name.rpartition(".")
            return (is_private(last) and last not in defined) or (replaces and _is_library(path))
        case [target, ast.Constant(value=str(name)), *_]:
            path = _path(target, names)
            is_replaced = replaces and f"{path}.{name}" not in REPLACEABLE
            return (is_private(name) and name not in defined) or (
                _is_library(path) and (is_private(name) or is_replaced)
            )
        case [target, _, *_]:
            return replaces and _is_library(_path(target, names))
    return False


def _overridden(name: str, bases: list[str], body: list[ast.stmt]) -> Iterator[str]:
    """Yield the private names of a library's class that a subclass replaces."""
    for base in (base for base in bases if _is_library(base)):
        functions = {each.name for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        for each in sorted(filter(is_private, functions | {*_assigned(body)})):
            if hasattr(_resolved(base), each):
                yield f"{name}.{each}"

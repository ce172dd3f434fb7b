"""docs/messages.md lists every outcome, exit code and database error that the program knows."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

from noetl_broker import errors
from noetl_broker.broker import core, dispatcher, draft, initial
from noetl_broker.store.sqlstates import FAULT_CLASSES
from tests.docs.pages import read_page, table

PAGE = read_page("messages")


def _texts(module: ModuleType, of: type[ast.AST]) -> Iterator[str]:
    """Yield the texts in the returns, or in the calls of Decision, of a module."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, of):
            continue
        if isinstance(node, ast.Return) and node.value is not None:
            where: ast.AST = node.value
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Decision" and node.args
        ):
            where = node.args[0]
        else:
            continue
        if isinstance(where, ast.IfExp):
            parts = [where.body, where.orelse]
        else:
            parts = [where] if isinstance(where, ast.Constant) else []
        yield from (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_each_outcome_is_listed() -> None:
    """The outcomes are read from the tables and the source of the core."""
    given = {
        draft.DECIDED,
        *_texts(dispatcher, ast.Return),
        *_texts(core, ast.Call),
        *_texts(initial, ast.Call),
        *(
            outcome
            for rows in (dispatcher.BY_STATUS, dispatcher.BY_VISIT)
            for row in rows.values()
            for outcome in row.values()
        ),
    } - {"reacts", "by visit"}
    assert table(PAGE, "| outcome |").keys() == given


def test_each_exit_code_is_listed() -> None:
    """The codes are those of errors.py."""
    codes = {0, *(number for name, number in vars(errors).items() if name.startswith("EXIT_"))}
    assert {int(code) for code in table(PAGE, "| code |")} == codes


def test_each_database_error_has_its_remedy() -> None:
    """SQLSTATE, remedy, and the text of the log."""
    assert table(PAGE, "| SQLSTATE |") == {
        state: [fault_class.remedy.value, fault_class.reason] for state, fault_class in FAULT_CLASSES.items()
    }

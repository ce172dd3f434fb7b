"""Looks into the programs of python steps: syntax, `main`, and whether its parameters and the inputs fit.

A registered version is never refused for it: compiling does not call this. Only what fails in every run is an error.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from noetl_broker.playbook.diagnostics import Position
from noetl_broker.playbook.keywords import LOOP_NAME
from noetl_broker.playbook.model import Playbook, Step
from noetl_broker.playbook.reader import Program, Reading
from noetl_broker.playbook.scopes import Scopes
from noetl_broker.playbook.template_reads import ARGS

COST_OF_CHAR = 2  # units of work: to compile one character of a program
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # of YAML
MAIN, RESULT = "main", "result"
# Parameters that get all inputs, and what every job has in its context (worker/tools/python_child.py).
WHOLE_INPUTS = frozenset({"input_data", "args", "data", "input", "params", "payload"})
OF_CONTEXT = frozenset({"context", "workload", "path", "version", "catalog_id", "step_name", "execution_id", "visit"})
OF_DEFERRED = frozenset({"results", "result", "outcomes", "words", "unfinished"})  # if the job has deferred strings
REFLECTIVE = frozenset({"exec", "eval", "globals", "locals", "vars", "setattr", "__import__"})
PYTHON = f"Python {sys.version_info[0]}.{sys.version_info[1]}"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class DocumentLines(NamedTuple):
    """The lines of a document, which say where a line of a program is."""

    lines: list[str]

    def where(self, reading: Reading, program: Program, line: int, column: int) -> Position:
        """Give the position in the document of a line and a column (from 1) of a program; else its key's position."""
        at = reading.report.positions.where(program.location)
        if not program.is_plain:
            return at
        written = program.text.splitlines()[line - 1 : line]
        if not written or at[0] > len(self.lines):
            return at
        start = self.lines[at[0] - 1][at[1] - 1 :]
        number = at[0] + line if start.startswith(("|", ">")) else at[0] + line - 1
        if number > len(self.lines):
            return at
        found = self.lines[number - 1].find(written[0], at[1] - 1 if number == at[0] else 0)
        return (number, found + column) if found >= 0 else at


def check_python_steps(reading: Reading, playbook: Playbook, text: str) -> None:
    """Report what is wrong in the programs of a document's python steps."""
    if not reading.programs:
        return
    source = DocumentLines(LINE_BREAK.split(text))
    scopes = Scopes(reading, playbook.steps)
    for program in reading.programs:
        reading.work.spend(COST_OF_CHAR * len(program.text))
        module = _parse(reading, source, program)
        if module is None or program.step not in playbook.steps:
            continue
        defined = _defined(module)
        if defined is None:
            continue
        if defined.keys().isdisjoint({MAIN, RESULT} | program.libs):
            reading.report.error(
                "no-main",
                program.location,
                f"the code of the python step `{program.step}` defines neither a function main() nor a name `result`",
                "write def main(): …, with a parameter for each input",
            )
        main = defined.get(MAIN)
        if isinstance(main, Function) and not main.decorator_list and not reading.broken:
            _check_inputs(reading, source, (program, playbook.steps[program.step], main, module), scopes)


def _parse(reading: Reading, source: DocumentLines, program: Program) -> ast.Module | None:
    """Give the syntax tree of a program; report an error and give None if it does not compile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(program.text, "<step>", "exec", dont_inherit=True)
            return ast.parse(program.text)
    except SyntaxError as error:
        at = source.where(reading, program, error.lineno or 1, error.offset or 1)
        what = error.msg
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        at, what = reading.report.positions.where(program.location), str(error) or type(error).__name__
    message = f"the code of the python step `{program.step}` does not compile: {what}"
    reading.report.error_at("bad-code", program.location, at, message, f"correct it; it was read as {PYTHON}")
    return None


def _defined(module: ast.Module) -> dict[str, ast.AST | None] | None:
    """Give the names that a module defines with their only definition, None for several; None if nobody can know."""
    found: dict[str, ast.AST | None] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Global) and not {MAIN, RESULT}.isdisjoint(node.names):
            return None
        if isinstance(node, ast.Name) and node.id in REFLECTIVE:
            return None
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return None
    for node in _own_nodes(module):
        for name in _bound(node):
            found[name] = None if name in found else node
    return found


def _own_nodes(module: ast.Module) -> Iterator[ast.AST]:
    """Give the nodes of a module outside of its functions and classes, with their definitions."""
    todo: list[ast.AST] = [*module.body]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, Scope):
            todo.extend(ast.iter_child_nodes(node))


def _bound(node: ast.AST) -> tuple[str, ...]:
    """Give the names that a node binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return (node.id,)
    if isinstance(node, ast.alias):
        return ((node.asname or node.name).partition(".")[0],)
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return (node.name,) if node.name else ()
    return (node.rest,) if isinstance(node, ast.MatchMapping) and node.rest else ()


Called = tuple[Program, Step, Function, ast.Module]


def _check_inputs(reading: Reading, source: DocumentLines, called: Called, scopes: Scopes) -> None:
    """Report parameters of `main` that no input fills, and inputs that nothing reads."""
    program, step, main, module = called
    iteration = step.iteration
    if program.is_nested and (iteration is None or not iteration.expanded):
        return  # a worker merges the inputs of this task
    seen = scopes.of_fields(step)
    if not seen.complete:
        return
    of_items = frozenset({iteration.element, LOOP_NAME}) if iteration is not None else frozenset()
    given = seen.possible | of_items | OF_CONTEXT | WHOLE_INPUTS
    deferred = step.fields.deferred if iteration is None else (iteration.element,)
    for parameter in _required(main.args):
        if parameter.arg in given or (deferred and parameter.arg in OF_DEFERRED):
            continue
        at = source.where(reading, program, parameter.lineno, parameter.col_offset + 1)
        inputs = ", ".join(sorted(seen.possible)) or "none"
        message = f"main() of the python step `{step.name}` needs `{parameter.arg}`, and no input gives it"
        hint = f"add it to args (the inputs are: {inputs:.200}), or give the parameter a default"
        reading.report.error_at("missing-input", program.location, at, message, hint)
    parameters = {one.arg for one in (*main.args.posonlyargs, *main.args.args, *main.args.kwonlyargs)}
    if main.args.kwarg is not None or not parameters.isdisjoint(WHOLE_INPUTS | {"context"}):
        return
    read = frozenset().union(*(use.names for use in reading.uses if use.part.step == step.name))
    if ARGS in read:
        return
    read |= {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    for name in sorted(seen.possible - parameters - read):
        at = source.where(reading, program, main.lineno, main.col_offset + 1)
        message = f"main() of the python step `{step.name}` does not take the input `{name}`"
        reading.report.warning_at("unused-input", program.location, at, message, "add a parameter, or remove the input")


def _required(arguments: ast.arguments) -> list[ast.arg]:
    """Give the parameters without a default."""
    positional = [*arguments.posonlyargs, *arguments.args]
    required = positional[: len(positional) - len(arguments.defaults)]
    return required + [
        one for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None
    ]

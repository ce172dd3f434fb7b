"""Jinja's lexer and parser for our templates, and the code that comes of them.

Nothing is computed while compiling: Jinja would fold constants, and `10 ** 10 ** 10` is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NoReturn

from jinja2 import nodes
from jinja2.exceptions import TemplateRuntimeError, TemplateSyntaxError
from jinja2.lexer import Lexer, Token, whitespace_re
from jinja2.nodes import EvalContext
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from noetl_broker.template import filters, methods, operators, output, questions, replaced, values
from noetl_broker.template.codegen import COMPARISONS, Generator
from noetl_broker.template.fuel import Evaluation

MAX_TOKENS: Final = 4_000
# Jinja's parser goes some fifteen calls deeper at each bracket; so it never comes near the interpreter's limit.
MAX_BRACKETS_DEEP: Final = 40
OPENING: Final = frozenset({"lparen", "lbracket", "lbrace"})
CLOSING: Final = frozenset({"rparen", "rbracket", "rbrace"})
# Jinja's lexer turns "\r\n" into "\n". This noncharacter stands for "\r" while it works.
CARRIAGE_RETURN: Final = "\ufdd0"

Root = Callable[[Evaluation], Iterator[Any]]


class _NewlineLexer(Lexer):
    """A lexer that keeps newlines as they are written."""

    def __init__(self, environment: ImmutableSandboxedEnvironment) -> None:
        super().__init__(environment)
        blank = re.compile(rf"[\s{CARRIAGE_RETURN}]+")
        for state, rules in self.rules.items():
            self.rules[state] = [
                rule._replace(pattern=blank) if rule.pattern is whitespace_re else rule for rule in rules
            ]

    def wrap(
        self, stream: Iterable[tuple[int, str, str]], name: str | None = None, filename: str | None = None
    ) -> Iterator[Token]:
        """Give the tokens; stops, before the parser has spent much on it, at a template that has too many."""
        depth = 0
        for count, token in enumerate(super().wrap(stream, name, filename)):
            if count >= MAX_TOKENS:
                raise TemplateSyntaxError(f"it has more than {MAX_TOKENS:,} words and signs", token.lineno)
            if token.type in OPENING:
                depth += 1
                if depth > MAX_BRACKETS_DEEP:
                    raise TemplateSyntaxError(f"it is nested deeper than {MAX_BRACKETS_DEEP} brackets", token.lineno)
            elif token.type in CLOSING:
                depth -= 1
            yield token

    def _normalize_newlines(self, value: str) -> str:
        return value.replace(CARRIAGE_RETURN, "\r")


class _Environment(ImmutableSandboxedEnvironment):
    """The one environment: nothing is loaded, nothing is global, attributes are keys."""

    def __init__(self) -> None:
        super().__init__(undefined=values.Missing, keep_trailing_newline=True, optimized=False)
        self.filters = dict(filters.FILTERS)
        self.tests = dict(questions.TESTS)
        self.globals = {}
        self._newline_lexer = _NewlineLexer(self)

    @property
    def lexer(self) -> Lexer:
        """The lexer that keeps newlines."""
        return self._newline_lexer

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Give a key's value (for filters that take an attribute's name)."""
        return values.attribute(obj, attribute, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Give an element."""
        return values.item(obj, argument, str(argument))

    def call(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: calls go through `methods`."""
        raise TemplateRuntimeError("nothing can be called in this way")


ENVIRONMENT: Final = _Environment()
Evaluation.environment = ENVIRONMENT
Evaluation.eval_ctx = EvalContext(ENVIRONMENT)

# All that the code of a template can see. It names no builtin but the one with which Jinja checks namespaces.
PRIMITIVES: Final[dict[str, Any]] = {
    "__builtins__": {"isinstance": isinstance},
    **{name: getattr(operators, name) for name in (*COMPARISONS.values(), "chain", "concatenated")},
    **{name: getattr(operators, name) for name in ("add", "sub", "mul", "div", "floordiv", "mod")},
    **{name: getattr(values, name) for name in ("attribute", "item", "facet", "result_facet", "whole", "cut", "key")},
    **{name: getattr(values, name) for name in ("solid", "turns", "owned", "Namespace")},
    **{name: getattr(output, name) for name in ("text", "joined")},
    **{name: getattr(methods, name) for name in ("method", "call_range", "call_now", "call_uuid")},
    **{name: getattr(methods, name) for name in ("call_dict", "call_namespace")},
    **{f"filter_{name}": function for name, function in filters.FILTERS.items()},
    "default": replaced.default,
    "defined": questions.defined,
    "tests": questions.TESTS,
    "undefined": values.Missing,
    "missing": missing,
    "LoopContext": LoopContext,
    "TemplateRuntimeError": TemplateRuntimeError,
}


def parse(source: str) -> nodes.Template:
    """Give the syntax tree of a source text. Raises jinja2.TemplateSyntaxError, ValueError, RecursionError."""
    return ENVIRONMENT.parse(source.replace("\r", CARRIAGE_RETURN))


def generate(tree: nodes.Template, *, native: bool) -> tuple[Root, frozenset[str]]:
    """Give the function that evaluates a checked tree, and the names that it looks up.

    The function is a generator: of texts, or (native) of the expression's value.
    """
    writer = Generator(ENVIRONMENT, native=native)
    writer.visit(tree)
    made: dict[str, Any] = {}
    exec(compile(writer.code.getvalue(), "<template>", "exec"), PRIMITIVES, made)  # noqa: S102 - Jinja's own way
    return made["root"], frozenset(writer.undeclared)

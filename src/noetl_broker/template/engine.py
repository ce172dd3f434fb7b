"""Jinja's lexer, parser and code generator, set up for our templates.

Nothing is computed while compiling: Jinja would fold constants such as `10 ** 10 ** 10`.
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

from noetl_broker.template import filters, jinja_tests, methods, operators, output, values
from noetl_broker.template.budget import Evaluation
from noetl_broker.template.codegen import COMPARISONS, Generator
from noetl_broker.template.undefined import Missing

MAX_TOKENS: Final = 4_000
# Each bracket costs Jinja's parser some fifteen nested calls; the interpreter's limit stays far away.
MAX_BRACKET_DEPTH: Final = 40
OPENING: Final = frozenset({"lparen", "lbracket", "lbrace"})
CLOSING: Final = frozenset({"rparen", "rbracket", "rbrace"})
# Jinja's lexer turns "\r\n" into "\n". This noncharacter stands for "\r" while it works.
CARRIAGE_RETURN: Final = "\ufdd0"

Root = Callable[[Evaluation], Any]


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
        """Give the tokens. Raises TemplateSyntaxError for too many, before the parser spends much time."""
        depth = 0
        for count, token in enumerate(super().wrap(stream, name, filename)):
            if count >= MAX_TOKENS:
                raise TemplateSyntaxError(f"it has more than {MAX_TOKENS:,} words and signs", token.lineno)
            if token.type in OPENING:
                depth += 1
                if depth > MAX_BRACKET_DEPTH:
                    raise TemplateSyntaxError(f"it is nested deeper than {MAX_BRACKET_DEPTH} brackets", token.lineno)
            elif token.type in CLOSING:
                depth -= 1
            yield token

    def _normalize_newlines(self, value: str) -> str:
        return value.replace(CARRIAGE_RETURN, "\r")


class _Environment(ImmutableSandboxedEnvironment):
    """The environment of all templates: no loader, no globals; attributes are keys."""

    def __init__(self) -> None:
        super().__init__(undefined=Missing, keep_trailing_newline=True, optimized=False)
        self.filters = dict(filters.FILTERS)
        self.tests = dict(jinja_tests.TESTS)
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

# Everything that the code of a template can see. The one builtin is for Jinja's check of namespaces.
PRIMITIVES: Final[dict[str, Any]] = {
    "__builtins__": {"isinstance": isinstance},
    **{name: getattr(operators, name) for name in (*COMPARISONS.values(), "chain", "concatenate")},
    **{name: getattr(operators, name) for name in ("add", "sub", "mul", "div", "floordiv", "mod")},
    **{
        name: getattr(values, name)
        for name in ("attribute", "item", "result_part", "results_part", "results_as_mapping", "cut", "key")
    },
    **{name: getattr(values, name) for name in ("require_value", "loop_items", "namespace_names", "Namespace")},
    **{name: getattr(output, name) for name in ("text", "join_texts")},
    **{name: getattr(methods, name) for name in ("method", "call_range", "call_now", "call_uuid")},
    **{name: getattr(methods, name) for name in ("call_dict", "call_namespace")},
    **{f"filter_{name}": function for name, function in filters.FILTERS.items()},
    "default": filters.default,
    "defined": jinja_tests.defined,
    "tests": jinja_tests.TESTS,
    "undefined": Missing,
    "missing": missing,
    "LoopContext": LoopContext,
    "TemplateRuntimeError": TemplateRuntimeError,
}


def parse(source: str) -> nodes.Template:
    """Give the syntax tree of a source text. Raises jinja2.TemplateSyntaxError, ValueError, RecursionError."""
    return ENVIRONMENT.parse(source.replace("\r", CARRIAGE_RETURN))


def generate(tree: nodes.Template, *, native: bool) -> tuple[Root, frozenset[str]]:
    """Give the function that evaluates a checked tree, and the names that it looks up.

    The function is a generator of texts, or (native) gives the expression's value.
    """
    writer = Generator(ENVIRONMENT, native=native)
    writer.visit(tree)
    made: dict[str, Any] = {}
    exec(compile(writer.code.getvalue(), "<template>", "exec"), PRIMITIVES, made)  # noqa: S102 - Jinja's own way
    return made["root"], frozenset(writer.undeclared)

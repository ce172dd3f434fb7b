"""Random templates and scopes, each from a seed, so a failure can be repeated.

Most operands have the right types, so that most templates get past their first filter.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, Final

from noetl_broker.template.filters import FILTERS
from noetl_broker.template.jinja_tests import TESTS
from noetl_broker.template.methods import LIST_METHODS, MAPPING_METHODS, TEXT_METHODS
from tests.template.escapes import CORPUS

DEEPEST: Final = 5
KINDS: Final = ("text", "list", "number", "mapping")
TEXTS: Final = (
    *(
        "",
        "a",
        "ab",
        " ",
        "x y z",
        "%s",
        "%d %%",
        "%1000000000d",
        "<b>&amp;'",
        "a,b,c",
        "7",
        "-1.5",
        "nan",
        "1e999",
        "0x1f",
        "ß",
        "ΐΣ",
    ),
    *(
        "\U0001f600",
        "a\u0301\u0323",
        "\u2028\r\n",
        "{",
        '{"a": [1, null]}',
        "[[[[]]]]",
        "http://a.com/b",
        "()()",
        "a-b--c",
        "YWJj",
        "a.b",
    ),
)
KEYS: Final = ("k", "a", "n", "s", "items", "data", "status", "__class__", "index", "grouper", "list")
NUMBERS: Final = (*map(str, range(-3, 12)), "79", "1000", "4300", "65536", "100000", "1000000", "10000000000", "9" * 40)
LEAVES: Final = {
    "text": ("text", "'ab'", "'x y z'", "a", "mapping.k"),
    "list": ("rows", "long", "rows", "b", "[1, 'a', none]", "mapping.items()", "range(1000)", "range(100000)"),
    "number": (*NUMBERS, "('nan' | float)", "0.5", "1e308", "2.5e-8", "true", "c", "rows[0].n"),
    "mapping": ("mapping", "rows[0]", "{}", "workload", "s", "results"),
    "any": ("a", "b", "c", "none", "absent", "n", "x", "i", "loop", "n.x", "loop.index"),
}
# Filters by what they take and what they give, with arguments: {t} a text, {n} a number, {l} a list, {a} anything.
FILTERED: Final = {
    ("text", "text"): (
        *(
            "upper",
            "lower",
            "title",
            "capitalize",
            "trim",
            "trim({t})",
            "e",
            "forceescape",
            "safe",
            "string",
            "striptags",
        ),
        *("center({n})", "indent({n})", "indent({t}, true, true)", "replace({t}, {t})", "replace({t}, {t}, {n})"),
        *("truncate({n})", "truncate({n}, true, {t}, {n})", "wordwrap({n})", "wordwrap({n}, true, {t})", "urlize({n})"),
        *("urlize(rel={t}, target={t})", "urlize(extra_schemes={l})", "urlencode", "format({a})", "format({a}, {t})"),
        *("b64encode", "b64decode", "tojson", "to_json", "reverse", "filesizeformat", "pprint", "default({a})"),
    ),
    ("any", "text"): (
        "string",
        "tojson",
        "tojson({n})",
        "to_json",
        "to_json({n})",
        "pprint",
        "e",
        "urlencode",
        "b64encode",
    ),
    ("list", "text"): ("join", "join({t})", "join({t}, attribute='s')", "join({a}, attribute='k.a')"),
    ("mapping", "text"): ("xmlattr", "xmlattr(false)", "urlencode", "tojson({n})"),
    ("list", "list"): (
        *("list", "sort", "sort(true, true)", "sort(attribute='n')", "sort(attribute='s,n')", "unique", "reverse"),
        *("unique(attribute='s')", "batch({n})", "batch({n}, {a})", "slice({n})", "slice({n}, {a})", "groupby('s')"),
        *("groupby('k', default={a})", "map(attribute='n')", "map(attribute='k.a', default={a})", "map('string')"),
        *("map('tojson')", "map('default', {a})", "map('upper')", "map('join', {t})", "map('length')", "map('list')"),
        *("map('replace', {t}, {t})", "map('center', {n})", "map('map', 'string')", "map('batch', {n})", "map('sort')"),
        *("select", "select('in', {l})", "select('odd')", "select('eq', {a})", "reject", "reject('none')"),
        *("selectattr('n')", "selectattr('n', 'gt', {n})", "selectattr('s', 'in', {t})", "rejectattr('s', 'defined')"),
    ),
    ("text", "list"): ("list", "batch({n})", "slice({n})", "from_json", "unique", "sort", "map('upper')"),
    ("mapping", "list"): ("items", "dictsort", "dictsort(true, 'value')", "list", "sort", "map('upper')", "batch({n})"),
    ("list", "number"): ("length", "count", "sum", "sum(attribute='n')", "sum(start={n})", "max", "min(attribute='n')"),
    ("text", "number"): ("length", "wordcount", "int", "int({n}, {n})", "float", "float({n})", "first | int"),
    ("number", "number"): ("abs", "int", "float", "round", "round({n})", "round({n}, 'ceil')", "default({n}, true)"),
    ("text", "mapping"): ("from_json",),
    ("list", "mapping"): ("first", "last", "max(attribute='n')", "groupby('n') | first"),
    ("list", "any"): ("first", "last", "max", "min", "sum"),
    ("any", "any"): ("default({a})", "d({a}, true)", "length", "list", "string", "abs", "from_json"),
}
CALLED: Final = {
    ("text", "text"): (
        *(f"{name}()" for name in ("upper", "lower", "title", "casefold", "swapcase", "capitalize", "strip", "rstrip")),
        *("strip({t})", "lstrip({t})", "replace({t}, {t})", "replace({t}, {t}, {n})", "center({n})", "ljust({n}, '-')"),
        *("rjust({n})", "zfill({n})", "join({l})", "removeprefix({t})", "removesuffix({t})", "format({a})", "encode()"),
    ),
    ("text", "list"): (
        "split()",
        "split({t})",
        "rsplit({t}, {n})",
        "splitlines()",
        "splitlines(true)",
        "partition({t})",
    ),
    ("text", "number"): ("find({t})", "count({t})", "index({t})", "isalpha()", "startswith({t})", "endswith({t}, {n})"),
    ("list", "number"): ("count({a})", "index({a})", "append({a})"),
    ("mapping", "list"): ("items()", "keys()", "values()"),
    ("mapping", "any"): ("get({t})", "get({a}, {a})", "pop({t})", "update({l})"),
    ("any", "any"): ("upper()", "items()", "__init__()", "cycle({a}, {a})", "changed({a})"),
}
MADE: Final = {
    "text": (
        "{t} ~ {a}",
        "{t} + {t}",
        "{t} * {n}",
        "{t}[{n}]",
        "{t}[{n}:{n}]",
        "{t}[::{n}]",
        "now()",
        "uuid()",
        "{a} ~ {a}",
    ),
    "list": (
        "{l} + {l}",
        "{l} * {n}",
        "{l}[{n}:]",
        "{l}[:{n}:{n}]",
        "[{a}, {a}]",
        "[{l}, {l}]",
        "({a},)",
        "range({n}, {n})",
    ),
    "number": (
        *(
            "{n} + {n}",
            "{n} - {n}",
            "{n} * {n}",
            "{n} / {n}",
            "{n} // {n}",
            "{n} % {n}",
            "-{n}",
            "{a} == {a}",
            "{t} < {t}",
        ),
        *(
            "{a} in {l}",
            "{t} in {t}",
            "{a} not in {a}",
            "not {a}",
            "{n} < {n} <= {n}",
            "{l} == {l}",
            "{n} and {n}",
            "{n} or {n}",
        ),
    ),
    "mapping": (
        *("{{{t}: {a}, {t}: {a}}}", "{{{a}: {a}}}", "dict(a={a}, b={a})", "{{'a': {m}, 'b': {m}}}", "{l}[{n}]"),
        *("dict({m}, a={a})", "dict([[{t}, {a}], [{a}, {a}]])", "dict({a})", "({m} | merge({m}))", "{a} | merge({a})"),
    ),
    "any": (
        *("{a} if {a} else {a}", "{a} if {a}", "{a}.{k}", "{m}.{k}", "{m}['{k}']", "{l}[{n}]", "{a}[{a}]", "{a} + {a}"),
        *(
            "({a} is {q})",
            "({a} is not {q})",
            "({n} is divisibleby({n}))",
            "({a} is in({l}))",
            "{a}({a})",
            "namespace(x={a})",
        ),
        *("results['{k}']", "{a} and {a}", "{a} or {a}", "{a} - {a}"),
    ),
}
STATEMENTS: Final = (
    *("{{{{ {a} }}}}", "{{{{ {t} }}}}", "{{{{ {l} }}}}", "{w}", "{{% set n = namespace(x={a}, k={a}) %}}{b}"),
    *("{{% for i in {l} %}}{b}{{% endfor %}}", "{{% for i in range({n}) %}}{b}{{% endfor %}}", "{{{{ {m} }}}}"),
    *(
        "{{% for i in {l} if {n} %}}{b}{{% else %}}{b}{{% endfor %}}",
        "{{% for i, x in {m}.items() %}}{b}{{% endfor %}}",
    ),
    *("{{% for i in range(1000) %}}{{{{ {t} }}}}{b}{{% endfor %}}", "{{% for i in range(100000) %}}{b}{{% endfor %}}"),
    *(
        "{{% if {a} %}}{b}{{% elif {n} %}}{b}{{% else %}}{b}{{% endif %}}",
        "{{% set x = {a} %}}{b}",
        "{{% set x = {l} %}}{b}",
    ),
    *("{{% set n = namespace(x={t}) %}}{{% for i in range(1000) %}}{{% set n.x = {t} %}}{{% endfor %}}{{{{ n.x }}}}",),
    *("{{% set n = namespace(x=[1]) %}}{{% for i in {l} %}}{{% set n.x = {l} %}}{{% endfor %}}{{{{ n.x }}}}",),
    *("{{% set n = namespace(x=1) %}}{{% for i in {l} %}}{{% set n.x = [n.x, i] %}}{{% endfor %}}{{{{ n.x | {f} }}}}",),
    *("{{% set x %}}{b}{{% endset %}}{{{{ x | {f} }}}}",),
    *(
        "{{% with x = {a} %}}{b}{{% endwith %}}",
        "{{% filter {f} %}}{b}{{% endfilter %}}",
        "{{% set x | {f} %}}{b}{{% endset %}}",
    ),
    *("{{# {w} #}}",),
)
RARE: Final = (
    *("{{% macro m() %}}{b}{{% endmacro %}}", "{{% include {t} %}}{b}", "{{% set mapping.k %}}{b}{{% endset %}}"),
    *("{{% set rows.n = {a} %}}", "{{% raw %}}{w}{{% endraw %}}", "{{{{ self }}}}", "{{{{ lipsum({n}) }}}}"),
    *("{{{{ {a} ** {n} }}}}", "{{{{ {l} | random }}}}", "{{{{ {a} | attr({t}) }}}}", "{{{{ {a}({a}) }}}}"),
)
LETTERS: Final = {"t": "text", "n": "number", "l": "list", "m": "mapping", "a": "any"}


class Wild:
    """A source of random templates; `seed` decides all of them."""

    def __init__(self, seed: int) -> None:
        """Start with a seed."""
        self.random = random.Random(seed)

    def template(self) -> str:
        """Return one expression, a text of statements, or a mangled template of the corpus."""
        kind = self.random.random()
        if kind < 0.4:
            return f"{{{{ {self.expression('any', 0)} }}}}"
        return self.body(0) if kind < 0.9 else self._mangled()

    def scope(self) -> dict[str, Any]:
        """Return random inputs."""
        rows = [{"n": number, "s": self._choice(TEXTS), "k": self.value(2)} for number in range(self._upto(20))]
        return {
            **{name: self.value(0) for name in ("a", "b", "c")},
            "text": self._choice(TEXTS) * self._choice((1, 10, 300, 20_000)),
            "rows": rows,
            "mapping": {self._choice(KEYS): self.value(1) for _ in range(5)},
            "long": list(range(self._choice((10, 1_000, 20_000)))),
        }

    def value(self, depth: int) -> Any:
        """Return a random JSON value."""
        kind = self._upto(8 if depth < 3 else 5)
        if kind > 6:
            return [self.value(depth + 1) for _ in range(self._upto(5))]
        if kind == 6:
            return {self._choice(KEYS): self.value(depth + 1) for _ in range(self._upto(5))}
        return (None, True, self.random.randrange(-5, 2**65), self.random.random(), self._choice(TEXTS), 7)[kind]

    def expression(self, kind: str, depth: int) -> str:
        """Return an expression that is probably of a type."""
        if kind == "any" or self._upto(9) == 0:
            kind = self._choice((*KINDS, "any", "any"))
        if depth >= DEEPEST or self._upto(4) == 0:
            return repr(self._choice(TEXTS)) if kind == "text" and self._upto(1) else str(self._choice(LEAVES[kind]))
        way = self._choice((self._filtered, self._filtered, self._called, self._made, self._made))
        return str(way(kind, depth + 1))

    def body(self, depth: int) -> str:
        """Return statements and text."""
        if depth >= DEEPEST - 1:
            return self._filled("{{{{ {a} }}}}", depth)
        forms = (self._choice(STATEMENTS if self._upto(30) else RARE) for _ in range(1 + self._upto(2)))
        return "".join(self._filled(form, depth + 1) for form in forms)

    def _choice(self, these: Any) -> Any:
        return self.random.choice(these)

    def _upto(self, most: int) -> int:
        return self.random.randrange(most + 1)

    def _filled(self, form: str, depth: int) -> str:
        return form.format_map(_Parts(lambda letter: self._part(letter, depth)))

    def _part(self, letter: str, depth: int) -> str:
        if letter in LETTERS:
            return self.expression(LETTERS[letter], depth)
        if letter == "b":
            return self.body(depth)
        return str(self._choice({"k": KEYS, "q": ASKED, "w": TEXTS, "f": tuple(FILTERS)}[letter]))

    def _filtered(self, kind: str, depth: int) -> str:
        return self._applied(FILTERED, " | ", kind, depth)

    def _called(self, kind: str, depth: int) -> str:
        return self._applied(CALLED, ".", kind, depth)

    def _applied(self, table: dict[tuple[str, str], tuple[str, ...]], sign: str, kind: str, depth: int) -> str:
        fitting = [(taken, form) for (taken, given), forms in table.items() if given == kind for form in forms]
        if not fitting:
            return self._made(kind, depth)
        taken, form = self._choice(fitting)
        return f"(({self.expression(taken, depth)}){sign}{self._filled(form, depth)})"

    def _made(self, kind: str, depth: int) -> str:
        return f"({self._filled(self._choice(MADE[kind]), depth)})"

    def _mangled(self) -> str:
        source = self._choice(self._choice([*CORPUS.values()]))
        place, length = self._upto(len(source)), self._upto(6)
        inside = self._choice(("", self.expression("any", 3), self._choice(("{{", "}}", "|", "(", ")", "'", " "))))
        return str(source[:place] + inside + source[place + length :])


class _Parts(dict[str, str]):
    """Values for the letters of a form, a new one for each use."""

    def __init__(self, make: Callable[[str], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, letter: str) -> str:
        return self._make(letter)


ASKED: Final = tuple(name for name in TESTS if name.isidentifier() and name != "in")
# Functions and filters without a form above are called by their names.
FORMS: Final = " ".join(form for table in (FILTERED, CALLED) for forms in table.values() for form in forms)
USED: Final = {*re.findall(r"\w+", FORMS)}
FILTERED["any", "any"] += tuple(name for name in FILTERS if name not in USED)
CALLED["any", "any"] += tuple(
    f"{name}({{a}})" for name in (*TEXT_METHODS, *MAPPING_METHODS, *LIST_METHODS) if name not in USED
)

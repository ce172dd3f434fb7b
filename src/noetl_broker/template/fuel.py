"""What evaluations may spend: every filter, operator, loop turn and character is charged against an account.

A step of evaluation stands for about a tenth of a microsecond of work, so that the default account of one evaluation is
empty within 100 ms whatever the template does. Sizes are checked before the work is done: a text that would be too long
is never built.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError

from noetl_broker.template.numbers import INTEGER_LIMIT

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.nodes import EvalContext

    from noetl_broker.template.scope import Scope

MAX_LIST_ITEMS: Final = 100_000  # of a list made by a template: the widest collection of an iterator
NODE_COST: Final = 2
PLAIN: Final = frozenset({int, float, bool, type(None)})
KINDS: Final = PLAIN | {str, list, tuple, dict, range}


class Evaluation:
    """One evaluation under way: the account of fuel and the names. Generated code knows it as `context`.

    `chars` is what the texts of the value that it gives may still hold: see `values.as_json`.
    """

    __slots__ = ("allowance", "chars", "fuel", "granted", "resolve_or_missing", "scope")

    chars: int
    environment: ClassVar[Environment]
    eval_ctx: ClassVar[EvalContext]

    def __init__(self, scope: Scope) -> None:
        """Open an account on the allowance of the scope's turn."""
        self.scope = scope
        self.resolve_or_missing = scope.resolve
        self.allowance = allowance = scope.moment.allowance
        steps, left = allowance.steps, allowance.left
        self.granted = self.fuel = steps if steps < left else left  # noqa: FURB136 - a call of `min` takes three times as long

    def open_wide(self) -> None:
        """Let this evaluation take all that the turn still has: what it does grows with what it is given."""
        self.granted = self.fuel = self.allowance.left

    def close(self) -> None:
        """Book what was spent."""
        self.allowance.left -= self.granted - self.fuel

    def spend(self, steps: int) -> None:
        """Take steps from the account. Raises TemplateRuntimeError when it is empty."""
        self.fuel -= steps
        if self.fuel < 0:
            raise TemplateRuntimeError(self.too_much())

    def too_much(self) -> str:
        """Say that the account is empty."""
        allowance = self.allowance
        if self.granted != allowance.steps:
            limit = f"{allowance.turn_steps:,} steps together"
            return f"the templates of one turn take more than {limit} (template_max_steps)"
        return f"it takes more than the {allowance.steps:,} steps that one evaluation may take (template_max_steps)"

    def room_for_text(self, chars: int) -> None:
        """Make sure that a text of this length may be built, and charge for it."""
        limit = self.allowance.output_chars
        if chars > limit:
            sizes = f"{chars:,} characters, more than the allowed {limit:,}"
            raise TemplateRuntimeError(f"it would build a text of {sizes} (template_max_output_chars)")
        self.spend(1 + (chars >> 4))

    def room_for_list(self, items: int) -> None:
        """Make sure that a list of this length may be built, and charge for it."""
        if items > MAX_LIST_ITEMS:
            raise TemplateRuntimeError(
                f"it would build a list of {items:,} items, more than the allowed {MAX_LIST_ITEMS:,}"
            )
        self.spend(1 + (items >> 2))

    def weigh(self, *values: Any) -> None:
        """Charge for values by all that they hold, shared parts as often as they occur.

        Raises TemplateRuntimeError when that is more than is left, and for what is no value, such as a namespace;
        UndefinedError when something in them is undefined.
        """
        left = self.fuel
        stack = list(values)
        while stack and left >= 0:
            value = stack.pop()
            kind = type(value)
            left -= NODE_COST
            if kind is str:
                left -= len(value) >> 5
            elif kind is list or kind is tuple:
                left -= len(value)
                if left >= 0:
                    stack.extend(value)
            elif kind is dict:
                left -= 2 * len(value)
                if left >= 0:
                    stack.extend(value)
                    stack.extend(value.values())
            elif kind not in KINDS:
                self._look_into(value, stack)
        self.fuel = left
        if left < 0:
            raise TemplateRuntimeError(self.too_much())

    @staticmethod
    def _look_into(value: Any, stack: list[Any]) -> None:
        if isinstance(value, Undefined):
            bool(value)  # a strict undefined raises here, with its own message
        if not isinstance(value, tuple):  # such as a group of `groupby`
            raise TemplateRuntimeError(f"a {type(value).__name__.lower()} is no value")
        stack.extend(value)


def bounded(number: Any) -> Any:
    """Give the number back. Raises TemplateRuntimeError for an integer of more than 256 bits and what is infinite."""
    if type(number) is float and not isfinite(number):
        raise TemplateRuntimeError(f"{number} is not a number that JSON can hold")
    if type(number) is int and not -INTEGER_LIMIT < number < INTEGER_LIMIT:
        raise TemplateRuntimeError("it computes an integer of more than 256 bits")
    return number

"""The limits of one evaluation: every filter, operator, loop round and character costs steps.

A step is about a tenth of a microsecond, so an evaluation stops within 100 ms by default. Sizes are checked before the
work: a text that would be too long is never built.
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
    """One evaluation: its scope and its remaining steps, `fuel`. Generated code knows it as `context`.

    `chars` is how long the texts of its value may still be: see `output.as_json`.
    """

    __slots__ = ("allowance", "chars", "fuel", "granted", "resolve_or_missing", "scope")

    chars: int
    environment: ClassVar[Environment]
    eval_ctx: ClassVar[EvalContext]

    def __init__(self, scope: Scope) -> None:
        """Start with the steps that the turn allows."""
        self.scope = scope
        self.resolve_or_missing = scope.resolve
        self.allowance = allowance = scope.moment.allowance
        steps, remaining = allowance.steps, allowance.steps_left
        self.granted = self.fuel = steps if steps < remaining else remaining  # noqa: FURB136 - a call of `min` takes three times as long

    def use_turn_steps(self) -> None:
        """Allow all steps that the turn has left, for work that grows with its input."""
        self.granted = self.fuel = self.allowance.steps_left

    def close(self) -> None:
        """Subtract the spent steps from the turn's."""
        self.allowance.steps_left -= self.granted - self.fuel

    def spend(self, steps: int) -> None:
        """Spend steps. Raises TemplateRuntimeError at the limit."""
        self.fuel -= steps
        if self.fuel < 0:
            raise TemplateRuntimeError(self.limit_message())

    def limit_message(self) -> str:
        """Give the error message of the limit that was reached."""
        allowance = self.allowance
        if self.granted != allowance.steps:
            limit = f"{allowance.turn_steps:,} steps together"
            return f"the templates of one turn take more than {limit} (template_max_steps)"
        return f"it takes more than the {allowance.steps:,} steps that one evaluation may take (template_max_steps)"

    def room_for_text(self, chars: int) -> None:
        """Charge for a text of this length. Raises TemplateRuntimeError if it is too long."""
        limit = self.allowance.output_chars
        if chars > limit:
            sizes = f"{chars:,} characters, more than the allowed {limit:,}"
            raise TemplateRuntimeError(f"it would build a text of {sizes} (template_max_output_chars)")
        self.spend(1 + (chars >> 4))

    def room_for_list(self, items: int) -> None:
        """Charge for a list of this length. Raises TemplateRuntimeError if it is too long."""
        if items > MAX_LIST_ITEMS:
            raise TemplateRuntimeError(
                f"it would build a list of {items:,} items, more than the allowed {MAX_LIST_ITEMS:,}"
            )
        self.spend(1 + (items >> 2))

    def charge(self, *values: Any) -> None:
        """Charge for values with all their parts, shared parts each time.

        Raises TemplateRuntimeError at the limit and for anything but a value, such as a namespace; UndefinedError for
        an undefined part.
        """
        fuel = self.fuel
        stack = list(values)
        while stack and fuel >= 0:
            value = stack.pop()
            kind = type(value)
            fuel -= NODE_COST
            if kind is str:
                fuel -= len(value) >> 5
            elif kind is list or kind is tuple:
                fuel -= len(value)
                if fuel >= 0:
                    stack.extend(value)
            elif kind is dict:
                fuel -= 2 * len(value)
                if fuel >= 0:
                    stack.extend(value)
                    stack.extend(value.values())
            elif kind not in KINDS:
                self._look_into(value, stack)
        self.fuel = fuel
        if fuel < 0:
            raise TemplateRuntimeError(self.limit_message())

    @staticmethod
    def _look_into(value: Any, stack: list[Any]) -> None:
        if isinstance(value, Undefined):
            bool(value)  # a strict undefined raises here, with its own message
        if not isinstance(value, tuple):  # such as a group of `groupby`
            raise TemplateRuntimeError(f"a {type(value).__name__.lower()} is no value")
        stack.extend(value)


def bounded(number: Any) -> Any:
    """Give the number. Raises TemplateRuntimeError for an integer of more than 256 bits and for infinity or NaN."""
    if type(number) is float and not isfinite(number):
        raise TemplateRuntimeError(f"{number} is not a number that JSON can hold")
    if type(number) is int and not -INTEGER_LIMIT < number < INTEGER_LIMIT:
        raise TemplateRuntimeError("it computes an integer of more than 256 bits")
    return number

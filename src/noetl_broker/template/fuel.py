"""What one evaluation may spend: every filter, operator, loop turn and character is charged against one account.

A unit of fuel stands for about a tenth of a microsecond of work, so that the default account is empty within 100 ms
whatever the template does. Sizes are checked before the work is done: a text that would be too long is never built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2 import Environment
    from jinja2.nodes import EvalContext

    from noetl_broker.template.scope import Scope

INTEGER_LIMIT: Final = 1 << 256
NODE_COST: Final = 2
PLAIN: Final = frozenset({int, float, bool, type(None)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of templates, each a setting; they hold for the whole process.

    `source_characters` is the length of one template, `source_tokens` the number of words and signs in its braces,
    `source_nodes` the size of its syntax tree, `source_depth` the depth of its nesting. `fuel` is in units of about
    0.1 µs, for one evaluation of a template or of a tree. `text_characters` is the length of one text, `list_items`
    that of one list made by a template or of a `range`.
    """

    source_characters: int = 65_536
    source_tokens: int = 4_000
    source_nodes: int = 2_500
    source_depth: int = 60
    fuel: int = 500_000
    text_characters: int = 1_048_576
    list_items: int = 100_000


class _Process:
    """The bounds in force."""

    bounds: ClassVar[Bounds] = Bounds()


def bounds() -> Bounds:
    """Give the bounds in force."""
    return _Process.bounds


def set_bounds(new: Bounds) -> None:
    """Put other bounds in force, for the whole process, from the next evaluation on."""
    _Process.bounds = new


class Evaluation:
    """One evaluation under way: the account of fuel and the names. Generated code knows it as `context`."""

    __slots__ = ("bounds", "fuel", "resolve_or_missing", "scope")

    environment: ClassVar[Environment]
    eval_ctx: ClassVar[EvalContext]

    def __init__(self, scope: Scope) -> None:
        """Open a full account."""
        self.scope = scope
        self.resolve_or_missing: Callable[[str], object] = scope.resolve
        self.bounds = _Process.bounds
        self.fuel = self.bounds.fuel

    def spend(self, units: int) -> None:
        """Take units from the account. Raises TemplateRuntimeError when it is empty."""
        self.fuel -= units
        if self.fuel < 0:
            raise TemplateRuntimeError(self.too_much())

    def too_much(self) -> str:
        """Say that the account is empty."""
        return f"it does more work than the {self.bounds.fuel:,} units that one evaluation may spend"

    def room_for_text(self, characters: int) -> None:
        """Make sure that a text of this length may be built, and charge for it."""
        if characters > self.bounds.text_characters:
            limit = self.bounds.text_characters
            message = f"it would build a text of {characters:,} characters, more than the allowed {limit:,}"
            raise TemplateRuntimeError(message)
        self.spend(1 + (characters >> 5))

    def room_for_list(self, items: int) -> None:
        """Make sure that a list of this length may be built, and charge for it."""
        if items > self.bounds.list_items:
            limit = self.bounds.list_items
            message = f"it would build a list of {items:,} items, more than the allowed {limit:,}"
            raise TemplateRuntimeError(message)
        self.spend(1 + (items >> 2))

    def weigh(self, *values: Any) -> None:
        """Charge for values by all that they hold, shared parts as often as they occur.

        Raises TemplateRuntimeError when that is more than is left, UndefinedError when something in them is undefined.
        """
        left = self.fuel
        stack = list(values)
        while stack:
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
            elif isinstance(value, Undefined):
                bool(value)  # a strict undefined raises here, with its own message
            if left < 0:
                break
        self.fuel = left
        if left < 0:
            raise TemplateRuntimeError(self.too_much())


def bounded(number: Any) -> Any:
    """Give the number back. Raises TemplateRuntimeError for an integer of more than 256 bits."""
    if type(number) is int and not -INTEGER_LIMIT < number < INTEGER_LIMIT:
        message = "it computes an integer of more than 256 bits"
        raise TemplateRuntimeError(message)
    return number

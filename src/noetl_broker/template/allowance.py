"""What the templates of one turn may spend: the bounds that are settings, and what is left of them."""

from __future__ import annotations

from typing import Final

from jinja2.exceptions import TemplateRuntimeError

MAX_SOURCE_CHARS: Final = 65_536  # of one template
MAX_OUTPUT_CHARS: Final = 1_048_576  # of one text, and of all texts in one value
MAX_STEPS: Final = 500_000  # of one evaluation
UNBOUNDED: Final = 1 << 62


class Allowance:
    """What the templates of one turn may spend: each by itself, and all of them together.

    `steps` bounds one evaluation, `output_chars` a text that it makes and all texts of a value that it makes. Of the
    turn's own bounds, `left` and `room` are what is still there: `turn_steps`, and `turn_chars` for what is handed on,
    also where it is the scope's own and was not made.
    """

    __slots__ = ("left", "output_chars", "room", "steps", "turn_chars", "turn_steps")

    def __init__(
        self,
        *,
        steps: int = MAX_STEPS,
        output_chars: int = MAX_OUTPUT_CHARS,
        turn_steps: int = UNBOUNDED,
        turn_chars: int = UNBOUNDED,
    ) -> None:
        """Start with nothing spent."""
        self.steps = steps
        self.output_chars = output_chars
        self.left = self.turn_steps = turn_steps
        self.room = self.turn_chars = turn_chars

    def hand_on(self, chars: int) -> None:
        """Count what is written of this turn. Raises TemplateRuntimeError when it is too much."""
        self.room -= chars
        if self.room < 0:
            limit = f"{self.turn_chars:,} characters together"
            raise TemplateRuntimeError(f"what one turn hands on is more than {limit} (template_max_output_chars)")

    def spend(self, steps: int) -> None:
        """Count work that is no evaluation. Raises TemplateRuntimeError when the turn has done too much."""
        self.left -= steps
        if self.left < 0:
            limit = f"{self.turn_steps:,} steps together"
            raise TemplateRuntimeError(f"the templates of one turn take more than {limit} (template_max_steps)")

    @property
    def handed_on(self) -> int:
        """How many characters the turn hands on so far."""
        return self.turn_chars - self.room

    def widen(self, steps: int) -> None:
        """Allow the turn so many more steps, for work that grows with what it is given."""
        self.left += steps
        self.turn_steps += steps

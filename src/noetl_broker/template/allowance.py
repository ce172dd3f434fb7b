"""The limits of all templates of a turn together, and the default limits of one evaluation."""

from __future__ import annotations

from typing import Final

from jinja2.exceptions import TemplateRuntimeError

MAX_SOURCE_CHARS: Final = 65_536  # of one template
MAX_OUTPUT_CHARS: Final = 1_048_576  # of one text, and of all texts in one value
MAX_STEPS: Final = 500_000  # of one evaluation
UNBOUNDED: Final = 1 << 62
FULL_CHARS: Final = 4_194_304  # that one turn writes: then it starts no further work


class Allowance:
    """The budget of the templates of one turn.

    `steps` limits one evaluation; `output_chars` limits a text that it makes and all texts of a value. `turn_steps` and
    `turn_chars` limit all evaluations of the turn together; `steps_left` and `chars_left` remain of them. All that the
    turn writes counts as characters, also values of the scope that no template made.
    """

    __slots__ = ("_repeated_chars", "chars_left", "output_chars", "steps", "steps_left", "turn_chars", "turn_steps")

    def __init__(
        self,
        steps: int = MAX_STEPS,
        output_chars: int = MAX_OUTPUT_CHARS,
        turn_steps: int = UNBOUNDED,
        turn_chars: int = UNBOUNDED,
    ) -> None:
        """Start with nothing spent."""
        self.steps = steps
        self.output_chars = output_chars
        self.steps_left = self.turn_steps = turn_steps
        self.chars_left = self.turn_chars = turn_chars
        self._repeated_chars = 0

    def add_output(self, chars: int) -> None:
        """Count characters that the turn writes. Raises TemplateRuntimeError at the limit."""
        self.chars_left -= chars
        if self.chars_left < 0:
            limit = f"{self.turn_chars:,} characters together"
            raise TemplateRuntimeError(f"what one turn hands on is more than {limit} (template_max_output_chars)")

    def spend(self, steps: int) -> None:
        """Count work outside of evaluations. Raises TemplateRuntimeError at the limit."""
        self.steps_left -= steps
        if self.steps_left < 0:
            limit = f"{self.turn_steps:,} steps together"
            raise TemplateRuntimeError(f"the templates of one turn take more than {limit} (template_max_steps)")

    def add_repeated(self, chars: int) -> None:
        """Count characters that a template made once and the turn writes again, as in each item of an iterator."""
        self._repeated_chars += chars

    @property
    def chars_written(self) -> int:
        """About how many characters the turn writes."""
        return self.turn_chars - self.chars_left + self._repeated_chars

    @property
    def is_nearly_spent(self) -> bool:
        """Whether the turn should start no further work: a quarter of the output or half of the steps is used."""
        if self.steps_left < self.turn_steps // 2:
            return True
        return self.chars_written > min(FULL_CHARS, self.turn_chars // 4)

    def add_steps(self, steps: int) -> None:
        """Allow the turn more steps, for work that grows with its input."""
        self.steps_left += steps
        self.turn_steps += steps

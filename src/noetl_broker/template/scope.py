"""Where a template's names come from, and in which order they are looked up.

The order is the one of the specification, section 3: the visit's inputs, then steps that have a result, then the scope
words, then the keys of the workload. It is written down here and nowhere else. `spec`, as old documents call their
workload, means it too, after its keys: one that has a key `spec` keeps its meaning.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from jinja2.utils import missing

from noetl_broker.template.allowance import Allowance

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

JSON: TypeAlias = "Any"
"""None, bool, int, float, str, list of JSON, dict of str to JSON (Any to mypy: recursion would need casts)."""

UNDEFINED: Final = missing
"""What `Scope.resolve` answers for a name that nobody has."""

Origin: TypeAlias = Literal["input", "step", "word", "workload", "nowhere"]
"""Where a name comes from: the visit's inputs, a step's result, a scope word, a key of the workload."""

WORKLOAD_WORDS: Final = ("workload", "work", "context")
OLD_WORKLOAD_WORD: Final = "spec"
ENVELOPE_KEYS: Final = frozenset({"id", "status", "data", "error", "meta", "duration"})
UUID_NAMESPACE: Final = uuid.UUID("5b0d7c3e-9a54-5d0c-8f0e-6f1d3a7c2b41")


class StepResult(NamedTuple):
    """What templates can read of a step whose action ended: its data, its status, its error.

    `failed` lists the failed items of an iterator, or is a `Lazy` of that list; None: it is none, or does not say.
    """

    data: JSON
    status: str = "COMPLETED"
    error: JSON = None
    failed: object = None

    @property
    def failed_items(self) -> JSON:
        """The list of failed items as it is read; None where there is none. Raises `NotLoaded`."""
        return self.failed.read() if type(self.failed) is Lazy else self.failed


class NotLoaded(Exception):
    """A template needs what has not been loaded: it asks the caller to load `wants` and to evaluate again."""

    def __init__(self, wants: frozenset[Any]) -> None:
        """Keep what is wanted, in whatever form the caller's lookups name it."""
        self.wants = wants
        super().__init__(f"{len(wants)} results are not loaded")


class Lazy:
    """A scope word that is made when it is first read, and kept."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], JSON | StepResult]) -> None:
        """Take the function that makes the value; it is called at most once."""
        self._make = make
        self._made: object = UNDEFINED

    def read(self) -> object:
        """Give the value."""
        if self._made is UNDEFINED:
            self._made = self._make()
        return self._made


class Moment:
    """The only time and the only source of ids that a template may use, those recorded for the turn, and its allowance.

    An allowance of its own bounds each evaluation by itself. A worker has the job's `node_id` in place of a turn's
    number: no turn makes the ids that it makes.
    """

    __slots__ = ("allowance", "at", "execution_id", "ordinal", "turn")

    def __init__(self, *, execution_id: int, turn: int | str, at: datetime, allowance: Allowance | None = None) -> None:
        """Start at ordinal 0; `at` is an aware time in UTC."""
        self.allowance = allowance or Allowance()
        self.execution_id = execution_id
        self.turn = turn
        self.at = at
        self.ordinal = 0

    def now(self) -> str:
        """Give the turn's time in ISO 8601: the same text however often it is asked."""
        return self.at.isoformat()

    def uuid(self) -> str:
        """Give the next id: a uuid5 of execution, turn and ordinal, so that a replay gives the same ones."""
        self.ordinal += 1
        return str(uuid.uuid5(UUID_NAMESPACE, f"{self.execution_id}:{self.turn}:{self.ordinal}"))


class Results:
    """The word `results`: every step's data by name, each looked up when it is read."""

    __slots__ = ("_is_step", "_steps")

    def __init__(self, steps: Callable[[str], StepResult | None], is_step: Collection[str]) -> None:
        """Take the lookup and the names of all steps."""
        self._steps = steps
        self._is_step = is_step

    def find(self, name: object) -> StepResult | None:
        """Give the result of the step of that name, None if there is no such step or it has none yet."""
        if not isinstance(name, str) or name not in self._is_step:
            return None
        return self._steps(name)

    def __len__(self) -> int:
        """Count the steps, with a result or without."""
        return len(self._is_step)

    def whole(self) -> dict[str, JSON]:
        """Give the data of all steps that have a result, in the order of the document."""
        found = ((name, self._steps(name)) for name in self._is_step)
        return {name: result.data for name, result in found if result is not None}


class Scope:
    """The names that one evaluation sees."""

    __slots__ = ("_inputs", "_is_step", "_steps", "_words", "_workload", "moment")

    def __init__(
        self,
        *,
        inputs: Mapping[str, JSON],
        steps: Callable[[str], StepResult | None],
        words: Mapping[str, object],
        workload: Callable[[], Mapping[str, JSON]],
        is_step: Collection[str],
        moment: Moment,
    ) -> None:
        """Keep the sources; nothing is read yet.

        `steps` gives a step's latest result, or None while it has none. `words` are the scope words that apply: JSON, a
        `StepResult`, or a `Lazy` of either. `steps`, `workload` and a `Lazy` may raise `NotLoaded`.
        """
        self._inputs = inputs
        self._steps = steps
        self._words = words
        self._workload = workload
        self._is_step = is_step
        self.moment = moment

    @property
    def inputs(self) -> Mapping[str, JSON]:
        """The visit's inputs."""
        return self._inputs

    def find(self, name: str) -> object:
        """Give what the name stands for: JSON, a `StepResult`, `Results`, or `UNDEFINED`."""
        if name in self._inputs:
            return self._inputs[name]
        if name in self._is_step:
            result = self._steps(name)
            if result is not None:
                return result
        if name in self._words:
            word = self._words[name]
            return word.read() if type(word) is Lazy else word
        return self._own_word(name)

    def origin(self, name: str) -> Origin:
        """Tell where `find` takes the name from."""
        if name in self._inputs:
            return "input"
        if name in self._is_step and self._steps(name) is not None:
            return "step"
        if name in self._words or name in (*WORKLOAD_WORDS, "args", "results"):
            return "word"
        if name in self._workload():
            return "workload"
        return "word" if name == OLD_WORKLOAD_WORD else "nowhere"

    def _own_word(self, name: str) -> object:
        if name in WORKLOAD_WORDS:
            return self._workload()
        if name == "args":
            return self._inputs
        if name == "results":
            return Results(self._steps, self._is_step)
        workload = self._workload()
        return workload if name == OLD_WORKLOAD_WORD and name not in workload else workload.get(name, UNDEFINED)

    def resolve(self, name: str) -> object:
        """Give the value of the name as a template sees it: a step is its data."""
        found = self.find(name)
        return found.data if type(found) is StepResult else found


def unwrap(result: JSON) -> JSON:
    """Give the data of a result: an envelope is unwrapped once, anything else is its own data.

    An envelope is a mapping with `data` whose keys are all among id, status, data, error, meta, duration.
    """
    if type(result) is dict and "data" in result and ENVELOPE_KEYS.issuperset(result):
        return result["data"]
    return result


def wrap(data: JSON) -> JSON:
    """Give a result whose data this is: what looks like an envelope itself is put into one, anything else stays."""
    return data if unwrap(data) is data else {"data": data}

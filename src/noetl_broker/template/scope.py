"""Where a template's names come from, and in which order they are looked up.

The order is: inputs of the visit, steps with a result, scope words, keys of the workload. Only this module knows it.
`spec`, the workload's name in old documents, comes after the keys of the workload.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from jinja2.utils import missing

from noetl_broker.template.allowance import Allowance
from noetl_broker.template.durations import moment_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

JSON: TypeAlias = "Any"
"""None, bool, int, float, str, list of JSON, dict of str to JSON (Any to mypy: recursion would need casts)."""

UNDEFINED: Final = missing
"""The value of an undefined name."""

Origin: TypeAlias = Literal["input", "step", "word", "workload", "nowhere"]
"""Where a name comes from: the visit's inputs, a step's result, a scope word, a key of the workload."""

WORKLOAD_WORDS: Final = ("workload", "work", "context")
OWN_WORDS: Final = (*WORKLOAD_WORDS, "args", "results")
OLD_WORKLOAD_WORD: Final = "spec"
ENVELOPE_KEYS: Final = frozenset({"id", "status", "data", "error", "meta", "duration"})
ENVELOPE_STATUSES: Final = frozenset({"success", "error"})  # all that NoETL's worker sends
UUID_NAMESPACE: Final = uuid.UUID("5b0d7c3e-9a54-5d0c-8f0e-6f1d3a7c2b41")


class StepResult(NamedTuple):
    """What templates can read of a step whose action ended: data, status, error.

    `failed` is the list of an iterator's failed items, or a `Lazy` of it; None for other steps.
    `unwrapped`: the data was in an envelope with other keys, which templates cannot read.
    """

    data: JSON
    status: str = "COMPLETED"
    error: JSON = None
    failed: Any = None  # a list or a `Lazy`
    unwrapped: bool = False

    @property
    def failed_items(self) -> JSON:
        """The list of failed items, or None. Raises `NotLoaded`."""
        return self.failed.read() if type(self.failed) is Lazy else self.failed


class NotLoaded(Exception):
    """A template needs data that is not loaded: load `wants` and evaluate again."""

    def __init__(self, wants: frozenset[Any]) -> None:
        """Keep what is wanted, in the form of the caller's lookups."""
        self.wants = wants
        super().__init__(f"{len(wants)} results are not loaded")


class Lazy:
    """A scope word that is made at the first read and kept."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], JSON | StepResult]) -> None:
        """Take the function that makes the value; it is called once at most."""
        self._make = make
        self._made: object = UNDEFINED

    def read(self) -> object:
        """Give the value."""
        if self._made is UNDEFINED:
            self._made = self._make()
        return self._made


class Moment:
    """The only time and the only source of ids for templates, as recorded for the turn, and the turn's allowance.

    Without an allowance of the turn, only single evaluations are limited. A worker passes the job's `node_id` as
    `turn`, so its ids differ from those of every turn.
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
        """Give the turn's time, written as all moments are."""
        return moment_text(self.at)

    def uuid(self) -> str:
        """Give the next id: a uuid5 of execution, turn and ordinal, the same in a replay."""
        self.ordinal += 1
        return str(uuid.uuid5(UUID_NAMESPACE, f"{self.execution_id}:{self.turn}:{self.ordinal}"))


class Results:
    """The word `results`: the data of every step by name, looked up when it is read."""

    __slots__ = ("_is_step", "_steps")

    def __init__(self, steps: Callable[[str], StepResult | None], is_step: Collection[str]) -> None:
        """Take the lookup and the names of all steps."""
        self._steps = steps
        self._is_step = is_step

    def find(self, name: object) -> StepResult | None:
        """Give the result of the step of this name; None if there is none."""
        if not isinstance(name, str) or name not in self._is_step:
            return None
        return self._steps(name)

    def __len__(self) -> int:
        """Count the steps, with a result or without."""
        return len(self._is_step)

    def as_mapping(self) -> dict[str, JSON]:
        """Give the data of all steps that have a result, in the order of the document."""
        found = ((name, self._steps(name)) for name in self._is_step)
        return {name: result.data for name, result in found if result is not None}


class Scope:
    """The names of one evaluation."""

    __slots__ = ("_inputs", "_is_step", "_steps", "_words", "_workload", "moment")

    def __init__(
        self,
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
        """Give what a name means: JSON, a `StepResult`, `Results`, or `UNDEFINED`."""
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
        """Tell where the name comes from."""
        if name in self._inputs:
            return "input"
        if name in self._is_step and self._steps(name) is not None:
            return "step"
        if name in self._words or name in OWN_WORDS:
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

    An envelope is a mapping with `data` whose keys are all among id, status, data, error, meta, duration. If it has
    `id` or `status`, its `status` is one that NoETL's worker sends.
    """
    if type(result) is dict and "data" in result and ENVELOPE_KEYS.issuperset(result):
        status = result.get("status")
        if status is None and "id" not in result and "status" not in result:
            return result["data"]
        if type(status) is str and status in ENVELOPE_STATUSES:
            return result["data"]
    return result


def wrap(data: JSON) -> JSON:
    """Give a result with this data: data that looks like an envelope is put into one, other data stays."""
    return data if unwrap(data) is data else {"data": data}

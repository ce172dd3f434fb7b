"""The results that a fork takes over, each at a place of its own, by which its arrivals name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model import JSON

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from noetl_broker.broker.journey import Result
    from noetl_broker.broker.state import Arrival, Visit

BY_HAND = 2**40  # names of results that were given by hand begin here: no execution has so many turns


class Wanted(NamedTuple):
    """One result to be taken: by its name in the execution that it comes from, or the value given for it."""

    step: str
    visit: int
    status: str
    name: int
    by_hand: bool = False
    value: JSON = None


class Shelf:
    """Results by their names; a place is given to each when it is asked for, from 1."""

    def __init__(
        self,
        results: Mapping[Visit, Result],
        values: Mapping[str, JSON],
        latest: Mapping[str, int],
        *,
        steps: Collection[str],
    ) -> None:
        """Put the `values` given by hand over the results of their steps' latest visits; only `steps`' are taken."""
        self._steps = steps
        self._named = {
            result.name: Wanted(step, visit, result.status, result.name) for (step, visit), result in results.items()
        }
        self._order: list[int] = []
        self.of_step: dict[str, Wanted] = {}
        for wanted in sorted(self._named.values(), key=lambda wanted: wanted.visit):
            self.of_step[wanted.step] = wanted
        for number, (step, value) in enumerate(values.items()):
            under = self.of_step.get(step)
            visit = under.visit if under is not None else max(latest.get(step, 0), 1)
            name = under.name if under is not None else BY_HAND + number
            wanted = Wanted(step, visit, "COMPLETED", name, by_hand=True, value=value)
            self.of_step[step] = self._named[name] = wanted

    def place(self, name: int | None) -> int | None:
        """The place of a result, from 1; None of one that is not taken."""
        if name is None or name not in self._named or self._named[name].step not in self._steps:
            return None
        if name not in self._order:
            self._order.append(name)
        return self._order.index(name) + 1

    def placed(self, arrival: Arrival) -> Arrival:
        """The arrival, naming its result by place."""
        return arrival._replace(result=self.place(arrival.result))

    def take_latest(self, steps: Collection[str]) -> None:
        """Give a place to the latest result of each of these steps that has one."""
        for step in steps:
            if step in self.of_step:
                self.place(self.of_step[step].name)

    def documents(self) -> list[dict[str, JSON]]:
        """The results in their places, as the store wants them: of which turn, of which event, or which value."""
        return [_document(self._named[name]) for name in self._order]

    def taken(self) -> list[Wanted]:
        """The results in their places."""
        return [self._named[name] for name in self._order]


def _document(wanted: Wanted) -> dict[str, JSON]:
    document: dict[str, JSON] = {"step": wanted.step, "visit": wanted.visit, "status": wanted.status}
    if wanted.by_hand:
        return {**document, "set": wanted.value}
    return {**document, **({"turn": wanted.name} if wanted.name > 0 else {"source": -wanted.name})}

"""Random conditions and inputs of a step: mostly careful ones, now and then one that fails."""

from __future__ import annotations

from random import Random

from tests.simulation.expressions import (
    Both,
    Compare,
    Constant,
    Expression,
    Fallback,
    Negated,
    Present,
    Read,
    Sentence,
    Value,
)
from tests.simulation.plans import Inputs

KEYS = ("x", "flag", "word")
INPUT_NAMES = ("p", "item", "attempt", "size")  # some are words that an iterator or a retry has too


class Values:
    """What a step may write in its templates: `before` are the steps that it may look back at."""

    def __init__(self, chance: Random, name: str, names: list[str], before: list[str], *, calm: bool) -> None:
        """A calm author looks at nothing that another token may still change."""
        self.chance = chance
        self.name = name
        self.names = [name] if calm else names
        self.before = [name] if calm else before
        self.calm = calm

    def condition(self) -> Expression:
        """Return a condition."""
        read = self._read()
        simple: Expression = self.chance.choice(
            (
                Compare(Fallback(Read("result", ("x",)), self.chance.randint(0, 9)), ">", Constant(4)),
                Compare(Fallback(read, self.chance.randint(0, 9)), "!=", Constant(4)),
                Compare(Fallback(Read(read.root, ("x",)), 5), self.chance.choice(("<", ">=", "==")), Constant(5)),
                Compare(Fallback(Read("result", ("x",)), 1), "<=", Constant(self.chance.randint(2, 6))),
                Fallback(Read(read.root, (self.chance.choice(KEYS),)), ""),
                Present(read),
                Compare(Fallback(Read(self.name, ("status",)), ""), "==", Constant("FAILED")),
            )
        )
        if self._now(0.03):
            return Compare(read, "<", Constant(5))
        if self._now(0.15):
            return Both(Present(read), Compare(Fallback(Read("result", ("x",)), 3), ">", Constant(2)))
        return Negated(simple) if self._now(0.1) else simple

    def inputs(self, odds: float) -> Inputs:
        """Return one or two inputs, or none."""
        if not self._now(odds):
            return ()
        names = self.chance.sample(INPUT_NAMES, self.chance.choice((1, 1, 2)))
        return tuple((name, self._value()) for name in names)

    def _now(self, odds: float) -> bool:
        return self.chance.random() < odds

    def _read(self) -> Read:
        step = self.chance.choice(self.before) if self._now(0.8) else self.chance.choice(self.names)
        key = self.chance.choice((("x",), ("x",), ("word",), ("flag",), ("data", "x"), ()))
        return self.chance.choice(
            (
                Read(step, key),
                Read(step, key),
                Read(step, ("x",), by_results=True),
                Read("workload", ("size",)),
                Read("size"),
                Read("deep", ("x",)),
                Read(self.chance.choice(INPUT_NAMES)),
            )
        )

    def _value(self) -> Value:
        kind = self.chance.choices(("constant", "fallback", "result", "sentence", "bare"), (25, 45, 15, 12, 3))[0]
        if kind == "constant":
            return Constant(self.chance.choice((1, 7, "007", True, None, [1, 2])))
        if kind == "result":
            return Fallback(Read("result", ("x",)), None)
        if kind == "sentence":
            return Sentence("about", Fallback(Read(self._read().root, ("x",)), 0))
        return self._read() if kind == "bare" else Fallback(self._read(), self.chance.choice((0, 3, "none")))

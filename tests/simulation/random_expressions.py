"""Random conditions and inputs of a step: most can be evaluated, a few fail."""

from __future__ import annotations

from random import Random

from tests.simulation.expressions import (
    And,
    Compare,
    Constant,
    Default,
    Expression,
    IsDefined,
    Not,
    Read,
    Text,
    Value,
)
from tests.simulation.plans import Inputs

KEYS = ("x", "flag", "word")
INPUT_NAMES = ("p", "item", "attempt", "size")  # some are also names of an iterator or of a retry


class ExpressionWriter:
    """Writes the templates of one step; `before` are the steps before it."""

    def __init__(self, random: Random, name: str, names: list[str], before: list[str], *, stable: bool) -> None:
        """In a stable plan, a template reads nothing that another token may change."""
        self.random = random
        self.name = name
        self.names = [name] if stable else names
        self.before = [name] if stable else before
        self.stable = stable

    def condition(self) -> Expression:
        """Return a condition."""
        read = self._read()
        simple: Expression = self.random.choice(
            (
                Compare(Default(Read("result", ("x",)), self.random.randint(0, 9)), ">", Constant(4)),
                Compare(Default(read, self.random.randint(0, 9)), "!=", Constant(4)),
                Compare(Default(Read(read.root, ("x",)), 5), self.random.choice(("<", ">=", "==")), Constant(5)),
                Compare(Default(Read("result", ("x",)), 1), "<=", Constant(self.random.randint(2, 6))),
                Default(Read(read.root, (self.random.choice(KEYS),)), ""),
                IsDefined(read),
                Compare(Default(Read(self.name, ("status",)), ""), "==", Constant("FAILED")),
            )
        )
        if self._chance(0.03):
            return Compare(read, "<", Constant(5))
        if self._chance(0.15):
            return And(IsDefined(read), Compare(Default(Read("result", ("x",)), 3), ">", Constant(2)))
        return Not(simple) if self._chance(0.1) else simple

    def inputs(self, odds: float) -> Inputs:
        """Return one or two inputs, or none."""
        if not self._chance(odds):
            return ()
        names = self.random.sample(INPUT_NAMES, self.random.choice((1, 1, 2)))
        return tuple((name, self._value()) for name in names)

    def _chance(self, odds: float) -> bool:
        return self.random.random() < odds

    def _read(self) -> Read:
        step = self.random.choice(self.before) if self._chance(0.8) else self.random.choice(self.names)
        key = self.random.choice((("x",), ("x",), ("word",), ("flag",), ("data", "x"), ()))
        return self.random.choice(
            (
                Read(step, key),
                Read(step, key),
                Read(step, ("x",), by_results=True),
                Read("workload", ("size",)),
                Read("size"),
                Read("deep", ("x",)),
                Read(self.random.choice(INPUT_NAMES)),
            )
        )

    def _value(self) -> Value:
        kind = self.random.choices(("constant", "default", "result", "text", "bare"), (25, 45, 15, 12, 3))[0]
        if kind == "constant":
            return Constant(self.random.choice((1, 7, "007", True, None, [1, 2])))
        if kind == "result":
            return Default(Read("result", ("x",)), None)
        if kind == "text":
            return Text("about", Default(Read(self._read().root, ("x",)), 0))
        return self._read() if kind == "bare" else Default(self._read(), self.random.choice((0, 3, "none")))

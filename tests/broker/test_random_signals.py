"""Random signals and waits: the core takes them as a simple model of them does, whatever waits the store tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import pytest

from noetl_broker.broker.core import Session
from noetl_broker.broker.model import JSON, Decision, Event
from noetl_broker.broker.signals import MOST_TRIED
from noetl_broker.broker.state import decode, encode
from noetl_broker.history.story import STORY_START
from tests.stories import playbook

SEEDS = 300
NAMES = ("a", "b")
# Two loops of waits beside each other: each reads signals until one says that it is the last.
LOOPS = """
workflow:
- {{step: start, next: [{{step: x}}, {{step: y}}, {{step: busy}}]}}
- {{step: busy, type: python, code: c, next: z}}
{waits}
"""


@dataclass
class Wait:
    """A wait of the model: its step, what fits it, and whether it is open."""

    step: str
    names: tuple[str, ...]
    key: str
    modulus: int
    rest: int
    began: int = -1  # -1: not open

    def fits(self, signal: dict[str, JSON]) -> bool:
        """Whether it takes this signal."""
        fits: bool = signal["payload"]["n"] % self.modulus == self.rest
        return signal["name"] in self.names and signal["key"] == self.key and fits


@dataclass
class Model:
    """What should happen: each signal goes to the oldest open wait that fits, and is kept otherwise."""

    waits: list[Wait]
    kept: list[dict[str, JSON]] = field(default_factory=list)
    taken: list[tuple[str, int]] = field(default_factory=list)
    moment: int = 0

    def begin(self, *steps: str) -> None:
        """Begin waits in one turn; each that completes begins again."""
        self.moment += 1
        pending = [wait for step in steps for wait in self.waits if wait.step == step]
        while pending:
            wait = pending.pop(0)
            found = next((signal for signal in self.kept if wait.fits(signal)), None)
            if found is None:
                wait.began = self.moment
                continue
            self.kept.remove(found)
            self.taken.append((wait.step, found["payload"]["n"]))
            pending.append(wait)

    def receive(self, signal: dict[str, JSON]) -> None:
        """A signal arrives."""
        self.moment += 1
        open_waits = [wait for wait in self.waits if wait.began >= 0]
        order = sorted(open_waits, key=lambda wait: (wait.began, self.waits.index(wait)))
        taker = next((wait for wait in order if wait.fits(signal)), None)
        if taker is None:
            self.kept.append(signal)
            return
        self.taken.append((taker.step, signal["payload"]["n"]))
        taker.began = -1
        self.moment -= 1
        self.begin(taker.step)


def body_of(waits: list[Wait]) -> str:
    """Return the playbook of these waits; each leads to itself."""
    lines = [
        f"- {{step: {wait.step}, type: wait, signal: [{', '.join(wait.names)}], "
        + ("key: k, " if wait.key == "k" else "")
        + f'when: "{{{{ signal.payload.n % {wait.modulus} == {wait.rest} }}}}", next: {wait.step}}}'
        for wait in waits
    ]
    return LOOPS.format(waits="\n".join(lines))


def random_waits(random: Random) -> list[Wait]:
    """Return three waits that want different signals."""
    made = []
    for step in ("x", "y", "z"):
        modulus = random.choice((1, 1, 2, 3))
        names = tuple(random.sample(NAMES, random.randint(1, 2)))
        made.append(Wait(step, names, random.choice(("1", "k")), modulus, random.randrange(modulus)))
    return made


def completed(decision: Decision) -> list[tuple[str, int]]:
    """Give the waits that a decision completed, with the numbers of their signals."""
    ended = (event for event in decision.events if event.type == "step_completed" and event.step in {"x", "y", "z"})
    return [(event.step or "", event.result["payload"]["n"]) for event in ended]


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_random_signals_are_taken_as_the_model_says(first: int) -> None:
    """Between two turns the state is that of its JSON; a doubled event changes nothing."""
    for seed in range(first, first + 50):
        random = Random(seed)
        waits = random_waits(random)
        model, session = Model(waits), Session(playbook(body_of(waits)))
        session.apply(Event("execution_start"), STORY_START)
        model.begin("x", "y")
        found: list[tuple[str, int]] = []
        busy = random.randrange(30)
        for number in range(40):
            at = STORY_START + timedelta(seconds=number + 1)
            if number == busy:
                found += completed(session.apply(Event("action_completed", "busy", 1, 1), at))
                model.begin("z")
            signal = {
                "name": random.choice(NAMES),
                "key": random.choice(("1", "k")),
                "payload": {"n": number},
                "at": "",
            }
            told = random.choice(
                [*(visit for visit, token in session.state.tokens.items() if token.awaited), (None, None)]
            )
            event = Event("execution_signal", *told, context=signal)
            found += completed(session.apply(event, at))
            model.receive(signal)
            assert session.apply(event._replace(stale=True), at).outcome == "duplicate"
            assert decode(encode(session.state)) == session.state
            assert len(session.state.signals) == len(model.kept) < MOST_TRIED
        assert (seed, found) == (seed, model.taken)

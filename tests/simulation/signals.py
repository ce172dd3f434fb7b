"""The signals of a world: sent from outside and by steps, and brought to waits in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.template.durations import moment_text
from tests.simulation.life import Life, OpenWait
from tests.simulation.random_plans import SIGNALS

if TYPE_CHECKING:
    from tests.simulation.world import World

SENDERS = 3
KEYS = ("k", "k", "3", "quick")
MOST_HELP = 8  # signals to one execution that nobody else sends
PAYLOADS: tuple[Any, ...] = (None, {"n": "many", "flag": "no"}, {"data": {"x": 3}}, {"x": 5, "items": [1, 2]}, 7)


class Signal(NamedTuple):
    """A signal that was sent."""

    number: int
    name: str
    key: str
    payload: Any
    sent_at: datetime
    sender: str


class Signals:
    """All signals of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sent: list[Signal] = []
        self.left = world.scenario.signals  # to be sent from outside
        self.helped = Counter[int]()

    def begin(self) -> None:
        """Let the senders begin; each sends its next signal after the one before."""
        for sender in range(min(self.left, SENDERS)):
            self._plan(f"sender {sender}")

    def _plan(self, sender: str) -> None:
        if self.left:
            self.left -= 1
            self.world.later(self.world.random.choice((0.0, 0.0, 0.1, 1.0, 4.0)), partial(self._send, sender))

    def _send(self, sender: str) -> None:
        random = self.world.random
        live = [life.number for life in self.world.lives.values() if life.is_live]
        own = random.choice(live) if live and random.random() < 0.6 else None
        payload = random.choice((*PAYLOADS, {"n": random.randint(0, 9)}, {"n": random.randint(0, 9)}))
        self.add(random.choice(SIGNALS), str(own or random.choice(KEYS)), payload, sender=sender)
        self._plan(sender)

    def add(self, name: str, key: str, payload: Any, *, sender: str = "somebody") -> None:
        """Send a signal."""
        world = self.world
        self.sent.append(Signal(world.next_id(), name, key, payload, world.clock(), sender))
        world.may_match = True

    def match(self) -> None:
        """Bring signals to some of the open waits; the others get theirs later."""
        world = self.world
        world.may_match = False
        chosen: set[tuple[int, int]] = set()
        for life, wait in sorted(self._open(), key=lambda entry: entry[1].began):
            signal = next(self.fitting(life, wait), None)
            if signal is None:
                continue
            if world.random.random() < 0.1 or (life.number, signal.number) in chosen:
                world.may_match = True
                continue
            chosen.add((life.number, signal.number))
            wait.status = "signalled"
            self._tell(life, wait, signal)

    def _open(self) -> list[tuple[Life, OpenWait]]:
        lives = (life for life in self.world.lives.values() if life.is_live and life.waits)
        return [(life, wait) for life in lives for wait in life.waits.values() if _is_open(wait)]

    def fitting(self, life: Life, wait: OpenWait) -> Iterator[Signal]:
        """Yield the signals that fit a wait and that did not come to its execution, in their order."""
        wanted = wait.wait
        for signal in self.sent:
            is_new = signal.number not in life.taken and signal.sent_at >= wait.since
            if is_new and signal.key == wanted.key and signal.name in wanted.names:
                yield signal

    def _tell(self, life: Life, wait: OpenWait, signal: Signal) -> None:
        context = {"name": signal.name, "key": signal.key, "payload": signal.payload, "signal_id": signal.number}
        context["at"] = moment_text(signal.sent_at)
        before = (life.started_at - signal.sent_at).total_seconds()
        if before > 0:
            context["before_start"] = before
        life.taken[signal.number] = self.world.send(life, "execution_signal", wait.node, context=context)

    def help(self) -> bool:
        """Send a signal that fits a wait which waits for ever, or cancel its execution; False if there is none."""
        for life, wait in self._open():
            self.helped[life.number] += 1
            if self.helped[life.number] <= MOST_HELP:
                random = self.world.random
                payload = {"n": random.randint(0, 9), "flag": True}
                self.add(random.choice(wait.wait.names), wait.wait.key or "", payload)
                return True
            if self.helped[life.number] == MOST_HELP + 1:
                self.world.send(
                    life, "execution_cancel", str(life.number), context={"reason": "nobody sends its signal"}
                )
                return True
        return False

    def lost(self) -> Iterator[str]:
        """Yield the waits that miss a signal, where nothing is left to do."""
        for life in self.world.lives.values():
            for wait in life.waits.values():
                if life.is_live and wait.wait.kind == "signal" and not life.mail:
                    if wait.status == "signalled":
                        yield f"wait {wait.node} is signalled, but no signal is on its way"
                    elif wait.status == "open" and next(self.fitting(life, wait), None):
                        yield f"wait {wait.node} misses a signal"


def _is_open(wait: OpenWait) -> bool:
    return wait.wait.kind == "signal" and wait.status == "open"


def broken_rules(world: World) -> Iterator[str]:
    """Yield each signal that an execution read twice, and signals of one sender that came in another order."""
    senders = {signal.number: signal.sender for signal in world.signals.sent}
    for life in world.lives.values():
        came: set[int] = set()
        for one in life.turns:
            if one.event.kind == "execution_signal" and one.decision.outcome not in {"duplicate", "after_end"}:
                number = one.mail.row["context"]["signal_id"]
                if number in came:
                    yield f"signal {number} came to execution {life.number} twice"
                came.add(number)
        last: dict[tuple[str, str], int] = {}
        nodes = {mail: row["node_id"] for mail, row in world.sent if row["event_type"] == "execution_signal"}
        for number, mail in sorted(life.taken.items(), key=lambda item: item[1]):
            way = nodes[mail], senders[number]
            if senders[number] != "somebody" and number < last.get(way, 0):
                yield f"signal {number} of {way[1]} came to {way[0]} after {last[way]}"
            last[way] = number

"""Growing pauses between attempts of the program itself, as to reach a database. Retries of jobs: broker/work/."""

from __future__ import annotations

import random
from dataclasses import dataclass

RETRY_SECONDS = (0.1, 1.0)  # before a worker tries again to reach a database that is away
JITTER = 0.25  # of the pauses of a worker


@dataclass(slots=True)
class Backoff:
    """Growing pauses in seconds, from `least` to `most`: twice the last one, less a random part (`jitter`)."""

    least: float
    most: float
    jitter: float = 0.0
    pause: float = 0.0  # the last one, without jitter

    def next(self) -> float:
        """The pause before the next attempt."""
        self.pause = min(max(self.pause * 2, self.least), self.most)
        return jittered(self.pause, self.jitter) if self.jitter else self.pause

    def reset(self) -> None:
        """Begin again with `least`."""
        self.pause = 0.0


def jittered(seconds: float, jitter: float) -> float:
    """These seconds less a random part of at most `jitter`, so that several do not try at once."""
    return seconds * random.uniform(1.0 - jitter, 1.0)  # noqa: S311 - jitter is no secret

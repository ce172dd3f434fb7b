"""How many mails a lane claims for its next batch: the only place that decides it.

Two limits apply, and the smaller one counts. Both lie between 1 and the setting `batch_size`.

| limit | lowered | raised |
|---|---|---|
| what one batch can decide | to what the last batch decided in its time | doubled when a batch decides all |
| what the server can take | halved by a fault that a smaller batch may avoid | doubled after 20 good batches |
"""

from __future__ import annotations

from typing import Final

RAISE_AFTER: Final = 20  # batches in a row without a fault


class BatchSize:
    """The batch size of one lane."""

    def __init__(self, largest: int) -> None:
        """Begin with `largest`, which is also the upper bound."""
        self._largest = largest
        self._decidable = largest
        self._acceptable = largest
        self._good_batches = 0

    @property
    def mails(self) -> int:
        """How many mails the next batch may claim."""
        return min(self._decidable, self._acceptable)

    @property
    def is_slow(self) -> bool:
        """Whether the last batches could not decide as much as the setting allows."""
        return self._decidable < self._largest

    def on_decided(self, decided: int, claimed: int) -> None:
        """A batch decided so many of the mails that it claimed."""
        limit = self._decidable * 2 if decided == claimed else decided
        self._decidable = max(1, min(limit, self._largest))

    def on_success(self) -> bool:
        """A batch met no fault. Returns whether the limit of the server was raised for it."""
        self._good_batches += 1
        if self._good_batches < RAISE_AFTER:
            return False
        self._acceptable = min(self._acceptable * 2, self._largest)
        self._good_batches = 0
        return True

    def on_fault(self) -> None:
        """A batch failed: the count of good batches begins again."""
        self._good_batches = 0

    def halve(self, mails: int) -> None:
        """A smaller batch may succeed: claim half of what the failed batch held, or was to claim (`mails` 0)."""
        self._acceptable = max(min(mails or self.mails, self.mails) // 2, 1)

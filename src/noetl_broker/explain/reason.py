"""A reason: one sentence, facts for programs, and the reasons behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from noetl_broker.broker.model.values import JSON

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Reason:
    """A sentence for people, with its `kind` and `facts` for programs; `because` are the reasons behind it."""

    kind: str
    says: str
    facts: dict[str, JSON] = field(default_factory=dict)
    because: tuple[Reason, ...] = ()

    def as_json(self) -> dict[str, JSON]:
        """The reason as a JSON object, without empty keys."""
        document: dict[str, JSON] = {"kind": self.kind, "says": self.says}
        if self.facts:
            document["facts"] = self.facts
        if self.because:
            document["because"] = [reason.as_json() for reason in self.because]
        return document


def was(names: Sequence[object]) -> str:
    """`was` for one name, `were` for several."""
    return "was" if len(names) == 1 else "were"

"""An answer to the question why: a sentence, what it is about, and the answers that it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field

from noetl_broker.broker.model import JSON


@dataclass(frozen=True, slots=True)
class Why:
    """One sentence for a person, with its `kind` and its `facts` for a program; `because` is what it rests on."""

    kind: str
    says: str
    facts: dict[str, JSON] = field(default_factory=dict)
    because: tuple[Why, ...] = ()

    def as_json(self) -> dict[str, JSON]:
        """The answer as one JSON object; what is empty is left out."""
        document: dict[str, JSON] = {"kind": self.kind, "says": self.says}
        if self.facts:
            document["facts"] = self.facts
        if self.because:
            document["because"] = [answer.as_json() for answer in self.because]
        return document

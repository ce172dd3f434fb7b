"""Rules: the settings that decisions depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from noetl_broker.broker.model.values import JSON
from noetl_broker.template import MAX_OUTPUT_CHARS, MAX_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that decisions depend on. They are stored when an execution starts and stay as they are.

    A later version changes a rule by a new field, whose default is the new meaning. `stored_rules` then gives the old
    meaning to an execution that has not stored the field. `pinned` leaves the field out for one minor release: brokers
    of the release before refuse rules that they do not know.
    """

    max_visits: int = 10_000
    max_open_jobs: int = 10_000
    max_nesting: int = 32
    default_max_attempts: int = 1
    undefined_when: str = "error"
    retry_owner: str = "broker"  # or "worker": an error that a worker reports beside the job decides nothing
    template_max_output_chars: int = MAX_OUTPUT_CHARS
    template_max_steps: int = MAX_STEPS
    max_turns: int = 1_000_000
    max_fan_out: int = 1_000
    max_payload_keys: int = 100_000
    max_signals: int = 1_000  # kept by one execution
    beside_noetl: bool = False  # inputs and event statuses as NoETL reads them

    def pinned(self) -> dict[str, JSON]:
        """The rules as they are stored with an execution."""
        return asdict(self)


def stored_rules(document: Mapping[str, JSON]) -> Rules:
    """The rules that are stored with an execution. Raises TypeError if this version does not know one of them."""
    return Rules(**document)

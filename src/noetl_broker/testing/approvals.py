"""The decisions of a test on approvals: true, false, or what a person fills in, now or later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.job import Job
from noetl_broker.playbook.approval import complete_form, faults_of_filled
from noetl_broker.testing.answers import Delayed, InTurn, SimulationFault, as_json, names_of

Verdict = Any  # True, False, None, a mapping with `approved`, a Delayed or an InTurn, or a function of what is shown
DEFAULT_BY = "login:tester"


class Decided(NamedTuple):
    """A decision: the context of `approval_decided` without its moment, and the seconds until it comes."""

    context: dict[str, JSON]
    after: float = 0.0


class Approvals:
    """The decisions of one simulation, by `step` or `path:step`; it counts those of `in_turn`."""

    def __init__(self, verdicts: Mapping[str, Verdict]) -> None:
        self._verdicts = verdicts
        self._in_turn: dict[str, Iterator[Verdict]] = {
            key: iter(verdict.answers) for key, verdict in verdicts.items() if isinstance(verdict, InTurn)
        }

    def decide(self, path: str, step: str, shown: dict[str, JSON]) -> Decided | None:
        """The decision on an approval that shows title, details, form and approvers; None: nobody decides.

        Raises SimulationFault if there is none, or if it does not fit.
        """
        key = next((key for key in names_of(path, step) if key in self._verdicts), None)
        if key is None:
            raise SimulationFault(
                f"step {step} of {path} waits for a person; decide in simulate: approvals={{{step!r}: True}}, or None"
                " if nobody decides"
            )
        verdict = self._verdicts[key]
        if isinstance(verdict, InTurn):
            try:
                verdict = next(self._in_turn[key])
            except StopIteration:
                count = len(verdict.answers)
                raise SimulationFault(
                    f"step {step} of {path} needs one more decision than the {count} of approvals[{key!r}]"
                ) from None
        return _decided(verdict, key, shown)


def _decided(verdict: Verdict, key: str, shown: dict[str, JSON]) -> Decided | None:
    if callable(verdict):
        verdict = verdict(shown)
    if isinstance(verdict, Delayed):
        decided = _decided(verdict.answer, key, shown)
        return None if decided is None else decided._replace(after=verdict.seconds)
    if verdict is None:
        return None
    given = {"approved": verdict} if isinstance(verdict, bool) else verdict
    if not isinstance(given, Mapping) or not isinstance(given.get("approved"), bool):
        raise SimulationFault(
            f"approvals[{key!r}] is {verdict!r:.80}; write True, False, None, or a mapping with `approved`, `by` and"
            " the fields of the form"
        )
    filled = {name: value for name, value in given.items() if name not in {"approved", "by"}}
    filled = as_json(filled, Job(step=key, type="approval"))
    form, approved = shown["form"], given["approved"]
    faults = faults_of_filled(form, filled, approved=approved)
    if faults:
        listed = "; ".join(f"{fault.path or 'it'} {fault.message}" for fault in faults)
        raise SimulationFault(f"approvals[{key!r}] does not fit the form: {listed}")
    by = given.get("by", DEFAULT_BY)
    return Decided({"approved": approved, "by": by, "form": as_stored(complete_form(form, filled))})

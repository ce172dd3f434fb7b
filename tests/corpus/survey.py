"""Surveys playbooks from elsewhere: whether they are accepted, how runs of them end, and what no run reaches.

`python -m tests.corpus.survey`, in the checkout, prints a table.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple, TextIO

from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.broker.model.event import Emitted, Event
from noetl_broker.playbook import Finding, Playbook, PlaybookRules, check
from noetl_broker.playbook.compile import read_document
from noetl_broker.playbook.model import Step
from noetl_broker.playbook.reader import Reading
from noetl_broker.template import Template
from tests.corpus.scripted_run import Run, Script, run_to_end
from tests.corpus.scripts import LEAVES, ScriptWriter

VARIABLE = "NOETL_BROKER_CORPUS"
FOLDER = Path(__file__).parents[2].parent / "shared" / "corpus"
RANDOM_SCRIPTS = 20
FAILURES = (
    {"message": "busy", "status_code": 503},
    {"message": "gone", "status_code": 404},
    {"message": "odd"},
    {"message": "well", "status_code": 200},
)
LIMITS = frozenset({"max_visits", "max_open_jobs", "max_nesting", "router_cycle"})
UNREACHABLE = "no path from `start` leads to it"
NO_FAILURE = "no tried failure leads to it"


class Condition(NamedTuple):
    """A condition of a step, and its place in the playbook."""

    step: str
    at: str


@dataclass(slots=True, kw_only=True)
class Survey:
    """The survey of one document: how runs ended, and what no run reached, with the reason (empty: unknown)."""

    name: str
    findings: tuple[Finding, ...]
    ends: Counter[str] = field(default_factory=Counter)
    past_limits: set[str] = field(default_factory=set)
    unvisited: dict[str, str] = field(default_factory=dict)  # by step
    missing: dict[tuple[Condition, bool], str] = field(default_factory=dict)  # by condition and outcome

    @property
    def verdict(self) -> str:
        """Whether it is accepted, accepted with warnings, or refused."""
        severities = {found.severity for found in self.findings}
        return "refused" if "error" in severities else "warned" if severities else "accepted"

    @property
    def codes(self) -> set[str]:
        """The codes of the errors, or of the warnings where there is no error."""
        severity = "error" if self.verdict == "refused" else "warning"
        return {found.code for found in self.findings if found.severity == severity}


def documents() -> list[Path]:
    """Return the files of the corpus; none if there is no corpus."""
    return sorted(Path(os.environ.get(VARIABLE) or FOLDER).glob("*.yaml"))


def survey(path: Path) -> Survey:
    """Check one document; if it is accepted, run it with many scripts. Raises what the core raises."""
    source = path.read_bytes()
    found = Survey(name=path.name, findings=check(source, file=path.name, rules=PlaybookRules()))
    reading, playbook, *_ = read_document(source, file=path.name, rules=PlaybookRules())
    if found.verdict == "refused" or playbook is None:
        return found
    seen = _Seen(playbook)
    for script in scripts_of(playbook, reading, Random(zlib.crc32(source))):
        run = run_to_end(playbook, script)
        seen.add_run(run)
        found.ends[run.state.status] += 1
        if run.error.get("type") in LIMITS:
            found.past_limits.add(str(run.error["message"]))
    found.unvisited = {name: seen.why_not(name) for name in playbook.steps if name not in seen.steps}
    found.missing = {
        (condition, outcome): seen.why_never(condition, outcome=outcome)
        for condition in seen.conditions
        for outcome in (True, False)
        if (condition, outcome) not in seen.outcomes
    }
    return found


def scripts_of(playbook: Playbook, reading: Reading, random: Random) -> Iterator[Script]:
    """Yield scripts: empty, plausible, for each condition, with failing steps, and random ones."""
    scripts = ScriptWriter(playbook, reading)
    yield Script({}, {})
    yield from (scripts.plausible(leaf) for leaf in LEAVES)
    for step in playbook.steps.values():
        for condition in _conditions(step):
            for outcome in (True, False):
                yield from scripts.for_condition(step, condition, outcome=outcome)
        if step.has_action:
            for failure in FAILURES:
                yield from (scripts.plausible()._replace(failures={step.name: [failure] * often}) for often in (1, 20))
    yield from (scripts.plausible(random=random) for _ in range(RANDOM_SCRIPTS))


class _Seen:
    """What runs have shown: visited steps, outcomes of conditions, templates that ended runs."""

    def __init__(self, playbook: Playbook) -> None:
        self.playbook = playbook
        self.steps: set[str] = set()
        self.outcomes: set[tuple[Condition, bool]] = set()
        self.errors: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)  # by step: place and message
        self.conditions = [
            Condition(step.name, template.at)
            for step in playbook.steps.values()
            for template in (*_conditions(step), *_retry_conditions(step))
        ]

    def add_run(self, run: Run) -> None:
        """Add what one run shows."""
        self.steps |= {step.name for step in self.playbook.steps.values() if run.state.seen >> step.index & 1}
        if "at" in run.error:
            step = str(run.error.get("step", "start"))
            self.errors[step][run.error["at"], str(run.error["message"])] += 1
        if run.turns[0][1].last(ExecutionBegun) is not None and not any(
            event.step == "start" for event in run.turns[0][1].events
        ):
            self._note_start(run.turns[0][1])
        for event, decision in run.turns:
            for emitted in decision.events:
                of_step = self.playbook.steps.get(emitted.step or "")
                if of_step is not None:
                    self._note(of_step, event, emitted)

    def why_not(self, name: str) -> str:
        """Return why no run reached or passed a step: the last template that failed on the way."""
        can_reach = self.playbook.graph.can_reach
        if name != "start" and not can_reach("start", name):
            return UNREACHABLE
        last = ""
        for step in self.errors:
            if (step == name or can_reach(step, name)) and (not last or can_reach(last, step)):
                last = step
        return ": ".join(self.errors[last].most_common(1)[0][0]) if last else ""

    def why_never(self, condition: Condition, *, outcome: bool) -> str:
        """Return why a condition never had this outcome."""
        own = [message for at, message in self.errors.get(condition.step, ()) if at == condition.at]
        if own:
            return own[0]
        if ".retry." in condition.at and (condition, not outcome) in self.outcomes:
            return NO_FAILURE
        return self.why_not(condition.step)

    def _note(self, step: Step, event: Event, emitted: Emitted) -> None:
        recorded = (emitted.meta or {}).get("next", ())
        for condition, entry in zip(_conditions(step), recorded, strict=False):
            self.outcomes.add((Condition(step.name, condition.at), entry["outcome"]))
        if emitted.type in {"action_retry", "step_failed"} and event.error is not None:
            self._note_retry(step, event, emitted)

    def _note_start(self, decision: Decision) -> None:
        """Infer the outcomes of `start`, which has no event, from the arcs that were taken."""
        taken = {arc for event in decision.events for arc in (event.meta or {}).get("arcs", ())}
        ended = any(row.step == "end" for row in decision.rows)
        for entry in self.playbook.start.next:
            if entry.condition is not None:
                true = any(target.arc in taken or (ended and target.step == "end") for target in entry.then)
                self.outcomes.add((Condition("start", entry.condition.at), true))

    def _note_retry(self, step: Step, event: Event, emitted: Emitted) -> None:
        retry, again = step.retry, emitted.type == "action_retry"
        if retry is None or event.attempt >= retry.max_attempts or "retry_error" in (emitted.error or {}):
            return
        if retry.stop_when is not None:
            self.outcomes.add((Condition(step.name, retry.stop_when.at), not again))
        if retry.retry_when is not None:
            self.outcomes.add((Condition(step.name, retry.retry_when.at), again))


def _conditions(step: Step) -> list[Template]:
    return [entry.condition for entry in step.next if entry.condition is not None]


def _retry_conditions(step: Step) -> list[Template]:
    templates = (step.retry.retry_when, step.retry.stop_when) if step.retry is not None else ()
    return [template for template in templates if template is not None]


def print_table(surveys: list[Survey], out: TextIO) -> None:
    """Print the table, and what no run reached."""
    lines = [f"{len(surveys)} documents"]
    for verdict in ("accepted", "warned", "refused"):
        of_kind = [found for found in surveys if found.verdict == verdict]
        lines.append(f"  {verdict:<22}{len(of_kind):>4}")
        codes = Counter(code for found in of_kind for code in found.codes)
        lines += [f"    {code:<20}{count:>4}" for code, count in codes.most_common()]
    ends = sum((found.ends for found in surveys), Counter[str]())
    lines.append(f"{ends.total()} runs: {', '.join(f'{count} {status}' for status, count in ends.items())}")
    lines.append(f"steps that no run visited: {sum(len(found.unvisited) for found in surveys)}")
    for found in surveys:
        for why in dict.fromkeys(found.unvisited.values()):
            steps = ", ".join(step for step, reason in found.unvisited.items() if reason == why)
            lines.append(f"  {found.name}: {steps}\n    {why or 'reason unknown'}")
    lines.append(f"outcomes that no condition had: {sum(len(found.missing) for found in surveys)}")
    for found in surveys:
        for (condition, outcome), why in found.missing.items():
            lines.append(f"  {found.name}: {condition.at} never {str(outcome).lower()}\n    {why or 'reason unknown'}")
    print("\n".join(lines), file=out)


if __name__ == "__main__":
    print_table([survey(path) for path in documents()], sys.stdout)

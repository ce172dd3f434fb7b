"""Reads `join`: a word, or how many arrivals a step needs and what becomes of the losers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keywords import END
from noetl_broker.playbook.model import Join, Losers, Raw
from noetl_broker.playbook.plain_values import Range, read_integer, read_word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.playbook.graph import Graph
    from noetl_broker.playbook.model import Step
    from noetl_broker.playbook.reader import Reading

CODE = "bad-join"
JOINS: tuple[Join, ...] = ("all", "any", "each")
LOSERS: tuple[Losers, ...] = ("run", "cancel")
KEYS = ("need", "losers")
NEEDS = Range(1, 10_000)
HINT = "the default is all; for a number of arrivals write {need: 2}"


class Joining(NamedTuple):
    """The fields `join`, `need` and `losers` of a step."""

    join: Join | None = None
    need: int = 1
    losers: Losers = "run"


def read_join(reading: Reading, raw: Any, location: Location) -> Joining:
    """Read a `join`; a wrong value is reported and becomes its default."""
    if isinstance(raw, dict):
        return _read_mapping(reading, raw, location)
    if raw is None:
        return Joining()
    if not isinstance(raw, str):
        message = f"`join` is {json_type_name(raw)}, not one of {', '.join(JOINS)}"
        reading.report.error("bad-value", location, message, HINT)
        return Joining()
    word = read_word(reading, raw, location, JOINS)
    return Joining(next((join for join in JOINS if join == word), None))


def hint_for_misplaced_key(raw: Raw, key: str) -> str:
    """Say how the `join` of a step is written that has a key of it beside it; empty for any other key."""
    if key not in KEYS:
        return ""
    join = raw.get("join")
    need = join.get("need") if isinstance(join, dict) else raw.get("need")
    parts = f"need: {need if type(need) is int else 1}"
    if key == "losers" or raw.get("losers") is not None:
        parts += f", losers: {raw['losers'] if raw['losers'] in LOSERS else 'cancel'}"
    return f"write join: {{{parts}}}"


def _read_mapping(reading: Reading, raw: dict[str, Any], location: Location) -> Joining:
    for key in raw:
        if key not in KEYS:
            hint = reading.report.did_you_mean(key, KEYS)
            reading.report.error(CODE, (*location, key), f"unknown key `{key}` in `join`", hint, key=True)
    if raw.get("need") is None:
        reading.report.error(
            CODE, location, "`join` does not say how many arrivals it needs", "write need: 1, or a number"
        )
        return Joining("any")
    need = read_integer(reading, raw["need"], (*location, "need"), NEEDS, CODE)
    losers = raw.get("losers")
    word = None if losers is None else read_word(reading, losers, (*location, "losers"), LOSERS, CODE)
    return Joining("any", need or 1, "cancel" if word == "cancel" else "run")


def refuse_unmet_needs(
    reading: Reading, steps: Mapping[str, Step], graph: Graph, locations: Mapping[str, Location]
) -> None:
    """Report each join that needs more arrivals than tokens can come."""
    needing = [step for step in steps.values() if step.need > max(graph.incoming(step.name), 1)]
    if not needing:
        return
    repeated = _repeated(steps, graph)
    for step in needing:
        if not any(source in repeated and step.name in graph.successors(source) for source in steps):
            count = graph.incoming(step.name)
            leads = (
                "no transition leads" if count == 0 else f"only {count} transition{'s lead' if count > 1 else ' leads'}"
            )
            reading.report.error(
                CODE,
                (*locations[step.name], "join", "need"),
                f"the join `{step.name}` needs {step.need} arrivals, and {leads} to it",
                f"write a `need` of at most {max(count, 1)}",
            )


def _repeated(steps: Mapping[str, Step], graph: Graph) -> frozenset[str]:
    """Give the steps that may be visited several times: in a loop, at or behind a join `each` up to the next join."""
    found = {name for name, step in steps.items() if graph.can_reach(name, name) or _runs_for_each(step, graph)}
    fresh = list(found)
    while fresh:
        for target in graph.successors(fresh.pop()):
            if target != END and steps[target].join in {None, "each"} and target not in found:
                found.add(target)
                fresh.append(target)
    return frozenset(found)


def _runs_for_each(step: Step, graph: Graph) -> bool:
    return step.join == "each" and graph.incoming(step.name) > 1

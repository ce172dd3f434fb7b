"""Reads `join`: a word, or how many arrivals a step needs and what becomes of the losers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.keys import Key, Keys, integer, word
from noetl_broker.playbook.keywords import END
from noetl_broker.playbook.model import Losers, Raw
from noetl_broker.playbook.reader import TemplateSite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from noetl_broker.playbook.graph import Graph
    from noetl_broker.playbook.model import Step
    from noetl_broker.playbook.reader import Reading

CODE = "bad-join"
LOSERS: tuple[Losers, ...] = ("run", "cancel")
NEED = Key("need", integer(1, 10_000), "The step runs at this arrival; any is need: 1.", required="1, or a number")
KEYS = Keys(
    model="JoinModel",
    about="How many arrivals a step needs.",
    word="join",
    code=CODE,
    keys=(
        NEED,
        Key(
            "losers",
            word(*LOSERS),
            "What becomes of the other tokens.",
            default="run",
        ),
    ),
)
WORD = word("all", "any", "each")._replace(hint="the default is all; for a number of arrivals write {need: 2}")


def read_join(reading: Reading, name: str, raw: Any, location: Location) -> dict[str, Any]:
    """Read a `join` into the fields of its step; a wrong value is reported and becomes its default."""
    site = TemplateSite(step=name, role="fields")
    if isinstance(raw, dict):
        return {"join": "any", **(KEYS.read_mapping(reading, raw, location, site) or {})}
    return {} if raw is None else {"join": WORD.read(reading, raw, location, site)}


def hint_for_misplaced_key(raw: Raw, key: str) -> str:
    """Say how the `join` of a step is written that has a key of it beside it; empty for any other key."""
    if key not in KEYS.known:
        return ""
    join = raw.get("join")
    need = join.get("need") if isinstance(join, dict) else raw.get("need")
    parts = f"need: {need if type(need) is int else 1}"
    if key == "losers" or raw.get("losers") is not None:
        parts += f", losers: {raw['losers'] if raw['losers'] in LOSERS else 'cancel'}"
    return f"write join: {{{parts}}}"


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

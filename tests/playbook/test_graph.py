"""Who can reach whom."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from noetl_broker.playbook.graph import Graph

NAMES = [f"s{number}" for number in range(7)]
name = st.sampled_from(NAMES)
arcs_of = st.lists(st.tuples(name, name), max_size=14)


def reaches(arcs: list[tuple[str, str]], source: str, target: str, avoiding: frozenset[str]) -> bool:
    """Answer by walking, the plain way."""
    seen: set[str] = set()
    ahead = [end for begin, end in arcs if begin == source]
    while ahead:
        here = ahead.pop()
        if here not in seen:
            seen.add(here)
            ahead += [] if here in avoiding else [end for begin, end in arcs if begin == here]
    return target in seen


@given(arcs_of, name, name, st.frozensets(name, max_size=3))
def test_reaching_is_walking(arcs: list[tuple[str, str]], source: str, target: str, avoiding: frozenset[str]) -> None:
    """The answers from masks are those of a walk."""
    assert Graph(NAMES, arcs).can_reach(source, target, avoiding) == reaches(arcs, source, target, avoiding)


@given(arcs_of, name)
def test_a_cycle_is_a_walk_back_to_its_start(arcs: list[tuple[str, str]], step: str) -> None:
    """Each pair of neighbours is an arc, and there is a cycle exactly where a step reaches itself."""
    cycle = Graph(NAMES, arcs).cycle(step)
    assert bool(cycle) == reaches(arcs, step, step, frozenset())
    assert all(pair in arcs for pair in zip(cycle, cycle[1:] + cycle[:1], strict=True))


def test_a_step_reaches_itself_only_through_a_loop() -> None:
    """One arc or more is asked for."""
    graph = Graph(["a", "b"], [("a", "b"), ("b", "b")])
    assert not graph.can_reach("a", "a")
    assert graph.can_reach("b", "b")


def test_avoided_steps_may_be_the_ends() -> None:
    """Only what lies between counts."""
    graph = Graph(["a", "b", "c"], [("a", "b"), ("b", "c")])
    assert graph.can_reach("b", "c", frozenset({"b", "c"}))
    assert not graph.can_reach("a", "c", frozenset({"b"}))


def test_two_arcs_from_one_source_count_twice() -> None:
    """They arrive twice."""
    assert Graph(["a", "b"], [("a", "b"), ("a", "b")]).incoming("b") == 2


def test_a_long_chain_needs_no_recursion() -> None:
    """A workflow of 5,000 steps in a row is answered."""
    names = [f"s{number}" for number in range(5000)]
    graph = Graph(names, [*pairwise(names), (names[-1], names[1])])
    assert graph.can_reach("s0", "s4999")
    assert len(graph.cycle("s4999")) == 4999

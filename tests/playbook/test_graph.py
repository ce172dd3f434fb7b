"""Which steps can reach which."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noetl_broker.playbook.graph import MOST_BYTES, Graph

NAMES = [f"s{number}" for number in range(7)]
name = st.sampled_from(NAMES)
arcs_of = st.lists(st.tuples(name, name), max_size=14)


def reaches(arcs: list[tuple[str, str]], source: str, target: str, avoiding: frozenset[str]) -> bool:
    """Return the answer of a plain walk."""
    seen: set[str] = set()
    ahead = [end for begin, end in arcs if begin == source]
    while ahead:
        here = ahead.pop()
        if here not in seen:
            seen.add(here)
            ahead += [] if here in avoiding else [end for begin, end in arcs if begin == here]
    return target in seen


@given(arcs_of, name, name, st.frozensets(name, max_size=3))
def test_can_reach_agrees_with_a_walk(
    arcs: list[tuple[str, str]], source: str, target: str, avoiding: frozenset[str]
) -> None:
    """One by one, and all at once."""
    graph, expected = Graph(NAMES, arcs), reaches(arcs, source, target, avoiding)
    assert graph.can_reach(source, target, avoiding) == expected
    assert graph.close().can_reach(source, target, avoiding) == expected
    assert graph.can_reach(source, target) == reaches(arcs, source, target, frozenset())


@pytest.mark.parametrize("steps, avoided, questions", [(100_000, 1, 2_000), (10, 5_000, 150)])
def test_the_cache_of_answers_is_bounded(steps: int, avoided: int, questions: int) -> None:
    """By the size of the answers and of the questions."""
    names = [f"s{number}" for number in range(steps)]
    graph = Graph(names, [("s0", "s1"), ("s1", "s2")])
    others = [f"join {number}" for number in range(avoided + questions)]
    tracemalloc.start()
    for number in range(questions):
        assert not graph.can_reach("s0", "s2", frozenset(["s1", *others[number : number + avoided]]))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < MOST_BYTES + (1 << 20)


def test_a_wide_workflow_caches_little_in_one_turn() -> None:
    """13,000 steps in a row; a token is spent for more joins turn by turn."""
    names = [f"s{number}" for number in range(13_000)]
    graph = Graph(names, pairwise(names))
    tracemalloc.start()
    for number in range(1, 20):
        assert graph.can_reach("s0", "s12999", frozenset(f"join {other}" for other in range(number)))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 20


@given(arcs_of, name)
def test_a_cycle_leads_back_to_its_first_step(arcs: list[tuple[str, str]], step: str) -> None:
    """Neighbours are transitions. A cycle exists exactly if a step reaches itself."""
    cycle = Graph(NAMES, arcs).cycle(step)
    assert bool(cycle) == reaches(arcs, step, step, frozenset())
    assert all(pair in arcs for pair in zip(cycle, cycle[1:] + cycle[:1], strict=True))


def test_a_step_reaches_itself_only_through_a_loop() -> None:
    """A path has at least one transition."""
    graph = Graph(["a", "b"], [("a", "b"), ("b", "b")])
    assert not graph.can_reach("a", "a")
    assert graph.can_reach("b", "b")


def test_avoided_steps_may_be_the_ends() -> None:
    """Only steps between the ends are avoided."""
    graph = Graph(["a", "b", "c"], [("a", "b"), ("b", "c")])
    assert graph.can_reach("b", "c", frozenset({"b", "c"}))
    assert not graph.can_reach("a", "c", frozenset({"b"}))


def test_two_transitions_from_one_step_count_twice() -> None:
    """Both arrive."""
    assert Graph(["a", "b"], [("a", "b"), ("a", "b")]).incoming("b") == 2


def test_a_long_chain_needs_no_recursion() -> None:
    """5,000 steps in a row."""
    names = [f"s{number}" for number in range(5000)]
    graph = Graph(names, [*pairwise(names), (names[-1], names[1])])
    assert graph.can_reach("s0", "s4999")
    assert len(graph.cycle("s4999")) == 4999

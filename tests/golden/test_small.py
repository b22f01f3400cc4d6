"""The small examples' plans: golden bytes, and the bits that they compute."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from genie.graph import print_graph
from genie.testing.snapshots import golden_files
from tests.golden import cases
from tests.golden.support import GOLDEN, LARGE, SPECS, compiled

pytestmark = pytest.mark.usefixtures("warm")

SMALL = sorted(set(SPECS) - set(LARGE))


@pytest.mark.parametrize("name", SMALL)
def test_the_plan_is_golden(name: str, snapshot: SnapshotAssertion) -> None:
    cases.check_golden(name, snapshot)


@pytest.mark.parametrize("name", SMALL)
def test_the_plan_is_clean(name: str) -> None:
    cases.check_clean(name)


@pytest.mark.parametrize("name", SMALL)
def test_the_plan_equals_eager(name: str) -> None:
    cases.check_equals_eager(name)


@pytest.mark.parametrize("name", ["digits", "inplace-before", "squeeze-excite-two"])
def test_the_graph_is_golden(name: str, snapshot: SnapshotAssertion) -> None:
    """The graph after the cut: clones and views taken again are part of it."""
    graph = compiled(name).work.graph
    assert graph is not None
    assert print_graph(graph) == snapshot.use_extension(golden_files(GOLDEN, "graph.txt"))(
        name=name
    )


def test_every_example_has_a_golden_plan_and_every_golden_plan_an_example() -> None:
    assert {p.name.removesuffix(".plan.json") for p in GOLDEN.glob("*.plan.json")} == set(SPECS)
    assert len(SPECS) >= 12

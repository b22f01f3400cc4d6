"""Any placement of any graph computes the same bits, with no needless step."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_schemas.plan import (
    ComputeStep,
    ExecutionPlan,
    FreeStep,
    LoadStep,
    ReturnStep,
    TransferStep,
)
from tests.capture.compiling import (
    Compiled,
    assert_equals_eager,
    compile_module,
    replanned,
    spec_of,
)
from tests.capture.zoo import DIMS, ZOO

# Modules of one operator, or slow ones, show nothing about placement.
LEFT_OUT = {"recurrent", "no_parameters", "no_dims", "vision_mix", "resampling", "weight_norm"}
NAMES = [n for n in ZOO if n not in LEFT_OUT and not n.startswith("dtype_")]


@lru_cache(maxsize=None)
def compiled(name: str) -> Compiled:
    torch.backends.mha.set_fastpath_enabled(False)
    model, inputs = ZOO[name]()
    return compile_module(model.eval(), spec_of(inputs, DIMS.get(name)))


def runs(choices: list[str], length: int) -> st.SearchStrategy[list[str]]:
    """Lists of this length; neighbours are mostly equal, as modules are."""
    one = st.tuples(st.sampled_from(choices), st.integers(0, 3))

    def spread(drawn: list[tuple[str, int]]) -> list[str]:
        found: list[str] = []
        for choice, change in drawn:
            found.append(choice if change == 0 or not found else found[-1])
        return found

    return st.lists(one, min_size=length, max_size=length).map(spread)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=8)
def test_every_placement_gives_the_same_bits(name: str, data: st.DataObject) -> None:
    made = compiled(name)
    assert made.work.graph is not None
    count = len(made.work.graph.nodes)
    devices = data.draw(runs(["d0", "d1", "d2"], count), "devices")
    regions = data.draw(runs(["", "a", "a.b", "c"], count), "regions")
    moved = replanned(made, regions, devices)
    least = {n: d.min for n, d in made.spec.dims.items()}
    other = {n: min(d.min + 2, d.max) for n, d in made.spec.dims.items()}
    assert_equals_eager(moved, least, other)
    nothing_needless(moved.plan)


def nothing_needless(plan: ExecutionPlan) -> None:
    """Every step makes something that a later step or the caller takes; nothing is done twice."""
    taken: set[tuple[str, str]] = set()
    for step in reversed(plan.steps):
        match step:
            case ReturnStep():
                taken.add((step.reads[0], step.device))
            case ComputeStep():
                assert all((name, step.device) in taken for name in step.writes), step.id
                taken.update((name, step.device) for name in step.reads)
            case TransferStep():
                assert (step.writes[0], step.dst) in taken, step.id
                taken.add((step.reads[0], step.src))
            case LoadStep():
                assert all((name, step.device) in taken for name in step.reads), step.id
            case FreeStep():
                assert all((name, step.device) not in taken for name in step.reads), step.id
    moves = [(s.reads[0], s.dst) for s in plan.steps if isinstance(s, TransferStep)]
    assert len(moves) == len(set(moves))
    loads = [(n, s.device) for s in plan.steps if isinstance(s, LoadStep) for n in s.reads]
    assert len(loads) == len(set(loads))

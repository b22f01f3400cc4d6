"""Both baselines compute what the model computes, and the blind one keeps its messages small."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from genie.bench.semantics._blind import Blind
from genie.bench.semantics._cases import MODELS, Constants
from genie.bench.semantics._naive import Naive
from genie.bench.semantics._remote import Remote
from genie.bench.semantics._walk import Walk, sizes
from genie.client.link import LoadedPlan
from genie.client.session import load_plan
from genie.driver import compile_model
from genie.model.loader import load_model
from genie.spec import load_spec
from genie.testing.inputs import sample_inputs
from genie_schemas.plan import ComputeStep, TransferStep
from tests.bench.semantics.peers import remote

SMALL = {
    "vision": "{entry: build}",
    "multimodal": "{entry: build, args: {layers: 1, answers: 10}}",
    "recsys": "{entry: build, args: {rows: 50}}",
}
"""Arguments that make the workloads' models small; their structure stays."""


class Compiled:
    """A workload's plan for two devices, what the model says, and what it was asked."""

    def __init__(self, name: str, folder: Path) -> None:
        text = (MODELS / f"{name}-two.yaml").read_text().replace("20000", "50")
        spec = folder / f"{name}.yaml"
        spec.write_text(text.replace("{entry: build}", SMALL[name]))
        model = MODELS / f"{name}.py"
        compile_model(model, spec, folder / f"{name}.plan.json")
        self.plan: LoadedPlan = load_plan(folder / f"{name}.plan.json")
        loaded = load_spec(spec, {}).spec
        arrays = sample_inputs(loaded, {})
        self.inputs = {key: torch.from_numpy(array) for key, array in arrays.items()}
        with torch.inference_mode():
            given = {key: tensor.clone() for key, tensor in self.inputs.items()}
            found = load_model(model, model.name, loaded, None)(**given)
        self.expected: list[torch.Tensor] = list(pytree.tree_leaves(found))
        plan = self.plan.installed.plan
        shapes = {key: tensor.shape for key, tensor in self.inputs.items()}
        self.walk = Walk(plan, "forward", sizes(plan, "forward", lambda key: shapes[key]))
        self.outputs = [output.name for output in self.walk.entry.outputs]
        self.constants = Constants(self.plan)


@pytest.fixture(scope="module", params=sorted(SMALL))
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, warm_interpreter: Path
) -> Compiled:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(warm_interpreter))
        return Compiled(request.param, tmp_path_factory.mktemp("semantics"))


@pytest.fixture
def remotes() -> Iterator[Mapping[str, Remote]]:
    with ExitStack() as stack:
        yield {device: stack.enter_context(remote()) for device in ("d0", "d1")}


def test_blind_computes_the_same_with_small_messages(
    compiled: Compiled, remotes: Mapping[str, Remote]
) -> None:
    client = Blind(compiled.constants, remotes)
    for _ in range(2):
        held = client.run(compiled.walk, compiled.inputs)
        found = client.read([held[name] for name in compiled.outputs])
        client.drop(held.values())
        for one, other in zip(found, compiled.expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    calls = sum(server.sent.operations for server in remotes.values())
    steps = [step for step in compiled.walk.steps if isinstance(step, ComputeStep)]
    assert calls == 2 * sum(len(compiled.walk.calls(step)) for step in steps)
    assert sum(server.sent.bytes for server in remotes.values()) <= 128 * calls
    # Every server had work, and keeps its constants alone.
    assert all(server.sent.operations for server in remotes.values())
    client.forget()
    assert all(server.kept == 0 for server in remotes.values())


def test_naive_computes_the_same(compiled: Compiled, remotes: Mapping[str, Remote]) -> None:
    found = Naive(compiled.constants, remotes).run(compiled.walk, compiled.inputs)
    for name, expected in zip(compiled.outputs, compiled.expected, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-5)


def test_the_plan_keeps_activations_from_the_client(compiled: Compiled) -> None:
    """What crosses devices crosses by transfers, and nothing but the answer is returned."""
    plan = compiled.plan.installed.plan
    returned = {step.reads[0] for step in plan.steps if step.kind == "return"}
    assert returned == {output.value for output in compiled.walk.entry.outputs}
    assert len(returned) == 1
    crossing = [step for step in plan.steps if isinstance(step, TransferStep)]
    given = {item.name for item in compiled.walk.entry.inputs}
    assert crossing
    assert all(step.reads[0] not in given for step in crossing)

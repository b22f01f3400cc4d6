"""Every example builds the same weights everywhere, fits its specs, and exports bit for bit."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import plans.bert.model
import plans.clip.model
import plans.digits.model
import plans.dlrm.model
import plans.encoder.model
import plans.gpt2_tiny.model
import plans.inplace_views.model
import plans.masked_lm.model
import plans.resnet18.model
import plans.squeeze_excite.model
import plans.unet.model
import plans.vit.model
from genie.spec import load_spec
from genie.testing.inputs import sample_inputs
from genie_schemas.spec import Spec

PLANS = Path(__file__).resolve().parents[2] / "plans"
SPECS = sorted(p for end in ("*/*.yaml", "*/*.toml") for p in PLANS.glob(end))
BUILD = {
    "bert": plans.bert.model.build,
    "clip": plans.clip.model.build,
    "digits": plans.digits.model.build,
    "dlrm": plans.dlrm.model.build,
    "encoder": plans.encoder.model.build,
    "gpt2_tiny": plans.gpt2_tiny.model.build,
    "inplace_views": plans.inplace_views.model.build,
    "masked_lm": plans.masked_lm.model.build,
    "resnet18": plans.resnet18.model.build,
    "squeeze_excite": plans.squeeze_excite.model.build,
    "unet": plans.unet.model.build,
    "vit": plans.vit.model.build,
}

# Language models, whose entry points the compiler infers; tests/llm compares what they generate.
SPEAKING = {"gpt2_tiny"}
FORWARD = sorted(set(BUILD) - SPEAKING)

# sha256 over names, dtypes, shapes and bytes of the state dict: the same on every machine.
WEIGHTS = {
    "bert": "a1ea30f7c2615b1109ca298008c8af0da3c70c7c67f1249e639833d93d28808e",
    "clip": "e4e3a3d98209a4aaf1e746fd135d73736ecc772a9fb424d1a2e0cb605dd53f01",
    "dlrm": "6713e6246e1fb2fa5a95c4d0271083905538d645b0cf834ea6a570c4167ebb33",
    "encoder": "03535a555917f42a0dcc56ba2d9ee4e80a581be0268d37308632b645d4fed544",
    "gpt2_tiny": "d4282249d076d6b5ccde6f7fbe3249ec8c8d82128dec0022aadb5b72cf237e3c",
    "inplace_views": "bc23ed3ce9ead4e3ef7a1f2b7956ec70f991f15d0c46de986606793ddc0e0f50",
    "masked_lm": "d0e32c602a1660ef5342d6664039733efe48ddf82b7fa57d86c62be51992014c",
    "resnet18": "071dc769b0293ea9bbca848fa52a9e205eaba66a60796197a716fe83490fee0e",
    "squeeze_excite": "b0c7be5090b18b91ec69731441725b524c9dadf441def2b1411c1ac4e100684e",
    "unet": "7447c474673f7c6b554183ba0f5e95924e7c9ae2dd32a9aae32390bdb614444a",
    "vit": "5a20fd39abc1839c678d26431d7eb421f10ae072299fe9671de7ce020bffc85c",
}

# Depth at which the large models are run here: a repeated layer shows nothing new.
SHALLOW: dict[str, dict[str, Any]] = {"bert": {"layers": 2}, "vit": {"layers": 2}}

# Parameters that belong to the parent of the stages.
PARENTS = {"clip-two": {"clip.logit_scale"}}


def spec_of(path: Path) -> Spec:
    return load_spec(path, {}).spec


def first_spec(name: str) -> Spec:
    return spec_of(sorted((PLANS / name).glob("*.yaml"))[0])


def plain(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def digest(model: nn.Module) -> str:
    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(plain(tensor))
    return total.hexdigest()


def test_every_folder_is_an_example_with_a_readme_line() -> None:
    folders = {p.parent.name for p in PLANS.glob("*/model.py")}
    assert folders == set(BUILD) == {p.parent.name for p in SPECS}
    readme = (PLANS / "README.md").read_text()
    assert [p.name for p in SPECS if f"`{p.name}`" not in readme] == []


@pytest.mark.parametrize("name", sorted(set(BUILD) - {"digits"}))
def test_weights_have_the_same_bits_everywhere(name: str) -> None:
    assert digest(BUILD[name]()) == WEIGHTS[name]


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_spec_fits_its_model(path: Path) -> None:
    spec = spec_of(path)
    assert spec.name == path.stem
    model = BUILD[path.parent.name](**(SHALLOW.get(path.parent.name, {}) | spec.model.args))
    assert spec.infers_inputs == (path.parent.name in SPEAKING)
    if not spec.infers_inputs:
        assert list(spec.inputs) == list(inspect.signature(model.forward).parameters)
    if spec.placement == "auto":
        return
    modules = dict(model.named_modules())
    staged = [m for stage in spec.placement.stages for m in stage.modules]
    assert [m for m in staged if m not in modules] == []
    homes = {
        name: [m for m in staged if name.startswith(m + ".")]
        for name, _ in model.named_parameters(remove_duplicate=False)
    }
    assert {n for n, home in homes.items() if not home} == PARENTS.get(spec.name, set())
    assert [n for n, home in homes.items() if len(home) > 1] == []


def corners(spec: Spec) -> Iterator[dict[str, int]]:
    """All dimensions at their least, then all at their greatest; neither is the traced example."""
    yield {name: dim.min for name, dim in spec.dims.items()}
    yield {name: dim.max for name, dim in spec.dims.items()}


def inputs_at(spec: Spec, extents: dict[str, int] | None = None) -> dict[str, Tensor]:
    return {n: torch.from_numpy(a) for n, a in sample_inputs(spec, extents).items()}


def export(model: nn.Module, spec: Spec) -> torch.export.ExportedProgram:
    dims = {n: torch.export.Dim(n, min=d.min, max=d.max) for n, d in spec.dims.items()}
    shapes = {
        name: {i: dims[e] for i, e in enumerate(declared.shape) if isinstance(e, str)}
        for name, declared in spec.inputs.items()
    }
    return torch.export.export(model, (), inputs_at(spec), dynamic_shapes=shapes, strict=False)


@pytest.mark.parametrize("name", FORWARD)
def test_export_equals_eager_at_both_ends_of_every_dimension(name: str) -> None:
    spec = first_spec(name)
    model = BUILD[name](**SHALLOW.get(name, {}))
    before = digest(model)
    with torch.no_grad():
        exported = export(model, spec).module()
        for extents in corners(spec):
            inputs = inputs_at(spec, extents)
            kept = {n: t.clone() for n, t in inputs.items()}
            expected = pytree.tree_leaves(model(**inputs))
            actual = pytree.tree_leaves(exported(**inputs))
            assert len(expected) == len(actual) > 0
            for one, other in zip(expected, actual, strict=True):
                assert isinstance(one, Tensor)
                assert bool(one.isfinite().all())
                assert torch.equal(one, other), (name, extents)
            for n, tensor in inputs.items():
                assert torch.equal(tensor, kept[n]), f"{name} changes its input {n}"
    assert digest(model) == before, "running the model changed its state"


@pytest.mark.parametrize("name", FORWARD)
def test_outputs_depend_on_every_input(name: str) -> None:
    spec = first_spec(name)
    model = BUILD[name](**SHALLOW.get(name, {}))
    inputs = inputs_at(spec)
    with torch.no_grad():
        base = pytree.tree_leaves(model(**inputs))
        for changed, tensor in sample_inputs(spec, seed=1).items():
            assert not torch.equal(inputs[changed], torch.from_numpy(tensor))
            other = pytree.tree_leaves(model(**(inputs | {changed: torch.from_numpy(tensor)})))
            assert any(not torch.equal(a, b) for a, b in zip(base, other, strict=True)), changed


def test_the_masked_lm_is_tied_across_its_cut() -> None:
    tied = dict(BUILD["masked_lm"]().named_parameters(remove_duplicate=False))
    table = tied["model.bert.embeddings.word_embeddings.weight"]
    assert tied["model.cls.predictions.decoder.weight"] is table


def test_the_in_place_example_really_mutates_a_view() -> None:
    program = export(BUILD["inplace_views"](), first_spec("inplace_views"))
    nodes = list(program.graph.nodes)
    (mutation,) = [n for n in nodes if n.target is torch.ops.aten.relu_.default]
    view = mutation.args[0]
    assert view.target is torch.ops.aten.slice.Tensor
    # The base and another view are read afterwards: order and aliasing both matter.
    base = next(n for n in nodes if n.target is torch.ops.aten.conv2d.default)
    later = nodes[nodes.index(mutation) + 1 :]
    assert any(base in n.all_input_nodes for n in later)
    first = next(n for n in nodes if n.target is torch.ops.aten.select.int)
    assert nodes.index(first) < nodes.index(mutation)
    assert any(first in n.all_input_nodes for n in later)


def test_full_size_models_are_full_size() -> None:
    def millions(name: str) -> float:
        return sum(p.numel() for p in BUILD[name]().parameters()) / 1e6

    assert round(millions("resnet18"), 1) == 11.7
    assert round(millions("bert"), 1) == 109.5
    assert round(millions("vit"), 1) == 86.6

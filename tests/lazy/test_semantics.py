"""The analysis of compiled models on what the lazy device recorded: the same labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import genie.lazy
from genie.semantics.annotate import Analysis, analyze
from tests.capture.compiling import example, spec_of
from tests.semantics.captured import graph_of
from tests.semantics.corpus import ENTRIES

VISION = ("bottleneck_resnet", "vgg", "vit", "reshaped_vit", "swin")
LANGUAGE = ("gpt2", "nano_gpt", "llama", "qwen2", "mixtral", "torch_layers_lm", "t5", "bert")
STATEFUL = ("cached_prefill", "cached_decode", "cache_handed_over")
OTHERS = ("dlrm", "wide_and_deep", "tabular_mlp", "diffusion_mlp")
SEVERAL = ("clip", "contrastive_pair", "image_prefix_lm", "visual_question_answering")
SOUND = ("whisper", "speech_transformer", "wav2vec2")
MODELS = (*VISION, *LANGUAGE, *STATEFUL, *OTHERS, *SEVERAL, *SOUND)
OLD = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
"""What a package of the corpus does when it is imported."""
REST = [pytest.param(n, marks=[pytest.mark.sweep, OLD]) for n in ENTRIES if n not in MODELS]

HEAVY = ("linear", "conv", "scaled_dot_product", "embedding", "mm", "matmul", "bilinear")
"""What the operators are called that do the work, composed or not."""


def told_of(name: str) -> dict[str, Any]:
    """What the device says of one forward of a model of the corpus."""
    module, inputs = ENTRIES[name].build()
    symbols = any("b" in item["shape"] for item in inputs.values())
    given = example(spec_of(inputs, {"b": (1, 4)} if symbols else None), {"b": 2})
    module = module.to("genie")
    genie.lazy.synchronize()
    # Some models make a range or a mask without saying where.
    with torch.no_grad(), torch.device("genie"):
        found = module(**{n: t.to("genie") for n, t in given.items()})
    found = tuple(found.values()) if isinstance(found, dict) else found
    for left in found if isinstance(found, tuple | list) else [found]:
        assert torch.isfinite(left.cpu()).all()
    return genie.lazy.semantics()


def parts(notes: list[tuple[str, str, str, str]]) -> list[tuple[str, ...]]:
    """Role, component and phase of the regions that work, in the order of execution.

    Notes are operator, region, component and phase; neighbours of one region are taken together.
    """
    kept = [n[1:] for n in notes if any(word in n[0] for word in HEAVY)]
    apart = [n for i, n in enumerate(kept) if i == 0 or kept[i - 1] != n]
    return [(region.partition(".")[0], *rest) for region, *rest in apart]


def recorded_parts(told: dict[str, Any]) -> list[tuple[str, ...]]:
    return parts([(c["op"], c["region"], c["component"], c["phase"]) for c in told["calls"]])


def exported_parts(found: Analysis) -> list[tuple[str, ...]]:
    pairs = zip(found.graph.nodes, found.calls, strict=True)
    return parts([(node.op, n.region, n.component, n.phase) for node, n in pairs])


def carried(inputs: dict[str, str]) -> list[str]:
    """What the inputs are, without those that only steer."""
    return sorted(modality for modality in inputs.values() if modality != "control")


@pytest.mark.parametrize("name", [*MODELS, *REST])
def test_a_recorded_forward_has_the_labels_of_the_exported_one(name: str) -> None:
    told = told_of(name)
    exported = analyze(graph_of(ENTRIES[name])[0])
    assert told["workload"]["kind"] == exported.workload.kind
    assert told["phase"] == exported.phase
    components = dict.fromkeys(note.component for note in exported.calls)
    assert {c["name"] for c in told["components"]} == set(components)
    assert recorded_parts(told) == exported_parts(exported)
    assert carried(told["inputs"]) == carried(dict(exported.inputs))
    kinds = {note.residency for note in exported.values.values()}
    assert "kv_cache" in kinds or "kv_cache" not in told["residency"]
    assert kinds - {"state"} <= set(told["residency"])
    if name in MODELS:
        assert (exported.workload.kind, exported.phase) == (ENTRIES[name].kind, ENTRIES[name].phase)


def test_weights_that_the_device_keeps_are_weights() -> None:
    told = told_of("tabular_mlp")
    residency = told["residency"]
    assert residency["weight"]["values"] == 6
    assert residency["input"]["values"] == 1
    assert sum(c["weight_bytes"] for c in told["components"]) == residency["weight"]["bytes"]


class Looking(nn.Module):
    """A language model that looks at a value between its layers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        made: Tensor = self.inner(tokens)
        assert made.abs().max().item() > 0  # the device runs here
        return made.log_softmax(2).softmax(2).log()


def test_a_forward_of_several_runs_is_one() -> None:
    inner, _ = ENTRIES["nano_gpt"].build()
    model = Looking(inner).to("genie")
    tokens = torch.arange(12)[None].to("genie")
    with torch.no_grad(), torch.device("genie"):
        made = model(tokens)
    assert torch.isfinite(made.cpu()).all()
    assert genie.lazy.stats()["graphs_run"] == 2
    told = genie.lazy.semantics()
    assert told["workload"]["kind"] == "llm"
    assert [c["op"] for c in told["calls"]].count("aten.embedding.default") == 2


def test_a_layer_that_torch_fuses_has_the_labels_of_its_parts() -> None:
    model, _ = ENTRIES["reshaped_vit"].build()
    model = model.to("genie")
    image = torch.randn(2, 3, 64, 64).to("genie")
    told = []
    for fused in (True, False):
        torch.backends.mha.set_fastpath_enabled(fused)
        try:
            with torch.no_grad():
                model(image).cpu()
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        told.append(genie.lazy.semantics())
    assert recorded_parts(told[0]) == recorded_parts(told[1])
    assert told[0]["workload"] == told[1]["workload"]
    assert told[0]["workload"]["kind"] == "vision"
    ops = {c["op"] for c in told[0]["calls"]}
    assert "aten.scaled_dot_product_attention.default" in ops
    assert not any("encoder_layer" in op for op in ops)


def test_a_step_of_training_leaves_weights_weights() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64)).to("genie")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        loss = model(torch.ones(8, 64, device="genie")).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.item() > 0
    told = genie.lazy.semantics()
    assert told["residency"]["weight"]["values"] >= 6
    assert told["residency"]["state"]["values"] >= 2  # the running statistics


def test_without_modules_weights_are_what_operators_take_as_such() -> None:
    weight = torch.randn(64, 64).to("genie")
    x = torch.randn(64, 64).to("genie")
    torch.nn.functional.linear(x, weight).relu().cpu()
    told = genie.lazy.semantics()
    assert told["residency"]["weight"]["values"] == 1
    assert told["residency"]["input"]["values"] == 1


def test_what_nobody_needs_is_left_out() -> None:
    model = nn.Linear(64, 64).to("genie")
    x = torch.randn(8, 64).to("genie")
    with torch.no_grad():
        x.sin().cos()
        model(x).cpu()
    assert [c["op"] for c in genie.lazy.semantics()["calls"]] == ["aten.linear.default"]


def test_a_loop_that_chooses_tokens_is_a_language_model() -> None:
    model, _ = ENTRIES["nano_gpt"].build()
    model = model.to("genie")
    tokens = torch.arange(6)[None].to("genie")
    with torch.no_grad(), torch.device("genie"):
        for _ in range(3):
            chosen = model(tokens)[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, chosen], 1)
            assert chosen.item() < 100
    told = genie.lazy.semantics()
    assert told["workload"]["kind"] == "llm"
    assert list(told["inputs"].values()) == ["text"]
    assert [c["name"] for c in told["components"]] == ["embedding", "decoder", "lm_head"]


@pytest.mark.parametrize("name", ["vit", "llama", "nano_gpt"])
def test_a_forward_that_could_be_trained_has_the_same_labels(name: str) -> None:
    module, inputs = ENTRIES[name].build()
    given = example(spec_of(inputs, {"b": (1, 4)}), {"b": 2})
    module = module.to("genie")
    told = []
    for wanted in (False, True):
        with torch.set_grad_enabled(wanted), torch.device("genie"):
            found = module(**{n: t.to("genie") for n, t in given.items()})
        for left in found.values() if isinstance(found, dict) else [found]:
            assert left.requires_grad == wanted
            left.detach().cpu()
        told.append(genie.lazy.semantics())
    assert told[0]["workload"] == told[1]["workload"]
    assert recorded_parts(told[0]) == recorded_parts(told[1])
